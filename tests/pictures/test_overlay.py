"""Overlays: colours, proportions, sides, and refusal of arrays that do not fit."""

from __future__ import annotations

import nibabel as nib
import numpy as np
import pytest
from PIL import Image
from report_sample import SPACING_MM, block

from segmed.errors import GeometryError
from segmed.io.colours import structure_colour
from segmed.pictures.annotation import annotate
from segmed.pictures.legend import Legend
from segmed.pictures.overlay import _focus, overlay_picture, pale

PREDICTION = structure_colour(0)
REFERENCE = pale(PREDICTION)


@pytest.fixture(scope="session")
def image() -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, block().shape).astype(np.float32)


def near(picture: Image.Image, colour: tuple[int, int, int]) -> np.ndarray:
    """Mask of the pixels of a colour, within the tolerance of antialiasing."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    found: np.ndarray = np.abs(pixels - np.array(colour)).max(axis=2) < 30
    return found


def test_both_outlines_are_drawn_in_their_colours(image: np.ndarray) -> None:
    picture = overlay_picture(image, block(), block(2), SPACING_MM, "case", orientation="RAS")
    assert near(picture, REFERENCE).sum() > 500
    assert near(picture, PREDICTION).sum() > 500


def test_case_without_reference_has_one_outline(image: np.ndarray) -> None:
    picture = overlay_picture(image, None, block(), SPACING_MM, "", orientation="RAS")
    assert near(picture, REFERENCE).sum() < 100  # letters are nearly as pale
    assert near(picture, PREDICTION).any()


def test_millimetres_and_not_voxels_set_the_proportions() -> None:
    flat = np.zeros((20, 40), np.uint8)
    square = overlay_picture(flat.astype(float), None, flat, (1.0, 1.0), "")
    stretched = overlay_picture(flat.astype(float), None, flat, (2.0, 1.0), "")
    assert square.width == pytest.approx(2 * square.height, abs=2)
    assert stretched.width == pytest.approx(stretched.height, abs=2)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "PIR", "SAL"])
def test_patient_right_is_on_the_left_however_the_volume_is_stored(orientation: str) -> None:
    ras = np.zeros((40, 40, 40), np.uint8)
    ras[30:35, 18:22, 18:22] = 1  # towards the patient's right
    turn = nib.orientations.ornt_transform(
        nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(orientation)
    )
    stored = nib.orientations.apply_orientation(ras, turn)
    whole = stored.copy()
    whole[0, 0, 0] = whole[-1, -1, -1] = 1  # keeps the picture from being cut
    picture = overlay_picture(
        np.zeros(stored.shape), stored, whole, (1.0, 1.0, 1.0), "", orientation=orientation
    )
    axial = near(picture, REFERENCE)[:, : picture.height]
    columns = np.flatnonzero(axial.any(axis=0))
    assert columns.mean() < picture.height / 2


def test_front_of_the_patient_is_up() -> None:
    ras = np.zeros((40, 40, 40), np.uint8)
    ras[18:22, 30:35, 18:22] = 1
    whole = ras.copy()
    whole[0, 0, 0] = whole[-1, -1, -1] = 1
    picture = overlay_picture(
        np.zeros(ras.shape), ras, whole, (1.0, 1.0, 1.0), "", orientation="RAS"
    )
    rows = np.flatnonzero(near(picture, REFERENCE)[:, : picture.height].any(axis=1))
    assert rows.mean() < picture.height / 2


def test_planes_pass_through_the_disputed_voxels() -> None:
    reference = np.zeros((30, 30, 30), np.uint8)
    reference[5:8, 5:8, 5:8] = 1
    prediction = reference.copy()
    prediction[20:26, 20:26, 24] = 1
    _, centre = _focus(reference, prediction, (1.0, 1.0, 1.0))
    assert centre[2] == 24


def test_large_volume_is_cut_to_its_labels() -> None:
    label = np.zeros((200, 200, 200), np.uint8)
    label[90:110, 90:110, 90:110] = 1
    box, _ = _focus(label, label, (1.0, 1.0, 1.0))
    assert [side.stop - side.start for side in box] == [44, 44, 44]


def test_image_without_any_label_is_shown_whole(image: np.ndarray) -> None:
    box, centre = _focus(None, np.zeros((10, 20, 30), int), (1.0, 1.0, 1.0))
    assert box == (slice(0, 10), slice(0, 20), slice(0, 30))
    assert centre == (5, 10, 15)


@pytest.mark.parametrize("colour", [(200, 60, 20), (20, 160, 90), (1, 0, 3)])
def test_colour_image_is_shown_in_its_own_colours(colour: tuple[int, int, int]) -> None:
    label = np.zeros((24, 32), np.uint8)
    rgb = np.broadcast_to(np.array(colour)[:, None, None], (3, 24, 32))
    picture = overlay_picture(rgb, label, label, (1.0, 1.0), "", legend=Legend(unit="px"))
    assert picture.getpixel((picture.width // 2, picture.height // 2)) == colour


def test_two_channels_of_a_plane_are_averaged_to_grey() -> None:
    label = np.zeros((24, 32), np.uint8)
    both = np.random.default_rng(0).normal(size=(2, 24, 32))
    picture = np.asarray(overlay_picture(both, None, label, (1.0, 1.0), "", legend=Legend()))
    middle = picture[100:200, 100:200].astype(int)
    assert np.ptp(middle, axis=2).max() == 0


def test_each_structure_has_its_own_colour_by_its_place_in_the_list() -> None:
    label = np.zeros((40, 40), np.uint8)
    label[5:15, 5:15] = 40
    label[25:35, 25:35] = 7
    legend = Legend({40: "left", 7: "right"})
    picture = overlay_picture(np.zeros((40, 40)), None, label, (1.0, 1.0), "", legend=legend)
    half = picture.height // 2
    first = near(picture.crop((0, 0, half, half)), structure_colour(0))
    second = near(picture.crop((half, half, 2 * half, 2 * half)), structure_colour(1))
    assert first.sum() > 200
    assert second.sum() > 200
    assert near(picture, structure_colour(6)).sum() == 0


def test_picture_in_pixels_has_no_scale_bar() -> None:
    flat = np.zeros((100, 100), np.uint8)
    in_mm = overlay_picture(np.zeros((100, 100)), None, flat, (1.0, 1.0), "")
    in_px = overlay_picture(
        np.zeros((100, 100)), None, flat, (1.0, 1.0), "", legend=Legend(unit="px")
    )
    assert np.asarray(in_mm).max() > 200
    assert np.asarray(in_px).max() == 0


@pytest.mark.parametrize("width", [8, 40, 75, 110, 160, 340, 700])
@pytest.mark.parametrize("height", [60, 150, 340])
@pytest.mark.parametrize("pixels_per_mm", [0.5, 1.7, 6.0, 40.0])
def test_letters_name_and_scale_bar_never_overlap(
    width: int, height: int, pixels_per_mm: float
) -> None:
    panel = Image.new("RGB", (width, height))
    boxes = annotate(panel, ("R", "L", "S", "I"), "across axis 2", pixels_per_mm=pixels_per_mm)
    for i, one in enumerate(boxes[4:], start=4):
        assert one[0] >= 0
        assert one[2] <= width
        for other in boxes[:i]:
            apart = one[2] <= other[0] or other[2] <= one[0]
            assert apart or one[3] <= other[1] or other[3] <= one[1]


def test_large_picture_has_letters_name_and_scale_bar() -> None:
    panel = Image.new("RGB", (340, 340))
    assert len(annotate(panel, ("R", "L", "S", "I"), "coronal", pixels_per_mm=3.0)) == 6


def test_constant_image_does_not_divide_by_zero() -> None:
    label = np.zeros((8, 8), np.uint8)
    assert overlay_picture(np.full((8, 8), 7.0), label, label, (1.0, 1.0), "flat")


def test_arrays_of_different_shapes_are_refused() -> None:
    with pytest.raises(GeometryError, match="one shape"):
        overlay_picture(np.zeros((4, 4, 4)), None, np.zeros((4, 4, 5), int), (1.0, 1.0, 1.0), "")


def test_spacing_of_another_length_is_refused() -> None:
    with pytest.raises(GeometryError, match="does not fit 3 axes"):
        overlay_picture(np.zeros((4, 4, 4)), None, np.zeros((4, 4, 4), int), (1.0, 1.0), "")


def test_image_and_outlines_are_turned_together() -> None:
    label = np.zeros((40, 40, 40), np.uint8)
    label[28:36, 4:12, 30:38] = 1
    ends = label.copy()
    ends[0, 0, 0] = ends[-1, -1, -1] = 1  # keeps the picture from being cut
    picture = overlay_picture(
        label * 100.0, label, ends, (1.0, 1.0, 1.0), "", orientation="PLI", panel_height=200
    )
    axial = picture.crop((0, 0, picture.height, picture.height))
    bright = np.argwhere(np.asarray(axial.convert("L")) > 250).mean(axis=0)
    outline = np.argwhere(near(axial, REFERENCE)).mean(axis=0)
    assert np.abs(bright - outline).max() < 10
