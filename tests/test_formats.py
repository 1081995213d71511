"""The table of formats: every consumer of file names accepts every suffix in it, and no other."""

from __future__ import annotations

import gzip
import importlib
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from pipelines.comparing.case_pictures import images_of
from segmed.archive import FolderSource, NotImage, Study
from segmed.archive.query import SeriesQuery
from segmed.errors import UsageError
from segmed.formats import (
    ARCHIVE_OUTPUTS,
    DICOM_SUFFIXES,
    FORMATS,
    IMAGE_SUFFIXES,
    LABEL_SUFFIXES,
    NEVER_IMAGES,
    OUTPUT_SUFFIXES,
    RASTER_SUFFIXES,
    VOLUME_SUFFIXES,
    WRITTEN_SUFFIXES,
    format_named,
    has_image_suffix,
    stem_of,
    suffix_of,
    written_as,
)
from segmed.inference.inputs import find_all
from segmed.io import read_image, write_label
from segmed.io.dicom.checks import is_object
from segmed.io.dicom.grouping import may_be_image
from segmed.io.dicom.header import DicomHeader
from segmed.io.stack import stack_files, states_spacing
from segmed.manifest.dicom_labels import volumes_below
from segmed.manifest.draft import image_files
from segmed.manifest.patterns import Pattern
from segmed.metrics.label_pairs import label_files

VOXELS = np.arange(6 * 5 * 4, dtype=np.uint8).reshape(6, 5, 4)
MHD = (
    "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
    "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
    "DimSize = 6 5 4\nElementType = MET_UCHAR\nElementDataFile = {}\n"
)
NHDR = (
    "NRRD0004\ntype: uint8\ndimension: 3\nspace: left-posterior-superior\nsizes: 6 5 4\n"
    "space directions: (1,0,0) (0,1,0) (0,0,1)\nencoding: raw\nspace origin: (0,0,0)\n{}\n"
)


def _nifti(path: Path) -> None:
    kind = nib.Nifti1Pair if ".hdr" in path.name.lower() else nib.Nifti1Image
    plain = path.with_name("plain.hdr" if kind is nib.Nifti1Pair else "plain.nii.gz")
    image = kind(VOXELS, np.eye(4))
    image.header.set_sform(np.eye(4), 1)
    nib.save(image, plain)
    zipped = path.name.lower().endswith(".gz")
    for part in [plain] if kind is nib.Nifti1Image else [plain, plain.with_suffix(".img")]:
        content = gzip.decompress(part.read_bytes()) if part.suffix == ".gz" else part.read_bytes()
        part.unlink()
        target = path
        if part.suffix == ".img":
            target = path.with_name(path.name.replace(".hdr", ".img").replace(".HDR", ".IMG"))
        target.write_bytes(gzip.compress(content) if zipped else content)


def _metaimage(path: Path) -> None:
    body = VOXELS.tobytes(order="F")
    beside = path.name.lower().endswith("mhd")
    path.write_bytes(MHD.format(f"{stem_of(path)}.raw" if beside else "LOCAL").encode())
    if beside:
        path.with_name(f"{stem_of(path)}.raw").write_bytes(body)
    else:
        path.write_bytes(path.read_bytes() + body)


def _nrrd(path: Path) -> None:
    body = VOXELS.tobytes(order="F")
    beside = path.name.lower().endswith("nhdr")
    line = f"data file: {stem_of(path)}.raw\n" if beside else ""
    path.write_bytes(NHDR.format(line).encode() + (b"" if beside else body))
    if beside:
        path.with_name(f"{stem_of(path)}.raw").write_bytes(body)


def _raster(path: Path) -> None:
    row = format_named(path)
    assert row is not None
    Image.fromarray(VOXELS[..., 0]).save(path, format=row.title)


MAKERS: dict[str, Callable[[Path], None]] = {
    "nifti": _nifti, "nrrd": _nrrd, "metaimage": _metaimage,
    "png": _raster, "tiff": _raster, "jpeg": _raster,
}  # fmt: skip


def make(path: Path) -> Path:
    """A readable image of the format that a file name states."""
    row = format_named(path)
    assert row is not None
    MAKERS[row.name](path)
    return path


@pytest.mark.parametrize("suffix", IMAGE_SUFFIXES)
def test_a_folder_with_any_image_is_found_alike_by_every_command(
    tmp_path: Path, suffix: str
) -> None:
    path = make(tmp_path / f"case7{suffix}")
    cases = find_all([tmp_path]).cases
    assert [(case.case, case.files) for case in cases] == [("case7", (path,))]
    dims = 2 if suffix in RASTER_SUFFIXES else 3
    studies = list(FolderSource(tmp_path, spatial_dims=dims).studies())
    assert [study.channels[0][0] for study in studies if isinstance(study, Study)] == [path]
    assert not [item for item in studies if isinstance(item, NotImage)]
    assert image_files(tmp_path) == [path]
    assert images_of(tmp_path, ["case7"]) == {"case7": path}
    assert states_spacing(path) is (suffix in VOLUME_SUFFIXES)
    assert (path in volumes_below(tmp_path)) is (suffix in VOLUME_SUFFIXES)
    assert Pattern(f"*{{.png,{suffix}}}").choices == ()
    row = format_named(path)
    assert row is not None
    source = read_image(path).meta["source"]
    assert source.format == row.name


