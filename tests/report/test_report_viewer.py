"""Volumes for the viewer: right way round, small, and the vendored library as it came."""

from __future__ import annotations

import base64
import dataclasses
import gzip
import hashlib

import nibabel as nib
import numpy as np
import pytest
from report_sample import SPACING_MM, block

from segmed.io.colours import structure_colour
from segmed.pictures.legend import Legend
from segmed.report import OverlayItem
from segmed.report import viewer as viewer_module
from segmed.report.viewer import NIIVUE, viewer_case


@pytest.fixture
def item(image: np.ndarray) -> OverlayItem:
    return OverlayItem(image, block(), block(1), SPACING_MM, "case", orientation="LPS")


def decoded(text: str) -> nib.Nifti1Image:
    return nib.Nifti1Image.from_bytes(gzip.decompress(base64.b64decode(text)))


def test_volumes_keep_labels_spacing_and_sides(item: OverlayItem) -> None:
    case = viewer_case(item)
    assert case is not None
    prediction, image = decoded(case.prediction), decoded(case.image)
    assert nib.aff2axcodes(prediction.affine) == ("L", "P", "S")
    assert prediction.header.get_zooms() == SPACING_MM
    assert image.shape == prediction.shape
    assert np.bincount(np.asarray(prediction.dataobj).ravel())[1:].tolist() == [80, 80]


def test_case_without_reference_has_an_empty_one(item: OverlayItem) -> None:
    case = viewer_case(dataclasses.replace(item, reference=None))
    assert case is not None
    assert case.reference == ""


def test_flat_image_is_not_offered_in_the_viewer() -> None:
    flat = np.zeros((8, 8), np.uint8)
    assert viewer_case(OverlayItem(flat, flat, flat, (1.0, 1.0), "2D")) is None


def test_volume_over_the_limit_is_not_offered(
    item: OverlayItem, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer_module, "MAX_BYTES", 100)
    assert viewer_case(item) is None


def test_vendored_viewer_is_the_file_its_notice_names() -> None:
    digest = hashlib.sha256(gzip.decompress(NIIVUE.read_bytes())).hexdigest()
    assert digest in (NIIVUE.parent / "NOTICE.niivue.txt").read_text(encoding="utf-8")


def test_label_values_beyond_8_bits_keep_apart_and_have_the_colours_of_the_pictures(
    item: OverlayItem,
) -> None:
    prediction = np.asarray(item.prediction).astype(np.int32) * 300
    reference = np.where(np.asarray(item.reference) == 2, 300, 0)
    legend = Legend({600: "posterior", 300: "anterior"})
    case = viewer_case(
        dataclasses.replace(item, prediction=prediction, reference=reference, legend=legend)
    )
    assert case is not None
    shown = np.asarray(decoded(case.prediction).dataobj)
    truth = np.asarray(decoded(case.reference).dataobj)
    assert (np.bincount(shown.ravel())[1:] == [80, 80]).all()
    assert set(np.unique(truth)) == {0, 2}
    assert case.colours == (structure_colour(0), structure_colour(1))
    assert case.colours == (legend.colour(600), legend.colour(300))


def test_unlisted_label_values_come_after_the_structures(item: OverlayItem) -> None:
    prediction = np.asarray(item.prediction) * 3
    case = viewer_case(
        dataclasses.replace(item, prediction=prediction, legend=Legend({2: "posterior"}))
    )
    assert case is not None
    assert case.colours == tuple(structure_colour(place) for place in (0, 0, 2, 5))
    assert set(np.unique(np.asarray(decoded(case.prediction).dataobj))) == {0, 3, 4}
