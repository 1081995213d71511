"""References are resolved by whoever registered for their scheme; paths are read."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import hippocampus_package

from segmed.errors import PackageError, UsageError
from segmed.package import resolvers
from segmed.package.references import load_package


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return hippocampus_package().save(tmp_path / "package")


def test_resolver_of_a_scheme_gives_the_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolvers, "RESOLVERS", dict(resolvers.RESOLVERS))
    asked: list[str] = []

    def resolve(reference: str) -> Path:
        asked.append(reference)
        return folder

    resolvers.RESOLVERS.clear()
    resolvers.register_resolver("shelf", resolve)
    monkeypatch.setattr("segmed.package.references.RESOLVERS", resolvers.RESOLVERS)
    assert load_package("shelf:/x@champion").hash == hippocampus_package().hash
    assert asked == ["shelf:/x@champion"]


def test_registry_without_a_resolver_is_named_with_the_repair() -> None:
    code = "import segmed; segmed.Predictor.load('models:/x@champion')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        encoding="utf-8",
    )
    assert "UsageError: 'models:/x@champion' is in a model registry" in done.stderr
    assert "import pipelines.registry" in done.stderr


def test_registry_resolves_once_it_is_imported(tmp_path: Path) -> None:
    code = "import segmed, pipelines.registry\nsegmed.Predictor.load('models:/absent@champion')"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=False, timeout=300, cwd=tmp_path, encoding="utf-8",
    )  # fmt: skip
    assert "UsageError: no model 'absent' is registered in" in done.stderr


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