@pytest.mark.parametrize("suffix", [*IMAGE_SUFFIXES, *DICOM_SUFFIXES])
def test_upper_case_and_longer_suffixes_are_no_other_files(tmp_path: Path, suffix: str) -> None:
    loud = Path(f"case7{suffix.upper()}")
    assert format_named(loud) == format_named(Path(f"case7{suffix}"))
    assert has_image_suffix(loud) is (suffix in IMAGE_SUFFIXES)
    if suffix in IMAGE_SUFFIXES:
        assert stem_of(loud) == "case7"
        assert suffix_of(loud) == suffix.upper()
    (tmp_path / loud).write_bytes(b"0")
    if suffix in LABEL_SUFFIXES:
        assert label_files(tmp_path) == {"case7": tmp_path / loud}
    else:
        with pytest.raises(UsageError, match="no label map"):
            label_files(tmp_path)


@pytest.mark.parametrize("suffix", DICOM_SUFFIXES)
def test_a_damaged_file_named_dicom_is_refused_and_not_passed_over(
    tmp_path: Path, suffix: str
) -> None:
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(b"damaged" * 40)
    assert may_be_image(path.name, [])
    assert [audit.files for case in find_all([tmp_path]).cases for audit in case.series] == [
        (path,)
    ]
    (study,) = FolderSource(tmp_path).studies()
    assert isinstance(study, Study)
    assert study.fault is not None


@pytest.mark.parametrize("name", ["notes.txt", "case.nii.txt", "case.bmp", "nii", "case.gz"])
def test_other_names_are_images_nowhere(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"some text that is no image\n" * 30)
    assert format_named(name) is None
    assert find_all([tmp_path]).passed_over == {tmp_path / name: "no image by its name or content"}
    assert all(isinstance(item, NotImage) for item in FolderSource(tmp_path).studies())
    assert not image_files(tmp_path)
    assert not stack_files(tmp_path)


@pytest.mark.parametrize("suffix", RASTER_SUFFIXES)
def test_a_stack_has_slices_of_any_raster_format(tmp_path: Path, suffix: str) -> None:
    files = [make(tmp_path / f"slice_{number}{suffix}") for number in range(3)]
    assert stack_files(tmp_path) == files
    assert read_image(tmp_path).shape[-1] == 3


@pytest.mark.parametrize("suffix", [end for row in FORMATS for end in row.suffixes])
def test_label_maps_are_written_under_the_suffixes_of_the_table_alone(
    tmp_path: Path, suffix: str
) -> None:
    like = read_image(make(tmp_path / "like.png" if suffix == ".png" else tmp_path / "like.nii"))
    path, label = tmp_path / f"label{suffix}", like.as_tensor()[0].int()
    if suffix in WRITTEN_SUFFIXES:
        row = written_as(path)
        assert row is not None
        assert read_image(write_label(path, label, like=like)).meta["source"].format == row.name
    else:
        with pytest.raises(UsageError, match="unknown format; known are"):
            write_label(path, label, like=like)


def test_each_row_names_a_reader_and_writer_that_exist() -> None:
    for row in FORMATS:
        for place in filter(None, (row.reader, row.writer)):
            module, _, function = place.partition(":")
            assert callable(getattr(importlib.import_module(module), function))
        assert bool(row.written) is bool(row.writer)
    assert set(ARCHIVE_OUTPUTS) <= set(OUTPUT_SUFFIXES)
    suffixes = [end for row in FORMATS for end in row.suffixes]
    assert len(suffixes) == len(set(suffixes))


@pytest.mark.parametrize("modality", sorted(NEVER_IMAGES))
def test_modalities_that_are_never_images_are_so_in_folders_and_in_a_pacs(modality: str) -> None:
    header = DicomHeader(Path("f"), modality=modality, has_pixels=True)
    assert is_object(header)
    series = _Series(modality)
    assert SeriesQuery().select([series]) == []
    assert SeriesQuery().select([_Series("MR")])


class _Series:
    def __init__(self, modality: str) -> None:
        self.modality, self.description, self.body_part = modality, "", ""


def test_two_files_of_an_image_are_one_case(tmp_path: Path) -> None:
    make(tmp_path / "a.mhd")
    shutil.copy(tmp_path / "a.raw", tmp_path / "b.raw")
    assert [case.case for case in find_all([tmp_path]).cases] == ["a"]
    found = list(FolderSource(tmp_path).studies())
    assert [item.place for item in found if isinstance(item, NotImage)] == ["b.raw"]
