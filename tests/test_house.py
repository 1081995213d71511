"""Budgets of the house: each is breached once, in a tree made for it."""

from __future__ import annotations

from pathlib import Path

import pytest
from house import clauses_for_titles, shared_class_names, unmirrored_rooms
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
