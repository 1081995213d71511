"""Single-frame images as planes: values by the stated rules, spacing or its absence said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from dicom_planes import region, write_plane
from pydicom.dataset import Dataset
from pydicom.pixels import convert_color_space
from pydicom.uid import RLELossless

from segmed.io.dicom.plane import load_plane, planes_of, spacing_note
from segmed.io.dicom.read import load_series
from segmed.io.dicom.scan import scan
from segmed.io.limits import DEFAULT_LIMITS
from segmed.io.read import read_image

CT_IMAGE = "1.2.840.10008.5.1.4.1.1.2"
GREY = (np.arange(7 * 5).reshape(7, 5) * 100).astype(np.uint16)
COLOUR = np.random.default_rng(0).integers(0, 255, (7, 6, 3)).astype(np.uint8)


@pytest.mark.parametrize("modality", ["CR", "DX", "OP", "US", "OT"])
def test_grey_images_are_planes_with_rows_first(tmp_path: Path, modality: str) -> None:
    write_plane(tmp_path / "a.dcm", GREY, modality=modality)
    (plane,) = planes_of(scan(tmp_path))
    assert plane.usable
    image = read_image(plane)
    assert image.shape == (1, 7, 5)
    np.testing.assert_array_equal(image.numpy()[0], GREY)
    np.testing.assert_array_equal(np.asarray(image.affine), np.eye(4))
    assert image.meta["source"].modality == modality
    assert not image.meta["source"].states_spacing


def test_volumes_stay_what_they_are_and_planes_are_no_volumes(tmp_path: Path) -> None:
    write_plane(tmp_path / "a.dcm", GREY)
    (audit,) = scan(tmp_path)
    assert (audit.usable, audit.reason) == (False, "projection")
    assert planes_of([plane := planes_of([audit])[0]]) == [plane]


def test_each_image_of_a_series_is_one_by_itself(tmp_path: Path) -> None:
    write_plane(tmp_path / "pa.dcm", GREY, number=1)
    write_plane(tmp_path / "lat.dcm", GREY[:6], number=2)
    found = planes_of(scan(tmp_path))
    assert sorted(audit.shape for audit in found) == [(6, 5), (7, 5)]
    assert all(audit.usable for audit in found)


def test_monochrome1_is_inverted_within_its_stored_bits(tmp_path: Path) -> None:
    odd = {"PhotometricInterpretation": "MONOCHROME1", "BitsStored": 12, "HighBit": 11}
    write_plane(tmp_path / "a.dcm", GREY, elements=odd)
    (plane,) = planes_of(scan(tmp_path))
    np.testing.assert_array_equal(load_plane(plane, DEFAULT_LIMITS).array[0], 4095 - GREY)
    assert any("MONOCHROME1: inverted" in note for note in plane.notes)


def test_slope_and_intercept_are_applied(tmp_path: Path) -> None:
    scaled = {"RescaleSlope": "2", "RescaleIntercept": "-5", "RescaleType": "US"}
    write_plane(tmp_path / "a.dcm", GREY, elements=scaled)
    (plane,) = planes_of(scan(tmp_path))
    np.testing.assert_array_equal(load_series(plane, DEFAULT_LIMITS).array[0], GREY * 2.0 - 5)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_colour_gives_three_channels_of_rgb(tmp_path: Path, photometric: str) -> None:
    stored = COLOUR if photometric == "RGB" else convert_color_space(COLOUR, "RGB", photometric)
    elements = {"PhotometricInterpretation": photometric}
    write_plane(tmp_path / "a.dcm", stored, modality="OP", elements=elements)
    (plane,) = planes_of(scan(tmp_path))
    image = load_plane(plane, DEFAULT_LIMITS).array
    assert image.shape == (3, 7, 6)
    assert np.abs(np.moveaxis(image, 0, 2) - COLOUR).max() <= (0 if photometric == "RGB" else 2)


def test_palette_gives_its_colours(tmp_path: Path) -> None:
    palette = {}
    for name, shift in (("Red", 0), ("Green", 1), ("Blue", 2)):
        palette[f"{name}PaletteColorLookupTableDescriptor"] = [4, 0, 16]
        values = (np.arange(4, dtype=np.uint16) * 16 + shift) * 257
        palette[f"{name}PaletteColorLookupTableData"] = values.tobytes()
    indices = np.array([[0, 1, 2], [3, 3, 0]], dtype=np.uint8)
    write_plane(
        tmp_path / "a.dcm", indices, modality="US",
        elements={"PhotometricInterpretation": "PALETTE COLOR", **palette},
    )  # fmt: skip
    (plane,) = planes_of(scan(tmp_path))
    image = load_plane(plane, DEFAULT_LIMITS).array
    np.testing.assert_array_equal(image, [indices * 16 + shift for shift in range(3)])


def test_slices_without_geometry_stay_refused(tmp_path: Path) -> None:
    for number, rows in ((1, 7), (2, 6)):
        path = tmp_path / f"{number}.dcm"
        write_plane(path, GREY[:rows], number=number, elements={"Modality": "CT"})
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = CT_IMAGE
        dataset.save_as(path)
    audits = scan(tmp_path)
    assert planes_of(audits) == audits
    assert audits[0].reason == "mixed_size"


def test_compressed_planes_are_decoded_apart(tmp_path: Path) -> None:
    path = write_plane(tmp_path / "a.dcm", COLOUR, modality="OP")
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless)
    dataset.save_as(path)
    (plane,) = planes_of(scan(tmp_path))
    assert plane.is_encapsulated
    image = read_image(plane)
    np.testing.assert_array_equal(image.numpy(), np.moveaxis(COLOUR, 2, 0))
    assert image.meta["source"].format == "dicom-plane"


@pytest.mark.parametrize(
    ("elements", "reason"),
    [
        ({"NumberOfFrames": 2}, "multi_frame"),
        ({"PhotometricInterpretation": "ODD"}, "unknown_photometric"),
        ({"RescaleSlope": "0"}, "bad_scaling"),
    ],
)
def test_images_that_are_no_planes_are_refused_by_name(
    tmp_path: Path, elements: dict[str, Any], reason: str
) -> None:
    pixels = np.concatenate([GREY, GREY]) if "NumberOfFrames" in elements else GREY
    write_plane(tmp_path / "a.dcm", pixels, elements={**elements, "Rows": 7})
    (plane,) = planes_of(scan(tmp_path))
    assert (plane.usable, plane.reason) == (False, reason)


@pytest.mark.parametrize(
    ("elements", "said"),
    [
        ({}, "no pixel spacing stated: distances and areas are in pixels"),
        ({"PixelSpacing": ["0.2", "0.1"]}, "0.2 x 0.1 mm, as PixelSpacing states it"),
        (
            {"PixelSpacing": ["0.2", "0.2"], "PixelSpacingCalibrationType": "FIDUCIAL"},
            "0.2 x 0.2 mm, calibrated by FIDUCIAL",
        ),
        (
            {"PixelSpacing": ["0.2", "0.2"], "ImagerPixelSpacing": ["0.2", "0.2"]},
            "0.2 x 0.2 mm, at the detector: objects are shown magnified",
        ),
        ({"ImagerPixelSpacing": ["0.2", "0.2"]}, "magnified by a factor that is not stated"),
        (
            {
                "ImagerPixelSpacing": ["0.2", "0.2"],
                "EstimatedRadiographicMagnificationFactor": "1.25",
            },
            "0.16 x 0.16 mm in the object: 0.2 x 0.2 mm at the detector by a magnification of 1.25",
        ),
        ({"SequenceOfUltrasoundRegions": [region(0.03)]}, "0.3 x 0.3 mm, of its ultrasound"),
        ({"SequenceOfUltrasoundRegions": [region(0.03), region(0.01)]}, "no pixel spacing stated"),
        ({"NominalScannedPixelSpacing": ["0.1", "0.1"]}, "of the scanner, not of the patient"),
    ],
)
def test_spacing_is_said_with_its_origin(elements: dict[str, Any], said: str) -> None:
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    assert said in spacing_note(dataset)


def test_real_palettes_and_colours_are_planes_and_films_are_refused(tmp_path: Path) -> None:
    outcomes = {}
    for name in ("examples_palette.dcm", "SC_rgb_small_odd.dcm", "examples_ybr_color.dcm"):
        place = pydicom.data.get_testdata_file(name, download=False)
        if place is None:
            continue
        for plane in planes_of(scan(Path(str(place)))):
            shape = load_plane(plane, DEFAULT_LIMITS).array.shape if plane.usable else (0,)
            outcomes[name] = plane.reason or shape[0]
    expected = {"examples_palette.dcm": 3, "SC_rgb_small_odd.dcm": 3}
    assert outcomes.items() <= {**expected, "examples_ybr_color.dcm": "multi_frame"}.items()
    assert outcomes
