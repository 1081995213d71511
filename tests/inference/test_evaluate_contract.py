"""Cases are scored in the model's own channels and labels, or not at all."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segmed.errors import UsageError
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.io import batches
from segmed.manifest.schema import Case, Manifest
from segmed.plan.schema import Intensity
from segmed.structures import Channel, LabelClass

SHAPE = (20, 18, 16)


@pytest.fixture
def predictor(make_plan, make_package) -> Predictor:
    plan = make_plan(patch=(16, 16, 16))
    rules = plan.preprocessing.model_copy(update={"intensity": (Intensity(scheme="zscore"),) * 2})
    channels = (Channel(name="T1", modality="MR"), Channel(name="T2", modality="MR"))
    two = plan.model_copy(update={"channels": channels, "preprocessing": rules})
    return Predictor(make_package(two), device="cpu", engine="torch")


def image_set(
    folder: Path, names: tuple[str, ...], labels: tuple[LabelClass, ...]
) -> tuple[Manifest, Case]:
    """One case whose channels are files, listed by the given names."""
    draws = np.random.default_rng(3)
    for name in ("T1", "T2"):
        voxels = draws.normal(size=SHAPE).cumsum(axis=0).astype(np.float32)
        nib.save(nib.Nifti1Image(voxels, np.eye(4)), folder / f"{name}.nii.gz")
    truth = draws.choice([0, 2, 5], size=SHAPE).astype(np.uint8)
    nib.save(nib.Nifti1Image(truth, np.eye(4)), folder / "truth.nii.gz")
    case = Case(id="a", group="a", image=tuple(f"{n}.nii.gz" for n in names), label="truth.nii.gz")
    channels = tuple(Channel(name=name, modality="MR") for name in names)
    return Manifest(
        name="set", labels=labels, channels=channels, training=(), test=(case,), root=folder
    ), case


def test_order_of_the_channels_in_a_manifest_changes_no_score(
    tmp_path: Path, predictor: Predictor
) -> None:
    tables = []
    for names in (("T1", "T2"), ("T2", "T1")):
        manifest, case = image_set(tmp_path, names, predictor.plan.labels)
        out = tmp_path / "-".join(names)
        tables.append(score_cases(predictor, manifest, [case], out_dir=out).table)
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["dice"].max() > 0


def test_labels_of_other_values_are_refused_before_anything_is_written(
    tmp_path: Path, predictor: Predictor
) -> None:
    first, second = predictor.plan.labels
    turned = (
        first.model_copy(update={"value": second.value}),
        second.model_copy(update={"value": first.value}),
    )
    manifest, case = image_set(tmp_path, ("T1", "T2"), turned)
    with pytest.raises(UsageError, match="name and number the labels of the manifest alike"):
        score_cases(predictor, manifest, [case], out_dir=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_labels_of_small_pictures_are_read_together_and_score_alike(
    tmp_path: Path, make_plan, make_package, shared_data, sandbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = make_plan(spatial_dims=2, spacing_mm=(1.0, 1.0), patch=(16, 16))
    predictor = Predictor(make_package(plan), device="cpu", engine="torch")
    cases = []
    for number in range(5):
        with Image.open(shared_data("isbi2012") / f"images/{number}.png") as picture:
            picture.crop((0, 0, 40, 36)).save(tmp_path / f"i{number}.png")
        with Image.open(shared_data("isbi2012") / f"labels/{number}.png") as picture:
            mask = np.asarray(picture.crop((0, 0, 40, 36))) // 127  # 0 and 2
        Image.fromarray(mask).save(tmp_path / f"m{number}.png")
        names = {"image": (f"i{number}.png",), "label": f"m{number}.png"}
        cases.append(Case(id=f"c{number}", group=f"c{number}", **names))
    channels = (Channel(name="T1", modality="MR"),)
    manifest = Manifest(
        name="set", labels=plan.labels, channels=channels, training=(), test=cases, root=tmp_path
    )
    tables = [score_cases(predictor, manifest, cases, out_dir=tmp_path / "out").table]
    assert [one for one in sandbox.files if len(one) > 1] == [[f"m{n}.png" for n in range(5)]]
    assert len(sandbox.requests) == 6  # images are read alone
    monkeypatch.setattr(batches, "LARGEST_BYTES", 0)
    tables.append(score_cases(predictor, manifest, cases, out_dir=tmp_path / "out").table)
    pd.testing.assert_frame_equal(*tables)
    assert tables[0]["dice"].max() > 0
