"""Volumes named after the model's channels are put together by `predict` and `archive` alike."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny_model import tiny_package

from pipelines.runs.archiving import ArchiveJob, source_of
from segmed.archive import NotImage, Study, segment_archive
from segmed.inference import Predictor
from segmed.inference.inputs import expected_by, find_all
from segmed.io import read_images, read_label
from segmed.package import ModelPackage
from segmed.structures import Channel


@pytest.fixture
def package() -> ModelPackage:
    """A model of FLAIR and T1c, which take other places in the alphabet than in the model."""
    package = tiny_package(channels=2)
    channels = (Channel(name="T2F", modality="MR"), Channel(name="t1c", modality="MR"))
    plan = package.plan.model_copy(update={"channels": channels})
    return ModelPackage(package.architecture, package.options, plan, package.state)


@pytest.fixture
def tree(tmp_path: Path, write_nifti: Callable[..., Path]) -> Path:
    for case in ("p1", "p2"):
        for number, kind in enumerate(("t1c", "t1n", "t2f", "seg")):
            if (case, kind) != ("p2", "t2f"):
                write_nifti(tmp_path / f"tree/{case}/{case}-{kind}.nii.gz", number)
    return tmp_path / "tree"


def test_cases_by_the_names_of_channels(tmp_path: Path, tree: Path, package: ModelPackage) -> None:
    inputs = find_all([tree], expected_by(package))
    sound, lacking = sorted(inputs.cases, key=lambda case: bool(case.fault))[:2]
    assert [path.name for path in sound.files] == ["p1-t2f.nii.gz", "p1-t1c.nii.gz"]
    assert "without a channel number" in lacking.fault
    assert "CASE-T2F.nii.gz, CASE-t1c.nii.gz" in lacking.fault
    left = {path.name: why for path, why in inputs.passed_over.items()}
    assert "none of the model's channels T2F, t1c" in left["p1-t1n.nii.gz"]
    assert "mask" in left["p1-seg.nii.gz"]

    source = source_of(ArchiveJob(str(tree), (), tmp_path / "out"), package)()
    items = list(source.studies())
    [study] = [one for one in items if isinstance(one, Study) and one.fault is None]
    assert [channel[0].name for channel in study.channels] == ["p1-t2f.nii.gz", "p1-t1c.nii.gz"]
    assert any("p1-t1n" in one.place for one in items if isinstance(one, NotImage))

    predictor = Predictor(package, device="cpu", engine="torch")
    outcomes = list(segment_archive(source, predictor=predictor, out_dir=tmp_path / "out"))
    done = [one for one in outcomes if one.status == "done"]
    stored = read_label(tmp_path / "out" / str(done[0].output))
    expected = predictor.predict(read_images(sound.files)).label
    np.testing.assert_array_equal(stored.numpy(), expected.numpy())
