"""DICOM segmentations and structure sets: read back by several hands, and standard-conformant."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813 - its users know it by this name
import torch
from matplotlib.path import Path as Outline
from monai.data import MetaTensor
from volumes_in_space import ORIENTATIONS, blobs, image_in_ras, volume

from segmed.errors import GeometryError, ImageError, UsageError
from segmed.formats import SegForm
from segmed.io import read_image, read_label, source_of, write_label
from segmed.io.dicom.rtstruct import write_rtstruct
from segmed.io.dicom.seg import write_dicom_seg
from segmed.io.dicom.seg_read import load_seg
from segmed.io.dicom.write import write_series
from segmed.structures import LabelClass

REAL = [
    "hippocampus_dicom/study1",
    "hippocampus_dicom/study2",
    "hippocampus_dicom/study3",
    "pgbm/PGBM-001/04-02-1992-FH-HEADBrain Protocols-79896/11-T1post-80644",
    "pgbm/PGBM-008/06-10-1993-FH-HEADBrain Protocols-26857/13-T1post-21069",
]
Labels = tuple[LabelClass, LabelClass]
MODEL = {"model_name": "unet", "model_version": "3f2a"}


def conformance_errors(path: Path) -> list[str]:
    """Errors that dciodvfy reports, if it is installed."""
    program = shutil.which("dciodvfy")
    if program is None:
        pytest.skip("dciodvfy (Debian package dicom3tools) is not installed")
    done = subprocess.run(
        [program, str(path)], capture_output=True, text=True, check=False, encoding="utf-8"
    )
    return [line for line in done.stderr.splitlines() if line.startswith("Error")]


def rasterised(path: Path, like: MetaTensor) -> np.ndarray:
    """A structure set as a label map of ROI numbers, by the even-odd rule at voxel centres."""
    dataset = pydicom.dcmread(path)
    shape = tuple(like.shape[1:])
    label = np.zeros(shape, dtype=np.int32)
    to_index = np.linalg.inv(np.diag([-1.0, -1.0, 1.0, 1.0]) @ np.asarray(like.affine))
    centres = np.stack(np.meshgrid(*map(np.arange, shape[:2]), indexing="ij"), -1).reshape(-1, 2)
    for region in dataset.ROIContourSequence:
        inside = np.zeros(shape, dtype=bool)
        for contour in region.get("ContourSequence", []):
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float)
            index = points @ to_index[:3, :3].T + to_index[:3, 3]
            k = int(np.rint(index[0, 2]))
            np.testing.assert_allclose(index[:, 2], k, atol=1e-3)
            low, high = index[:, :2].min(axis=0), index[:, :2].max(axis=0)
            near = ((centres >= low) & (centres <= high)).all(axis=1)
            outline = Outline(np.vstack([index[:, :2], index[:1, :2]]))
            hit = outline.contains_points(centres[near])
            inside[:, :, k].flat[np.flatnonzero(near)[hit]] ^= True
        label[inside] = region.ReferencedROINumber
    return label


def by_highdicom(path: Path, like: MetaTensor) -> np.ndarray:
    """Segment numbers as highdicom reads them, put on the grid of `like` by their positions."""
    theirs = hd.seg.segread(path).get_volume(combine_segments=True)
    indices = np.argwhere(theirs.array > 0)
    lps = indices @ theirs.affine[:3, :3].T + theirs.affine[:3, 3]
    to_index = np.linalg.inv(np.asarray(like.affine))
    where = np.rint((lps * (-1, -1, 1)) @ to_index[:3, :3].T + to_index[:3, 3]).astype(int)
    label = np.zeros(tuple(like.shape[1:]), dtype=int)
    label[tuple(where.T)] = theirs.array[tuple(indices.T)]
    return label


@pytest.fixture
def real_image(request: pytest.FixtureRequest, shared_data: Callable[[str], Path]) -> MetaTensor:
    """The image of a real series, by its folder."""
    folder, _, rest = request.param.partition("/")
    return read_image(shared_data(folder) / rest)


@pytest.fixture
def turned_image(request: pytest.FixtureRequest, tmp_path: Path) -> MetaTensor:
    """A series of one of the orientations, by its name."""
    write_series(tmp_path / "series", volume(ORIENTATIONS[request.param]))
    return read_image(tmp_path / "series")


def numbered(label: torch.Tensor) -> np.ndarray:
    """Label values as segment numbers: 1 stays, 5 is the second."""
    return np.where(label.numpy() == 5, 2, label.numpy())


@pytest.mark.parametrize("real_image", REAL, indirect=True)
def test_a_segmentation_of_real_images_is_conformant_and_reads_back_equal(
    real_image: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    label = blobs(tuple(real_image.shape[1:]))
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=real_image, labels=two_labels, **MODEL)
    assert conformance_errors(path) == []
    ours = read_label(path, like=real_image)
    assert torch.equal(ours.as_tensor()[0], label)
    np.testing.assert_array_equal(by_highdicom(path, real_image), numbered(label))


@pytest.mark.parametrize("turned_image", sorted(ORIENTATIONS), indirect=True)
def test_segmentations_round_trip_in_every_orientation_by_two_readers(
    turned_image: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    label = blobs(tuple(turned_image.shape[1:]))
    whole = SegForm(all_frames=True)
    path = write_dicom_seg(
        tmp_path / "seg.dcm", label, like=turned_image, labels=two_labels, form=whole, **MODEL
    )
    ours = read_label(path)
    assert torch.equal(ours.as_tensor()[0], label)
    np.testing.assert_allclose(np.asarray(ours.affine), np.asarray(turned_image.affine), atol=1e-6)
    np.testing.assert_array_equal(by_highdicom(path, turned_image), numbered(label))


@pytest.mark.parametrize("real_image", REAL, indirect=True)
def test_dcmqi_reads_our_segmentation_voxel_for_voxel(
    real_image: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    beside_python = Path(sys.executable).with_name("segimage2itkimage")
    program = str(beside_python) if beside_python.is_file() else shutil.which(beside_python.name)
    if program is None:
        pytest.skip("dcmqi (of the developers' tools) is not installed")
    label = blobs(tuple(real_image.shape[1:]))
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=real_image, labels=two_labels, **MODEL)
    subprocess.run(
        [program, "--inputDICOM", path, "--outputDirectory", tmp_path, "--outputType", "nii"],
        check=True, capture_output=True,
    )  # fmt: skip
    ours = sitk.ReadImage(str(write_label(tmp_path / "ours.nii.gz", label, like=real_image)))
    for number in (1, 2):
        theirs = sitk.ReadImage(str(next(tmp_path.glob(f"*{number}.nii.gz"))))
        aligned = sitk.Resample(theirs, ours, sitk.Transform(), sitk.sitkNearestNeighbor)
        values = sitk.GetArrayFromImage(aligned).transpose(2, 1, 0)
        np.testing.assert_array_equal(values > 0, numbered(label) == number)
        assert (values > 0).any()


@pytest.mark.parametrize(
    ("seg", "nrrd", "voxels"),
    [
        ("liver.dcm", "liver_seg.nrrd", 107098),
        ("23x38x3/seg/label.seg", "23x38x3/nrrd/label.nrrd", 322),
    ],
)
def test_foreign_segmentations_equal_their_nrrd(
    shared_data: Callable[[str], Path], seg: str, nrrd: str, voxels: int
) -> None:
    folder = shared_data("dicom_seg") / "dcmqi"
    ours, expected = read_label(folder / seg), read_label(folder / nrrd)
    values, affine = image_in_ras(ours)
    expected_values, expected_affine = image_in_ras(expected)
    np.testing.assert_array_equal(values > 0, expected_values > 0)
    np.testing.assert_allclose(affine, expected_affine, atol=1e-3)
    assert int((ours > 0).sum()) == voxels


def test_segmentations_of_multi_frame_sources_follow_the_frames(
    shared_data: Callable[[str], Path], tmp_path: Path, two_labels: Labels
) -> None:
    image = read_image(shared_data("dicom_seg") / "dcmqi" / "23x38x3" / "multiframe")
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    label[2:9, 3:20, 0], label[4:6, 3:9, 2] = 1, 5
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=two_labels, **MODEL)
    assert torch.equal(read_label(path, like=image).as_tensor()[0], label)
    structures = write_rtstruct(tmp_path / "rt.dcm", label, like=image, labels=two_labels, **MODEL)
    np.testing.assert_array_equal(rasterised(structures, image), numbered(label))


def test_identifiers_are_functions_of_input_and_model(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    for write in (write_dicom_seg, write_rtstruct):
        paths = [
            write(tmp_path / f"{index}.dcm", label, like=image, labels=two_labels,
                  model_name="unet", model_version=version)
            for index, version in enumerate(("a", "a", "b"))
        ]  # fmt: skip
        first, again, other = (pydicom.dcmread(path) for path in paths)
        assert first.SOPInstanceUID == again.SOPInstanceUID != other.SOPInstanceUID
        assert first.SeriesInstanceUID == again.SeriesInstanceUID != other.SeriesInstanceUID
        source = pydicom.dcmread(next((tmp_path / "series").iterdir()))
        assert first.StudyInstanceUID == source.StudyInstanceUID


def test_a_segmentation_references_every_source_image(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    files = write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=two_labels, **MODEL)
    dataset = pydicom.dcmread(path)
    referenced = {
        item.ReferencedSOPInstanceUID
        for item in dataset.ReferencedSeriesSequence[0].ReferencedInstanceSequence
    }
    assert referenced == {pydicom.dcmread(file).SOPInstanceUID for file in files}
    assert dataset.NumberOfFrames == sum(
        int((label == value).flatten(0, 1).any(dim=0).sum()) for value in (1, 5)
    )
    assert [segment.SegmentLabel for segment in dataset.SegmentSequence] == [
        "anterior",
        "posterior",
    ]
    kinds = [item.SegmentedPropertyTypeCodeSequence[0] for item in dataset.SegmentSequence]
    assert [kind.CodingSchemeDesignator for kind in kinds] == ["SCT", "99SEGMED"]


@pytest.mark.parametrize("turned_image", sorted(ORIENTATIONS), indirect=True)
def test_structure_sets_round_trip_in_every_orientation(
    turned_image: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    label = blobs(tuple(turned_image.shape[1:]))
    path = write_rtstruct(tmp_path / "rt.dcm", label, like=turned_image, labels=two_labels, **MODEL)
    np.testing.assert_array_equal(rasterised(path, turned_image), numbered(label))


@pytest.mark.parametrize("real_image", [REAL[0], REAL[3]], indirect=True)
def test_a_structure_set_of_real_images_is_conformant_and_round_trips(
    real_image: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    label = torch.zeros(real_image.shape[1:], dtype=torch.int32)
    label[:24, -20:] = blobs((24, 20, real_image.shape[3]))
    path = write_rtstruct(tmp_path / "rt.dcm", label, like=real_image, labels=two_labels, **MODEL)
    assert conformance_errors(path) == []
    np.testing.assert_array_equal(rasterised(path, real_image), numbered(label))


def test_written_series_are_conformant(oblique_volume: MetaTensor, tmp_path: Path) -> None:
    for modality in ("MR", "CT"):
        for image in (oblique_volume, oblique_volume * 0.37):
            files = write_series(tmp_path / modality, image, modality=modality)
            assert conformance_errors(files[2]) == []


def test_empty_structures_are_written_and_read(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    seg = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=two_labels, **MODEL)
    assert int(read_label(seg).sum()) == 0
    structures = write_rtstruct(tmp_path / "rt.dcm", label, like=image, labels=two_labels, **MODEL)
    assert len(pydicom.dcmread(structures).StructureSetROISequence) == 2


def test_results_that_would_mislead_are_not_written(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    for write in (write_dicom_seg, write_rtstruct):
        path = tmp_path / "out.dcm"
        with pytest.raises(UsageError, match="memory"):
            write(path, label, like=oblique_volume, labels=two_labels, **MODEL)
        with pytest.raises(UsageError):
            write(path, label, like=image, labels=(), **MODEL)
        with pytest.raises(GeometryError):
            write(path, label[1:], like=image, labels=two_labels, **MODEL)
        with pytest.raises(ImageError) as caught:
            write(path, label, like=image, labels=two_labels[:1], **MODEL)
        assert caught.value.reason == "unknown_label"
        moved = MetaTensor(
            image.as_tensor(), affine=image.affine + 1, meta={"source": source_of(image)}
        )
        with pytest.raises(GeometryError):
            write(path, label, like=moved, labels=two_labels, **MODEL)
        assert not path.exists()


def _changed(path: Path, target: Path, change: Callable[[pydicom.Dataset], None]) -> Path:
    dataset = pydicom.dcmread(path)
    change(dataset)
    dataset.save_as(target)
    return target


def test_segmentations_without_empty_frames_find_their_slices(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = torch.zeros(image.shape[1:], dtype=torch.int32)
    label[2:5, 2:5, 1], label[2:5, 2:5, 4] = 1, 5
    path = write_dicom_seg(tmp_path / "seg.dcm", label, like=image, labels=two_labels, **MODEL)
    assert pydicom.dcmread(path).NumberOfFrames == 2
    assert torch.equal(read_label(path, like=image).as_tensor()[0], label)
    alone = read_label(path)
    assert int((alone > 0).sum()) == 18
    other = MetaTensor(torch.zeros(image.shape), affine=image.affine + 3 * torch.eye(4))
    with pytest.raises(GeometryError):
        read_label(path, like=other)


def test_unsound_segmentations_are_refused_by_name(
    oblique_volume: MetaTensor, tmp_path: Path, two_labels: Labels
) -> None:
    files = write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    seg = write_dicom_seg(
        tmp_path / "seg.dcm", label, like=image, labels=two_labels,
        form=SegForm(all_frames=True), **MODEL,
    )  # fmt: skip

    def fractional(dataset: pydicom.Dataset) -> None:
        dataset.SegmentationType = "FRACTIONAL"

    def unknown(dataset: pydicom.Dataset) -> None:
        dataset.SegmentationType = "SURFACE"

    def placeless(dataset: pydicom.Dataset) -> None:
        for group in dataset.PerFrameFunctionalGroupsSequence:
            del group.PlanePositionSequence

    def overlapping(dataset: pydicom.Dataset) -> None:
        pixels = dataset.pixel_array
        pixels[:] = 1
        dataset.PixelData = pydicom.pixels.pack_bits(pixels)

    for change, reason in (
        (fractional, "corrupt"),
        (unknown, "unknown_kind"),
        (placeless, "no_frame_positions"),
        (overlapping, "overlapping_segments"),
    ):
        with pytest.raises(ImageError) as caught:
            read_label(_changed(seg, tmp_path / "odd.dcm", change))
        assert caught.value.reason == reason
    with pytest.raises(ImageError) as caught:
        load_seg(files[0])
    assert caught.value.reason == "not_seg"
    (tmp_path / "cut.dcm").write_bytes(seg.read_bytes()[:-9])
    with pytest.raises(ImageError) as caught:
        read_label(tmp_path / "cut.dcm")
    assert caught.value.reason == "undecodable"


def test_nifti_labels_of_dicom_images_lie_on_the_same_grid(
    oblique_volume: MetaTensor, tmp_path: Path
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    image = read_image(tmp_path / "series")
    label = blobs(tuple(image.shape[1:]))
    written = nib.load(write_label(tmp_path / "l.nii.gz", label, like=image))
    np.testing.assert_allclose(written.get_sform(), np.asarray(image.affine), atol=1e-5)
    np.testing.assert_allclose(written.get_qform(), np.asarray(image.affine), atol=1e-4)
    assert written.header.get_xyzt_units()[0] == "mm"
