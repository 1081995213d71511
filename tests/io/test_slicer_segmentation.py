"""Segmentations of 3D Slicer: names, colours and codes; read back on the grid of the image."""

from __future__ import annotations

import gzip
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813 - its users know it by this name
import torch
from monai.data import MetaTensor
from small_sets import stored_along

from segmed.errors import ImageError, UsageError
from segmed.inference import Segmentation
from segmed.inference.writing import require_writable, write_result
from segmed.io import grid_of, read_image, read_label, write_label
from segmed.io.colours import structure_colour
from segmed.io.results import why_result
from segmed.io.segment_fields import escaped, unescaped
from segmed.io.slicer import label_from_slicer, read_slicer
from segmed.metrics.label_pairs import label_files
from segmed.structures import Code, LabelClass

LABELS = (
    LabelClass(
        name="größe; \\n links", value=2, code=Code(scheme="SCT", value="1", meaning="a^b~c|d")
    ),
    LabelClass(name="posterior", value=300, code=Code(scheme="SCT", value="2", meaning="Tail")),
    LabelClass(name="absent", value=7),
)


@pytest.fixture
def label(placed_volume: MetaTensor) -> torch.Tensor:
    """Two structures of the three."""
    values = torch.zeros(placed_volume.shape, dtype=torch.int32)
    values[0, 1:3, 1:2, 0:2] = 2
    values[0, 3:5, 0:3, 1:3] = 300
    return values


@pytest.fixture
def written(tmp_path: Path, placed_volume: MetaTensor, label: torch.Tensor) -> Path:
    """The same as a file."""
    return write_label(tmp_path / "scan.seg.nrrd", label, like=placed_volume, labels=LABELS)


def test_names_colours_values_and_codes_are_those_of_the_labels(written: Path) -> None:
    header = sitk.ImageFileReader()
    header.SetFileName(str(written))
    header.ReadImageInformation()
    stored = {key: header.GetMetaData(key) for key in header.GetMetaDataKeys()}
    assert stored["Segment0_Name"] == "größe; \\n links"
    assert stored["Segment1_LabelValue"] == "300"
    assert stored["Segment1_Extent"] == "3 4 0 2 1 2"
    assert stored["Segment2_Extent"] == "0 -1 0 -1 0 -1"
    red, green, blue = (float(part) * 255 for part in stored["Segment1_Color"].split())
    assert (round(red), round(green), round(blue)) == structure_colour(1)
    assert stored["Segmentation_MasterRepresentation"] == "Binary labelmap"
    segments = read_slicer(written).segments
    assert [(one.name, one.value, one.code) for one in segments] == [
        ("größe; \\n links", 2, ("SCT", "1")),
        ("posterior", 300, ("SCT", "2")),
        ("absent", 7, None),
    ]


def test_what_was_written_is_read_back_by_every_reader(
    written: Path, placed_volume: MetaTensor, label: torch.Tensor
) -> None:
    assert torch.equal(read_label(written).as_tensor(), label)
    read = label_from_slicer(written, grid_of(placed_volume), LABELS)
    np.testing.assert_array_equal(read, label.numpy()[0])
    theirs = sitk.GetArrayFromImage(sitk.ReadImage(str(written))).transpose(2, 1, 0)
    np.testing.assert_array_equal(theirs, label.numpy()[0])


@pytest.mark.parametrize("codes", ["RAS", "LPS", "ASL", "IPR"])
def test_axes_in_another_order_are_turned_onto_those_of_the_image(
    tmp_path: Path, placed_volume: MetaTensor, label: torch.Tensor, codes: str
) -> None:
    affine = np.asarray(placed_volume.affine)
    one = stored_along(nib.Nifti1Image(label.numpy()[0].astype(np.int16), affine), codes)
    values = torch.from_numpy(np.asarray(one.dataobj).astype(np.int32)[None])
    like = MetaTensor(values, affine=torch.from_numpy(one.affine))
    path = write_label(tmp_path / "turned.seg.nrrd", values, like=like, labels=LABELS)
    read = label_from_slicer(path, grid_of(placed_volume), LABELS)
    np.testing.assert_array_equal(read, label.numpy()[0])
    aside = placed_volume.affine.clone()
    aside[:3, 3] += aside[:3, 1] / 2
    moved = MetaTensor(placed_volume.as_tensor(), affine=aside)
    with pytest.raises(ImageError, match="source volume"):
        label_from_slicer(path, grid_of(moved), LABELS)


def test_it_is_known_as_a_result_and_paired_by_the_name_of_its_image(written: Path) -> None:
    assert why_result(written) == "a segmentation of 3D Slicer"
    assert label_files(written.parent) == {"scan": written}


def slicer_file(
    path: Path, layers: np.ndarray, segments: list[str], *, origin: str = "(0,0,0)"
) -> Path:
    """A file as 3D Slicer writes it: several layers behind a list axis, cropped."""
    shape = " ".join(map(str, layers.shape))
    directions = "(-1,0,0) (0,-1,0) (0,0,1)"
    lines = [
        "NRRD0004",
        "# Complete NRRD file format specification at:",
        "type: unsigned char",
        f"dimension: {layers.ndim}",
        "space: left-posterior-superior",
        f"sizes: {shape}",
        f"space directions: {'none ' * (layers.ndim - 3)}{directions}",
        f"kinds: {'list ' * (layers.ndim - 3)}domain domain domain",
        "encoding: gzip",
        f"space origin: {origin}",
        *segments,
        "Segmentation_ContainedRepresentationNames:=Binary labelmap|Closed surface|",
    ]
    body = gzip.compress(layers.astype(np.uint8).tobytes(order="F"))
    path.write_bytes("\n".join(lines).encode() + b"\n\n" + body)
    return path


