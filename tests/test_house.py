"""Budgets of the house: each is breached once, in a tree made for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from house import shared_class_names, unmirrored_rooms
from house_language import clauses_for_titles, dialect
from house_processes import forks_beside_threads
from house_reached import unreached_names
from house_reasons import broad_handlers_without_reason, ignores_without_reason
from house_text import texts_of_the_locale


def tree(root: Path, *files: str) -> Path:
    for name in files:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("class Engine: ...\n", encoding="utf-8")
    return root


MIRRORED = (
    "segmed/__init__.py", "segmed/io/dicom/__init__.py", "pipelines/__init__.py",
    "pipelines/cli/__init__.py", "tests/test_front_door.py", "tests/io/dicom/test_scan.py",
    "tests/pipelines/cli/test_help.py", "tests/pipelines/test_serving.py",
    "tests/integration/test_server.py",
)  # fmt: skip


def test_mirrored_tree_is_accepted(tmp_path: Path) -> None:
    assert unmirrored_rooms(tree(tmp_path, *MIRRORED)) == []


@pytest.mark.parametrize(
    ("extra", "breach"),
    [
        ("segmed/archive/ledger/__init__.py", "segmed/archive/ledger: no tests in"),
        ("pipelines/doctor/__init__.py", "pipelines/doctor: no tests in tests/pipelines/doctor"),
        ("tests/cli/test_words.py", "tests/cli: mirrors no package"),
        ("tests/pipelines/runs/test_notice.py", "tests/pipelines/runs: mirrors no package"),
    ],
)
def test_package_and_tests_apart_are_found(tmp_path: Path, extra: str, breach: str) -> None:
    (found,) = unmirrored_rooms(tree(tmp_path, *MIRRORED, extra))
    assert found.startswith(breach)


def test_class_name_of_two_modules_is_found(tmp_path: Path) -> None:
    (found,) = shared_class_names(tree(tmp_path, "segmed/a.py", "pipelines/b.py"))
    assert (
        found
        == "class Engine is defined in segmed/a.py:1 and pipelines/b.py:1: one name, one meaning"
    )


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ('"""What a page shows."""', True),
        ('def f():\n    """Whether it is so."""', True),
        ('async def f():\n    """How it goes."""', True),
        ('class A:\n    """Where it is.\n\n    More.\n    """', True),
        ('class A:\n    def f(self):\n        """That which is."""', True),
        ('"""Return what a page shows."""', False),
        ('"""Whole volumes.\n\nWhat follows is no title.\n"""', False),
        ('x = 1\n"""What documents a constant."""', False),
    ],
)
def test_docstring_that_opens_with_a_clause_is_found(
    tmp_path: Path, code: str, is_found: bool
) -> None:
    (tmp_path / "segmed").mkdir()
    (tmp_path / "segmed" / "a.py").write_text(code, encoding="utf-8")
    found = clauses_for_titles(tmp_path)
    assert bool(found) == is_found
    assert all(line.startswith("segmed/a.py: ") for line in found)


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("path.read_text()", True),
        ("path.write_text(words)", True),
        ("open(path)", True),
        ('open(path, "w")', True),
        ("path.open()", True),
        ('path.open(mode="a")', True),
        ("subprocess.run(words, text=True)", True),
        ('path.read_text(encoding="ascii")', False),
        ('path.write_text(words, "utf-8")', False),
        ('open(path, "rb")', False),
        ('path.open("wb")', False),
        ("Image.open(path)", False),
        ("subprocess.run(words)", False),
        ("read(path, **options)", False),
    ],
)
def test_text_in_the_encoding_of_the_locale_is_found(
    tmp_path: Path, code: str, is_found: bool
) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "reading.py").write_text(code, encoding="utf-8")
    assert bool(texts_of_the_locale(tmp_path)) == is_found


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("import torch  # noqa: PLC0415", True),
        ("import torch  # noqa: PLC0415, N813", True),
        ("import torch  # noqa", True),
        ("x = f()  # type: ignore[misc]", True),
        ("x = f()  # type: ignore", True),
        ("x = f()  # pragma: no cover", True),
        ("x = f()  # nosec B101", True),
        ("# mypy: ignore-errors\n", True),
        ("# noqa: S101\nx = f()  # noqa: S101", True),
        ("y = 1  # the answer\nx = f()  # noqa: S101", True),
        ("import torch  # noqa: PLC0415 - takes seconds", False),
        ("import torch  # noqa: PLC0415, N813 - takes seconds", False),
        ("x = f()  # type: ignore[misc]  # the stub lacks it", False),
        ("# The stub lacks it.\nx = f()  # type: ignore[misc]", False),
        ("x = f()  # pragma: no cover - needs a GPU", False),
        ("x = '# noqa'", False),
    ],
)
def test_ignore_without_a_reason_is_found(tmp_path: Path, code: str, is_found: bool) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "a.py").write_text(code, encoding="utf-8")
    assert bool(ignores_without_reason(tmp_path)) == is_found


@pytest.mark.parametrize(
    ("handler", "is_found"),
    [
        ("except Exception:\n    raise", True),
        ("except BaseException as error:\n    x = error", True),
        ("except (ValueError, Exception):\n    x = 1", True),
        ("except:\n    x = 1", True),
        ("except Exception:  # noqa: BLE001\n    x = 1", True),
        ("except Exception:  # one study must not end the run\n    x = 1", False),
        ("except Exception:\n    # One study must not end the run.\n    x = 1", False),
        ("except Exception:  # noqa: BLE001 - one study\n    x = 1", False),
        ("except (ValueError, OSError):\n    x = 1", False),
    ],
)
def test_broad_handler_without_a_reason_is_found(
    tmp_path: Path, handler: str, is_found: bool
) -> None:
    (tmp_path / "segmed").mkdir()
    code = f"try:\n    f()\n{handler}\n"
    (tmp_path / "segmed" / "a.py").write_text(code, encoding="utf-8")
    assert bool(broad_handlers_without_reason(tmp_path)) == is_found


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ("os.fork()", True),
        ("pty.fork()", True),
        ('multiprocessing.get_context("fork")', True),
        ("multiprocessing.get_context()", True),
        ('set_start_method(method="fork")', True),
        ("multiprocessing.Process(target=f)", True),
        ("ProcessPoolExecutor(4)", True),
        ("subprocess.Popen(words, preexec_fn=f)", True),
        ('multiprocessing.get_context("spawn")', False),
        ('multiprocessing.get_context("forkserver").Process(target=f)', False),
        ("ProcessPoolExecutor(4, mp_context=FRESH)", False),
        ("torch.random.fork_rng()", False),
    ],
)
def test_fork_of_a_process_with_threads_is_found(tmp_path: Path, code: str, is_found: bool) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "a.py").write_text(code, encoding="utf-8")
    assert bool(forks_beside_threads(tmp_path)) == is_found


@pytest.mark.parametrize(
    ("code", "is_found"),
    [
        ('"""Say how each study ended."""', True),
        ('def f():\n    """Voxels that nobody annotated."""', True),
        ('def f():\n    """A file, mended."""', True),
        ('x = Option(help="Train all " "anew.")', True),
        ('raise ValueError(f"{name} goes on: end it")', True),
        ('raise ValueError(text("the header says so"))', True),
        ('def f():\n    """Compare.\n\n    It says more.\n    """', False),
        ('"""Stand-ins of the source images."""', False),
        ('"""The columns `said` and `told`."""', False),
        ('x = Option(help="Train all again.")', False),
        ('raise ValueError(f"{said} is unknown")', False),
    ],
)
def test_word_of_the_dialect_is_found(tmp_path: Path, code: str, is_found: bool) -> None:
    (tmp_path / "pipelines").mkdir()
    (tmp_path / "pipelines" / "a.py").write_text(code, encoding="utf-8")
    assert bool(dialect(tmp_path)) == is_found


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("def alone(): ...", ["alone"]),
        ("LIMIT = 3", ["LIMIT"]),
        ("class Alone:\n    @property\n    def size(self): ...\nx = Alone()\nx.f(x)", ["size"]),
        ("@dataclass(frozen=True)\nclass Record: ...", ["Record"]),
        ("def published(): ...\n__all__ = ['published']", []),
        ("def called(): ...\ncalled()", []),
        ("class Box:\n    def size(self): ...\nBox().size()", []),
        ("@app.command()\ndef command(): ...", []),
        ("@model_validator(mode='after')\ndef checked(self): ...", []),
    ],
)
def test_name_that_nothing_reaches_is_found(tmp_path: Path, code: str, found: list[str]) -> None:
    (tmp_path / "segmed").mkdir()
    (tmp_path / "tests").mkdir()
    (tmp_path / "segmed" / "a.py").write_text(code, encoding="utf-8")
    (tmp_path / "tests" / "test_a.py").write_text("alone(LIMIT, Alone.size)", encoding="utf-8")
    lines = unreached_names(tmp_path)
    assert len(lines) == len(found)
    assert all(f"reaches {name}: " in line for name, line in zip(found, lines, strict=True))
