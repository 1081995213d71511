"""Series of DICOM studies become channels by the names of the plan, which the package keeps."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import torch
from PIL import Image
from tiny_model import tiny_package

from segmed.archive import FolderSource, Study
from segmed.errors import PackageError, UsageError
from segmed.inference import Predictor, predict_files
from segmed.inference.inputs import expected_by, find_all
from segmed.io import read_images, read_label
from segmed.io.dicom.write import Identity, write_series
from segmed.manifest import Case, Manifest, write_manifest
from segmed.metatensor import MetaTensor
from segmed.package import ModelPackage
from segmed.package.series_rules import SERIES_RULES, Rules, rules_in, rules_of, stored_rules
from segmed.structures import Channel, LabelClass


def package_of(*names: str) -> ModelPackage:
    package = tiny_package(channels=len(names))
    channels = tuple(Channel(name=name, modality="MR") for name in names)
    plan = package.plan.model_copy(update={"channels": channels})
    return ModelPackage(
        package.architecture, package.options, plan, package.state, stored_rules(channels)
    )


@pytest.fixture
def write_study(make_volume: Callable[..., MetaTensor]) -> Callable[..., Path]:
    """Writes a study with a series for each description, a folder each."""

    def write(folder: Path, patient: str, *descriptions: str) -> Path:
        for number, description in enumerate(descriptions):
            identity = Identity(patient_id=patient, description=description, series_number=number)
            for path in write_series(
                folder / f"s{number}", make_volume(seed=number), identity=identity
            ):
                dataset = pydicom.dcmread(path)
                dataset.StudyInstanceUID = f"1.2.{int.from_bytes(patient.encode())}"
                dataset.FrameOfReferenceUID = dataset.StudyInstanceUID + ".1"
                dataset.SeriesInstanceUID = f"{dataset.StudyInstanceUID}.{number + 2}"
                dataset.save_as(path)
        return folder

    return write


@pytest.mark.parametrize(
    ("names", "descriptions", "chosen"),
    [
        (("FLAIR", "T1"), ("Ax T1 pre", "sag localizer", "AX FLAIR"), [2, 0]),
        (("T1", "T1post"), ("t1_mpr post gd", "t1_mpr"), [1, 0]),
        (("T1w", "T2w"), ("T2 tse", "T1 mprage"), [1, 0]),
        (("FLAIR_reg", "T2_reg"), ("T2_reg", "FLAIR_reg", "T2", "FLAIR"), [1, 0]),
    ],
)
def test_the_words_of_channel_names_choose_the_series(
    tmp_path: Path,
    write_study: Callable[..., Path],
    names: tuple[str, ...],
    descriptions: tuple[str, ...],
    chosen: list[int],
) -> None:
    study = write_study(tmp_path / "study", "A", *descriptions)
    package = package_of(*names)
    predictor = Predictor(package, device="cpu", engine="torch")
    [outcome] = predict_files(predictor, [study], tmp_path / "out")
    assert (outcome.status, outcome.reason) == ("done", None)
    image = read_images([study / f"s{number}" for number in chosen])
    expected = predictor.predict(image).label.numpy()
    np.testing.assert_array_equal(read_label(outcome.output).numpy(), expected)
    source = FolderSource(study, num_channels=len(names), rules=rules_in(package))
    [found] = [one for one in source.studies() if isinstance(one, Study)]
    assert found.fault is None
    assert [channel[0].parent.name for channel in found.channels] == [f"s{n}" for n in chosen]


@pytest.mark.parametrize(
    ("names", "descriptions", "reason"),
    [
        (("T2", "FLAIR"), ("T2 FLAIR", "FLAIR"), "no_series_fits"),
        (("T1", "T2"), ("T1 a", "T1 b", "T2"), "several_series_fit"),
        (("c0", "c1"), ("T1", "T2"), "no_series_fits"),
        (("T1", "T2"), ("T1",), "no_series_fits"),
    ],
)
def test_doubtful_series_are_refused_by_name(
    tmp_path: Path,
    write_study: Callable[..., Path],
    names: tuple[str, ...],
    descriptions: tuple[str, ...],
    reason: str,
) -> None:
    study = write_study(tmp_path / "study", "A", *descriptions)
    predictor = Predictor(package_of(*names), device="cpu", engine="torch")
    [outcome] = predict_files(predictor, [study], tmp_path / "out")
    assert outcome.status == "refused"
    assert str(outcome.reason).startswith(reason)


def test_studies_of_two_patients_in_one_tree_are_two_cases(
    tmp_path: Path, write_study: Callable[..., Path]
) -> None:
    for patient in "AB":
        write_study(tmp_path / f"tree/{patient}", patient, "T1", "FLAIR", "dixon")
    inputs = find_all([tmp_path / "tree"], expected_by(package_of("FLAIR", "T1")))
    assert [len(case.series) for case in inputs.cases] == [2, 2]
    reasons = inputs.passed_over.values()
    assert all(why.startswith("series not chosen by the rules (") for why in reasons)


def test_rules_are_kept_in_the_package_and_read_from_it(tmp_path: Path) -> None:
    package = package_of("T1", "FLAIR")
    kept = ModelPackage.load(package.save(tmp_path / "p"))
    assert rules_in(kept) == rules_of(package.plan.channels)
    older = replace(package, provenance={})
    assert rules_in(older) == rules_of(package.plan.channels)
    own = {"channels": [{"name": "a", "words": ["t2"]}, {"name": "b", "description": "x"}]}
    edited = replace(package, provenance={SERIES_RULES: own})
    assert rules_in(edited) == Rules.model_validate(own)
    with pytest.raises(PackageError, match="series rules of the package: field 'channels'"):
        rules_in(replace(package, provenance={SERIES_RULES: {"channels": []}}))
    assert rules_in(tiny_package()) is None


def manifest_of(folder: Path, names: tuple[str, ...], *, one_file: bool = False) -> Path:
    cases = []
    for number in range(2):
        files = []
        voxels = np.random.default_rng(number).integers(0, 900, (12, 10, 8, len(names)))
        parts = [voxels] if one_file else [voxels[..., n] for n in range(len(names))]
        for channel, part in enumerate(parts):
            path = folder / f"k{number}_{channel}.nii.gz"
            nib.save(nib.Nifti1Image(part.astype(np.int16), np.eye(4)), path)
            files.append(path.name)
        cases.append(Case(id=f"case-{number}", group=str(number), image=tuple(files), fold=None))
    return write_manifest(
        Manifest(
            name="m",
            labels=(LabelClass(name="a", value=1),),
            channels=tuple(Channel(name=name) for name in names),
            training=(),
            test=tuple(cases),
            root=folder,
        ),
        folder / "m.json",
    )


def test_a_manifest_is_an_input_whose_channels_are_put_in_order(tmp_path: Path) -> None:
    predictor = Predictor(package_of("T1", "FLAIR"), device="cpu", engine="torch")
    path = manifest_of(tmp_path, ("FLAIR", "T1"))
    outcomes = list(predict_files(predictor, [path], tmp_path / "out"))
    assert [one.status for one in outcomes] == ["done", "done"]
    assert [one.output.name for one in outcomes if one.output] == [
        "case-0.nii.gz", "case-1.nii.gz"
    ]  # fmt: skip
    image = read_images([tmp_path / "k1_1.nii.gz", tmp_path / "k1_0.nii.gz"])
    found = read_label(tmp_path / "out/case-1.nii.gz").numpy()
    np.testing.assert_array_equal(found, predictor.predict(image).label.numpy())
    other = Predictor(package_of("T1", "T2"), device="cpu", engine="torch")
    with pytest.raises(UsageError, match="has the channels FLAIR, T1, the model takes T1, T2"):
        predict_files(other, [path], tmp_path / "out")
    whole = manifest_of(tmp_path, ("FLAIR", "T1"), one_file=True)
    with pytest.raises(UsageError, match="one file with the channels FLAIR, T1"):
        predict_files(predictor, [whole], tmp_path / "out")
    straight = manifest_of(tmp_path, ("T1", "FLAIR"), one_file=True)
    outcomes = list(predict_files(predictor, [straight], tmp_path / "whole"))
    assert [one.status for one in outcomes] == ["done", "done"]


def test_a_folder_of_slices_is_one_image_of_a_model_of_volumes(
    tmp_path: Path, predictor: Predictor
) -> None:
    volume = np.random.default_rng(0).integers(0, 255, (12, 10, 8), dtype=np.uint8)
    for patient in "ab":
        (tmp_path / f"in/{patient}").mkdir(parents=True)
        for number in range(8):
            path = tmp_path / f"in/{patient}/{number:04d}.png"
            Image.fromarray(volume[:, :, number]).save(path)
    outcomes = list(predict_files(predictor, [tmp_path / "in"], tmp_path / "out"))
    assert [(one.status, one.input.name) for one in outcomes] == [("done", "a"), ("done", "b")]
    assert outcomes[0].output is not None
    assert read_label(outcomes[0].output).shape == (1, 12, 10, 8)
    image = MetaTensor(torch.from_numpy(volume[None].astype(np.float32)), affine=torch.eye(4))
    np.testing.assert_array_equal(
        read_label(outcomes[0].output).numpy(), predictor.predict(image).label.numpy()
    )
