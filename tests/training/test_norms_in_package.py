"""A package tells an archive what its training cases looked like."""

from __future__ import annotations

from pathlib import Path

import pytest
from tiny_data import tiny_plan, write_set

from segmed.archive.drift import watch
from segmed.archive.model import model_of
from segmed.io import read_images, read_label
from segmed.manifest import Manifest, read_manifest
from segmed.metrics.measures import FLAGGED, measure
from segmed.package import ModelPackage
from segmed.training import Budget, Settings, fit


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    """Twelve cubes in noise, half of them held out."""
    return read_manifest(write_set(tmp_path_factory.mktemp("cubes"), training=12))


@pytest.fixture(scope="module")
def package(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    """Package of a training of two steps."""
    out_dir = tmp_path_factory.mktemp("run") / "unet"
    epochs = fit(
        manifest,
        tiny_plan(steps=2),
        architecture="unet",
        fold=0,
        budget=Budget(epochs=1),
        out_dir=out_dir,
        settings=Settings(device="cpu"),
    )
    assert len(list(epochs)) == 1
    return ModelPackage.load(out_dir / "package")


def test_absurd_volume_is_flagged_by_the_ranges_of_the_training(
    manifest: Manifest, package: ModelPackage
) -> None:
    ranges = model_of([package]).ranges
    assert [known.label for known in ranges] == ["anterior", "posterior"]
    assert {known.cases for known in ranges} == {6}
    case = manifest.split(0)[1][0]  # held out, and a cube like the others
    image = read_images(manifest.image_paths(case))
    reference = read_label(manifest.root / str(case.label), like=image)
    assert measure(image, reference, manifest.labels, ranges=ranges)["flags"] == []
    reference[0, 1:-1, 1:-1, 1:-1] = 1
    flags = measure(image, reference, manifest.labels, ranges=ranges)["flags"]
    assert {"volume:anterior", "missing:posterior"} <= set(flags)


def test_drift_watch_reads_the_training_from_the_package(
    manifest: Manifest, package: ModelPackage, tmp_path: Path
) -> None:
    found = model_of([package]).norms
    assert found["volume_ml:anterior"] == pytest.approx([0.064] * 6)
    assert {len(values) for values in found.values()} == {6}
    assert model_of([ModelPackage.load(package.save(tmp_path / "copy"))]).norms == found
    strange = {
        name: values * 4 if name == FLAGGED else [value + 1000.0 for value in values] * 4
        for name, values in found.items()
    }
    alarms = {row.feature for row in watch(found, strange) if row.is_alarm}
    assert {"volume_ml:anterior", "spacing_mm:0", "intensity:0:median"} <= alarms
    assert not any(row.is_alarm for row in watch(found, found))