def segment(number: int, name: str, value: int, layer: int, tags: str = "") -> list[str]:
    """Key/value pairs of a segment."""
    fields = {"ID": f"S_{number}", "Name": name, "LabelValue": value, "Layer": layer, "Tags": tags}
    return [f"Segment{number}_{key}:={text}" for key, text in fields.items()]


@pytest.fixture
def image() -> MetaTensor:
    """An image of 6 x 5 x 4 voxels of 1 mm."""
    return MetaTensor(torch.zeros(1, 6, 5, 4), affine=torch.eye(4, dtype=torch.float64))


def test_a_cropped_file_of_two_layers_is_put_back_onto_the_grid(
    tmp_path: Path, image: MetaTensor
) -> None:
    layers = np.zeros((2, 2, 2, 1))
    layers[0, 0, 0, 0] = layers[1, 1, 1, 0] = 1
    pairs = segment(0, "Posterior", 1, 0) + segment(1, "whatever", 1, 1, TAG.format("SCT^1^x"))
    path = slicer_file(tmp_path / "a.seg.nrrd", layers, pairs, origin="(-3,-2,1)")
    found = label_from_slicer(path, grid_of(image), LABELS)
    expected = np.zeros((6, 5, 4), int)
    expected[3, 2, 1], expected[4, 3, 1] = 300, 2
    np.testing.assert_array_equal(found, expected)


TAG = "Segmentation.Status:inprogress|TerminologyEntry:x~SCT^1^y~{}~^^~a~^^~^^|"


@pytest.mark.parametrize(
    ("pairs", "origin", "reason", "words"),
    [
        (segment(0, "tumour", 1, 0), "(0,0,0)", "unknown_segment", "tumour"),
        (segment(0, "posterior", 1, 0, TAG.format("SCT^1^x")), "(0,0,0)", "unknown_segment",
         "contradict"),
        (segment(0, "posterior", 1, 0), "(0,0.4,0)", "other_grid", "source volume"),
        (segment(0, "posterior", 1, 0), "(1,0,0)", "other_grid", "posterior"),
        (segment(0, "posterior", 1, 0), "(-5,0,0)", "other_grid", "outside the image"),
        (segment(0, "posterior", 1, 0) + segment(1, "absent", 1, 1), "(0,0,0)",
         "overlap", "absent"),
        (segment(0, "posterior", 1, 0) + segment(1, "Posterior", 2, 0), "(0,0,0)",
         "repeated_segment", "merge"),
        (segment(0, "posterior", 1, 3), "(0,0,0)", "corrupt", "layer 3 of 2"),
        (["Segment0_Name:=a", "Segment0_LabelValue:=x"], "(0,0,0)", "corrupt", "whole number"),
        ([], "(0,0,0)", "not_slicer", "no segment"),
    ],
)  # fmt: skip
def test_each_file_that_does_not_fit_is_refused_by_name(
    tmp_path: Path, image: MetaTensor, pairs: list[str], origin: str, reason: str, words: str
) -> None:
    path = slicer_file(tmp_path / "a.seg.nrrd", np.ones((2, 2, 2, 2)), pairs, origin=origin)
    with pytest.raises(ImageError, match=words) as caught:
        label_from_slicer(path, grid_of(image), LABELS)
    assert caught.value.reason == reason


def test_a_damaged_or_other_file_is_refused(tmp_path: Path, written: Path) -> None:
    cut = tmp_path / "cut.seg.nrrd"
    cut.write_bytes(written.read_bytes()[:-20])
    with pytest.raises(ImageError):
        read_slicer(cut)
    cut.write_bytes(b"PK\x03\x04")
    with pytest.raises(ImageError, match="NRRD"):
        read_slicer(cut)


def test_plane_has_no_segmentation_of_3d_slicer(tmp_path: Path) -> None:
    flat = MetaTensor(torch.zeros(1, 6, 5), affine=torch.eye(4, dtype=torch.float64))
    with pytest.raises(ImageError, match="choose nifti"):
        require_writable("seg-nrrd", flat)
    with pytest.raises(UsageError):
        write_label(tmp_path / "a.seg.nrrd", torch.zeros(6, 5), like=flat)


def test_result_is_written_by_the_writer_of_all_formats(
    tmp_path: Path, placed_volume: MetaTensor, label: torch.Tensor
) -> None:
    path = tmp_path / "b.seg.nrrd"
    found = Segmentation(label=MetaTensor(label), probs=None, seconds=0.0)
    write_result(path, found, "seg-nrrd", like=placed_volume, labels=LABELS)
    assert torch.equal(read_image(path).as_tensor().int(), label)


@pytest.mark.parametrize("text", ["plain", "a\\b", "two\nlines", "\\n", "é"])
def test_escaped_text_comes_back(text: str) -> None:
    assert unescaped(escaped(text)) == text
    assert "\n" not in escaped(text)
