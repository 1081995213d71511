"""Real pairs with values on which scipy, MONAI and SimpleITK agree.

Of the listed columns ours are `hd95_mm_monai` and `assd_mm_monai`: there a mask's voxel on the
volume border is surface, because outside the volume is background. The columns that end in
`_edges_border1` erode with `border_value=1`, which takes the outside for foreground and so leaves
the cut face of a structure without a surface; the spleen, cut by the first slice, shows it.
"""

from __future__ import annotations

import json

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from segmed.metrics import evaluate_case
from segmed.structures import LabelClass

PLACES = 1e-4


@pytest.fixture(scope="module")
def expected(shared_data):
    return json.loads((shared_data("metric_pairs") / "expected.json").read_text(encoding="utf-8"))


def test_spleen_pair_has_the_known_values(shared_data, expected):
    folder, wanted = shared_data("metric_pairs"), expected["msd_spleen"]
    reference = nib.load(folder / "spleen1_label_gt.nii.gz")
    prediction = nib.load(folder / "spleen1_label_auto.nii.gz")
    (got,) = evaluate_case(
        np.asarray(prediction.dataobj),
        np.asarray(reference.dataobj),
        labels=[LabelClass(name="spleen", value=1)],
        spacing_mm=wanted["spacing_xyz"],
        case_id="spleen",
    )
    assert (got.voxels_reference, got.voxels_prediction, got.voxels_common) == (
        wanted["reference_voxels"],
        wanted["result_voxels"],
        wanted["tp"],
    )
    for name in ("dice", "iou", "precision", "recall", "hd_mm"):
        assert getattr(got, name) == pytest.approx(wanted[name], abs=PLACES), name
    assert got.hd95_mm == pytest.approx(wanted["hd95_mm_monai"], abs=PLACES)
    assert got.assd_mm == pytest.approx(wanted["assd_mm_monai"], abs=PLACES)
    assert abs(got.hd95_mm - wanted["hd95_mm_edges_border1"]) > 1


def test_chase_graders_have_the_known_values(shared_data, expected):
    folder = shared_data("chase_db1") / "images_and_labels"
    wanted = expected["chase_01L_graders"]
    first, second = (
        np.asarray(Image.open(folder / f"Image_01L_{grader}.png")) > 0
        for grader in ("1stHO", "2ndHO")
    )
    (got,) = evaluate_case(
        second,
        first,
        labels=[LabelClass(name="vessel", value=1)],
        spacing_mm=(1.0, 1.0),
        case_id="01L",
    )
    for name in ("dice", "iou", "precision", "recall"):
        assert getattr(got, name) == pytest.approx(wanted[name], abs=PLACES), name
    assert got.hd_mm == pytest.approx(wanted["hd_px"], abs=PLACES)
    assert got.hd95_mm == pytest.approx(wanted["hd95_px_monai"], abs=PLACES)
    assert got.assd_mm == pytest.approx(wanted["assd_px_monai"], abs=PLACES)


def test_chase_graders_agree_as_published_over_the_whole_set(shared_data):
    folder = shared_data("chase_db1") / "images_and_labels"
    dice = []
    for path in sorted(folder.glob("*_1stHO.png"))[::7]:
        first, second = (
            np.asarray(Image.open(folder / path.name.replace("1stHO", grader))) > 0
            for grader in ("1stHO", "2ndHO")
        )
        (got,) = evaluate_case(
            second,
            first,
            labels=[LabelClass(name="vessel", value=1)],
            spacing_mm=(1.0, 1.0),
            case_id=path.stem,
        )
        dice.append(got.dice)
    assert 0.739 <= min(dice) <= max(dice) <= 0.8275
