"""References are resolved by whoever registered for their scheme; paths are read."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from tiny_data import hippocampus_package

from segmed.errors import PackageError, UsageError
from segmed.package import resolvers
from segmed.package.references import load_package

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hippocampus_package().save(tmp_path / "package")


def test_resolver_of_a_scheme_gives_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "RESOLVERS", {})
    asked: list[str] = []

    def resolve(reference: str) -> Path:
        asked.append(reference)
        return folder

    resolvers.register_resolver("shelf", resolve)
    assert load_package("shelf:/x@champion").hash == hippocampus_package().hash
    assert asked == ["shelf:/x@champion"]


def announced(folder: Path, scheme: str, value: str, module: str = "") -> dict[str, str]:
    """The environment of an installed package that announces a resolver."""
    info = folder / "my_shelf-1.0.dist-info"
    info.mkdir(parents=True)
    about = "Metadata-Version: 2.1\nName: my-shelf\nVersion: 1.0\n"
    (info / "METADATA").write_text(about, encoding="utf-8")
    point = f"[{resolvers.GROUP}]\n{scheme} = {value}\n"
    (info / "entry_points.txt").write_text(point, encoding="utf-8")
    (folder / "my_shelf.py").write_text(module, encoding="utf-8")
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(folder), str(REPOSITORY)])}


def ran(code: str, folder: Path, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=300, cwd=folder, env=env,
        encoding="utf-8",
    )  # fmt: skip


def test_installed_package_announces_its_resolver(folder: Path, tmp_path: Path) -> None:
    module = (
        "from segmed.package.resolvers import register_resolver\n"
        f"register_resolver('shelf', lambda reference: {str(folder)!r})\n"
    )
    env = announced(tmp_path / "site", "shelf", "my_shelf", module)
    code = (
        "import sys, segmed\n"
        "segmed.Predictor.load('shelf:/a@b', device='cpu')\n"
        "print('my_shelf' in sys.modules)"
    )
    done = ran(code, tmp_path, env)
    assert done.stdout.strip() == "True", done.stderr


@pytest.mark.parametrize(
    ("value", "module", "message"),
    [
        ("absent_shelf", "", "need 'absent_shelf', which cannot be imported: No module named"),
        ("my_shelf", "import nowhere", "cannot be imported: No module named 'nowhere'"),
        ("my_shelf:absent", "", "cannot be imported"),
        ("my_shelf", "x = 1", "registers no resolver: call register_resolver('shelf', ...) there"),
    ],
)
def test_announced_module_that_resolves_nothing_is_named(
    value: str, module: str, message: str, tmp_path: Path
) -> None:
    env = announced(tmp_path / "site", "shelf", value, module)
    done = ran("import segmed; segmed.Predictor.load('shelf:/a@b')", tmp_path, env)
    assert "UsageError: " in done.stderr
    assert message in done.stderr


def test_registry_is_read_without_an_import_by_its_user(tmp_path: Path) -> None:
    env = announced(tmp_path / "site", "models", "pipelines.registry")
    done = ran("import segmed; segmed.Predictor.load('models:/absent@champion')", tmp_path, env)
    assert "UsageError: no model 'absent' is registered in" in done.stderr


def test_segmed_announces_its_registry() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"][resolvers.GROUP] == {"models": "pipelines.registry"}


def test_registry_that_no_installed_package_reads_is_named_with_the_repair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(resolvers, "RESOLVERS", {})
    monkeypatch.setattr(resolvers, "entry_points", lambda **_: ())  # nothing is installed
    with pytest.raises(UsageError, match=r"'models:/x@champion' is in a model registry.*install"):
        load_package("models:/x@champion")


@pytest.mark.parametrize("name", ["nowhere", "ftp:/x", "models", "C:/models/x"])
def test_path_that_is_none_is_refused(name: str) -> None:
    with pytest.raises(PackageError, match="does not exist"):
        load_package(name)


def test_path_is_read_whatever_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "models:").mkdir()
    hippocampus_package().save(tmp_path / "models:" / "x")
    monkeypatch.chdir(tmp_path)
    assert load_package("models:/x").architecture == "unet"
    with pytest.raises(UsageError):
        load_package("models:/y")
