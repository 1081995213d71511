"""Forms of DICOM segmentations: equal voxels in all, by our reader, highdicom and dcmqi."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its users know it by this name
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from volumes_in_space import blobs

from segmed.errors import GeometryError, UsageError
from segmed.formats import SegForm, require_seg_form
from segmed.io import read_image, read_label, write_label
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.write import write_series
from segmed.io.fractions import Fractions, bytes_of
from segmed.metatensor import MetaTensor
from segmed.structures import LabelClass

MODEL = {"model_name": "unet", "model_version": "3f2a"}
LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=5))
REGIONS = (
    LabelClass(name="whole", value=1, region=(1, 2)),
    LabelClass(name="core", value=2, region=(2,)),
)
FORMS = [
    SegForm(), SegForm(all_frames=True), SegForm("labelmap"), SegForm("fractional"),
    SegForm("fractional", all_frames=True),
]  # fmt: skip
KNOWN_FALSE = ("Information Object Not found",)
"""Error of dciodvfy of 2022 on every LABELMAP object, which is younger than it."""


def seed_probs(label: torch.Tensor, values: tuple[int, ...] = (0, 1, 5)) -> np.ndarray:
    """Probabilities, most of them unsure, that are largest near a label map."""
    logits = torch.rand((len(values), *label.shape), generator=torch.Generator().manual_seed(0))
    for channel, value in enumerate(values):
        logits[channel][label == value] += 0.6
    return np.asarray(logits.softmax(dim=0))


def fractions_of(probs: np.ndarray, depth: int = 2) -> Fractions:
    """Fractions, put slab by slab."""
    shape = probs.shape[1:]
    fractions = Fractions(len(probs) - 1, shape, exclusive=True)
    for first in range(0, shape[2], depth):
        box = (slice(0, shape[0]), slice(0, shape[1]), slice(first, min(first + depth, shape[2])))
        fractions.put(box, bytes_of(probs[(slice(None), *box)], exclusive=True))
    return fractions


@pytest.fixture(params=["made", "real"])
def image(
    request: pytest.FixtureRequest,
    tmp_path: Path,
    oblique_volume: MetaTensor,
    shared_data: Callable[[str], Path],
) -> MetaTensor:
    """An oblique series: a made one, and a real one with cosines that differ by rounding."""
    if request.param == "made":
        write_series(tmp_path / "series", oblique_volume)
        return read_image(tmp_path / "series")
    study = "PGBM-001/04-02-1992-FH-HEADBrain Protocols-79896/11-T1post-80644"
    return read_image(shared_data("pgbm") / study)


@pytest.fixture(params=FORMS, ids=lambda form: "-".join((form.kind, *form.words)))
def form(request: pytest.FixtureRequest) -> SegForm:
    """Each form."""
    return request.param


def written(
    path: Path, image: MetaTensor, form: SegForm, label: torch.Tensor | None = None
) -> tuple[Path, torch.Tensor]:
    """An object, and the label map that it contains."""
    label = blobs(tuple(image.shape[1:])) if label is None else label
    fractions = None
    if form.kind == "fractional":
        probs = seed_probs(label)
        label = torch.tensor([0, 1, 5])[torch.from_numpy(probs.argmax(axis=0))]
        fractions = fractions_of(probs)
    write_dicom_seg(
        path, label, like=image, labels=LABELS, form=form, fractions=fractions, **MODEL
    )  # fmt: skip
    return path, label


def test_segments_of_every_form_are_numbered_from_one_by_their_places(
    image: MetaTensor, form: SegForm, tmp_path: Path
) -> None:
    """Viewers take the n-th item for segment n; a label map states its background by padding."""
    dataset = pydicom.dcmread(written(tmp_path / "seg.dcm", image, form)[0])
    numbers = [item.SegmentNumber for item in dataset.SegmentSequence]
    assert numbers == list(range(1, 1 + len(LABELS)))
    assert dataset.get("PixelPaddingValue") == (0 if form.kind == "labelmap" else None)


def test_every_form_reads_back_equal_and_is_conformant(
    image: MetaTensor, form: SegForm, tmp_path: Path
) -> None:
    path, label = written(tmp_path / "seg.dcm", image, form)
    assert torch.equal(read_label(path, like=image).as_tensor()[0], label)
    assert torch.equal(read_label(path, like=image, labels=LABELS).as_tensor()[0], label)
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    said = subprocess.run(
        [program, str(path)], capture_output=True, text=True, check=False, encoding="utf-8"
    ).stderr
    errors = [line for line in said.splitlines() if line.startswith("Error")]
    known = KNOWN_FALSE if form.kind == "labelmap" else ()
    assert [line for line in errors if not any(words in line for words in known)] == []


def test_dcmqi_reads_every_form_voxel_for_voxel(
    image: MetaTensor, form: SegForm, tmp_path: Path
) -> None:
    beside_python = Path(sys.executable).with_name("segimage2itkimage")
    program = str(beside_python) if beside_python.is_file() else shutil.which(beside_python.name)
    if program is None:
        pytest.skip("dcmqi (of the developers' tools) is not installed")
    path, label = written(tmp_path / "seg.dcm", image, form)
    (tmp_path / "out").mkdir()
    command = [program, "--inputDICOM", path, "--outputDirectory", tmp_path / "out"]
    subprocess.run([*command, "--outputType", "nii"], check=True, capture_output=True)
    ours = sitk.ReadImage(str(write_label(tmp_path / "ours.nii.gz", label, like=image)))
    numbers = np.where(label.numpy() == 5, 2, label.numpy())
    for number in (1, 2):
        name = "1.nii.gz" if form.kind == "labelmap" else f"{number}.nii.gz"
        theirs = sitk.ReadImage(str(tmp_path / "out" / name))
        aligned = sitk.Resample(theirs, ours, sitk.Transform(), sitk.sitkNearestNeighbor)
        values = sitk.GetArrayFromImage(aligned).transpose(2, 1, 0)
        if form.kind == "fractional":
            stored = fractions_of(seed_probs(blobs(tuple(image.shape[1:]))))
            planes = [stored.frame(number - 1, k).T for k in range(image.shape[3])]
            np.testing.assert_array_equal(values > 0, np.stack(planes, axis=2) > 0)
        else:
            wanted = number if form.kind == "labelmap" else values.max()
            np.testing.assert_array_equal(values == wanted, numbers == number)


def test_highdicom_reads_the_same_probabilities(image: MetaTensor, tmp_path: Path) -> None:
    path, _ = written(tmp_path / "seg.dcm", image, SegForm("fractional", all_frames=True))
    volume = hd.seg.segread(path).get_volume(combine_segments=False, rescale_fractional=True)
    probs = seed_probs(blobs(tuple(image.shape[1:])))[1:]
    # Their axes: slices, rows, columns, segments; slices may run the other way.
    theirs = np.asarray(volume.array).transpose(3, 2, 1, 0)
    flipped = theirs[..., ::-1]
    nearer = min((theirs, flipped), key=lambda array: np.abs(array - probs).max())
    assert np.abs(nearer - probs).max() < 2 / 255


def test_empty_frames_are_left_out_unless_requested(image: MetaTensor, tmp_path: Path) -> None:
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    label[2:5, 2:5, 1], label[2:5, 2:5, 3:5] = 1, 5
    count = {}
    for form in FORMS[:3]:
        path, _ = written(tmp_path / "seg.dcm", image, form, label)
        dataset = pydicom.dcmread(path)
        count["-".join((form.kind, *form.words))] = dataset.NumberOfFrames
        referenced = dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
        assert len(referenced) == image.shape[3]
    depth = image.shape[3]
    assert list(count.values()) == [3, 2 * depth, depth]


def test_object_without_a_voxel_has_one_frame(image: MetaTensor, tmp_path: Path) -> None:
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    path, _ = written(tmp_path / "seg.dcm", image, SegForm(), label)
    assert pydicom.dcmread(path).NumberOfFrames == 1
    assert not read_label(path, like=image).any()


def test_identifiers_differ_by_form_and_tracking_does_not(
    image: MetaTensor, tmp_path: Path
) -> None:
    read = [pydicom.dcmread(written(tmp_path / "seg.dcm", image, form)[0]) for form in FORMS]
    again = pydicom.dcmread(written(tmp_path / "seg.dcm", image, SegForm())[0])
    assert len({dataset.SOPInstanceUID for dataset in read}) == len(FORMS)
    assert len({dataset.SeriesInstanceUID for dataset in read}) == len(FORMS)
    assert again.SOPInstanceUID == read[0].SOPInstanceUID
    said = {
        tuple((item.TrackingID, item.TrackingUID) for item in dataset.SegmentSequence[-2:])
        for dataset in (*read, again)
    }
    assert len(said) == 1
    (segments,) = said
    assert [name for name, _ in segments] == ["anterior", "posterior"]
    assert len({uid for _, uid in segments}) == 2
    assert {(str(one.SeriesDescription), int(one.SeriesNumber)) for one in read} == {
        ("Segmentation by unet", 9000)
    }
    for dataset in read:
        described = dataset.SegmentSequence[-2:]
        assert all(len(item.RecommendedDisplayCIELabValue) == 3 for item in described)
        assert all("SegmentationAlgorithmIdentificationSequence" in item for item in described)


def test_regions_are_written_as_masks_that_overlap(image: MetaTensor, tmp_path: Path) -> None:
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    label[1:6, 1:6, 1:4], label[2:4, 2:4, 2] = 1, 2
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=REGIONS, **MODEL)
    assert pydicom.dcmread(path).SegmentsOverlap == "YES"
    assert torch.equal(read_label(path, like=image, labels=REGIONS).as_tensor()[0], label)
    with pytest.raises(UsageError, match="'whole' contains others: choose binary or fractional"):
        write_dicom_seg(
            path, label, like=image, labels=REGIONS, form=SegForm("labelmap"), **MODEL
        )  # fmt: skip


def test_probabilities_of_regions_keep_their_halves(image: MetaTensor, tmp_path: Path) -> None:
    shape = tuple(image.shape[1:])
    probs = np.full((2, *shape), 0.499, dtype=np.float32)
    probs[0, 1:6, 1:6, 1:4], probs[1, 2:4, 2:4, 2] = 0.501, 0.5001
    probs[1, 5, 5, 3] = 0.5  # belongs to no region: a region begins above one half
    fractions = Fractions(2, shape, exclusive=False)
    fractions.put(tuple(slice(0, size) for size in shape), bytes_of(probs, exclusive=False))
    label = torch.from_numpy(np.where(probs[1] > 0.5, 2, probs[0] > 0.5).astype(np.int32))
    path = write_dicom_seg(
        tmp_path / "seg.dcm", label, like=image, labels=REGIONS, form=SegForm("fractional"),
        fractions=fractions, **MODEL,
    )  # fmt: skip
    assert torch.equal(read_label(path, like=image, labels=REGIONS).as_tensor()[0], label)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**16), classes=st.integers(2, 25), sharpness=st.floats(0, 8))
def test_bytes_have_the_class_and_the_sum_of_their_probabilities(
    seed: int, classes: int, sharpness: float
) -> None:
    draws = np.random.default_rng(seed).random((classes, 9, 8, 7)) * sharpness
    probs = np.exp(draws) / np.exp(draws).sum(axis=0)
    probs = probs.astype(np.float32)
    probs[:, :2] = 1 / classes  # ties: the first class
    stored = bytes_of(probs, exclusive=True).astype(int)
    rest = 255 - stored.sum(axis=0)
    assert rest.min() >= 0
    whole = np.concatenate([rest[None], stored])
    np.testing.assert_array_equal(whole.argmax(axis=0), probs.argmax(axis=0))
    assert np.abs(whole / 255 - probs).max() < 3 / 255


def test_more_structures_than_pixels_are_written(
    tmp_path: Path, oblique_volume: MetaTensor
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    size = image.shape[1] * image.shape[2]
    labels = tuple(LabelClass(name=f"part {n}", value=n) for n in range(1, size + 40))
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    label[0, 0, 1], label[3, 4, 2] = size + 20, 7
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=labels, **MODEL)
    assert torch.equal(read_label(path, like=image).as_tensor()[0], label)


def test_forms_that_do_not_fit_are_refused_in_one_line(image: MetaTensor, tmp_path: Path) -> None:
    label = blobs(tuple(image.shape[1:]))
    for form, fractions, error, words in (
        (SegForm("surface"), None, UsageError, "binary, fractional, labelmap"),
        (SegForm("fractional"), None, UsageError, "needs probabilities"),
        (SegForm("fractional"), Fractions(3, (2, 3, 4), exclusive=True), GeometryError, "3 struct"),
    ):
        with pytest.raises(error, match=words):
            write_dicom_seg(
                tmp_path / "x.dcm", label, like=image, labels=LABELS, form=form,
                fractions=fractions, **MODEL,
            )  # fmt: skip
        assert not (tmp_path / "x.dcm").exists()
    for form, words in (
        (SegForm("labelmap"), "--seg labelmap is a form of --format dicom-seg, got --format nifti"),
        (SegForm(all_frames=True), "--all-frames is a form of --format dicom-seg"),
    ):
        with pytest.raises(UsageError, match=words):
            require_seg_form(form, "nifti")
