"""A manifest whose labels or channels are another model's is refused, never scored or trained."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmed.errors import UsageError
from segmed.manifest.schema import Case, Manifest
from segmed.plan.agreement import (
    channel_order,
    ordered_images,
    require_known_labels,
    require_same_channels,
    require_same_labels,
)
from segmed.structures import Channel, LabelClass


def image_set(
    labels: dict[str, int], channels: tuple[str, ...], files: tuple[str, ...] = ("a.nii.gz",)
) -> Manifest:
    return Manifest(
        name="set",
        labels=tuple(LabelClass(name=name, value=value) for name, value in labels.items()),
        channels=tuple(Channel(name=name, modality="MR") for name in channels),
        training=(Case(id="a", group="a", image=files, label="l.nii.gz", fold=0),),
        root=Path("/data"),
    )


MODEL = image_set({"liver": 1, "tumour": 2}, ("T1", "T2"), ("t1.nii", "t2.nii"))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({"liver": 2, "tumour": 1}, r"'liver' \(value 2\), 'tumour' \(value 1\)"),
        ({"liver": 1, "spleen": 2}, r"'spleen' \(value 2\)"),
        ({"liver": 1, "tumour": 2, "cyst": 3}, r"'cyst' \(value 3\)"),
    ],
)
def test_labels_of_another_meaning_are_not_scored(labels: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        require_known_labels(MODEL, image_set(labels, ("T1", "T2")))


def test_a_set_with_fewer_structures_is_scored() -> None:
    require_known_labels(MODEL, image_set({"tumour": 2}, ("T1", "T2")))


@pytest.mark.parametrize("labels", [{"tumour": 1, "liver": 2}, {"liver": 1}, {"tumour": 2}])
def test_a_plan_trains_on_its_own_labels_alone(labels: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="make the plan from this manifest"):
        require_same_labels(MODEL, image_set(labels, ("T1", "T2")))


def test_channels_are_brought_into_the_order_of_the_model() -> None:
    turned = image_set({"liver": 1}, ("T2", "T1"), ("t2.nii", "t1.nii"))
    order = channel_order(("T1", "T2"), turned)
    assert [path.name for path in ordered_images(turned, turned.training[0], order)] == [
        "t1.nii",
        "t2.nii",
    ]
    with pytest.raises(UsageError, match="make the plan from this manifest"):
        require_same_channels(MODEL, turned)


def test_channels_in_one_file_cannot_be_turned() -> None:
    turned = image_set({"liver": 1}, ("T2", "T1"), ("both.nii",))
    with pytest.raises(UsageError, match="one file with the channels T2, T1"):
        ordered_images(turned, turned.training[0], channel_order(("T1", "T2"), turned))


@pytest.mark.parametrize("names", [("T1", "FLAIR"), ("T1",), ("T1", "T2", "T2")])
def test_other_channels_are_refused(names: tuple[str, ...]) -> None:
    with pytest.raises(UsageError, match="build it with --channels"):
        channel_order(names, MODEL)


def test_one_channel_is_taken_whatever_its_name() -> None:
    single = image_set({"liver": 1}, ("MR",))
    assert channel_order(("T1",), single) == (0,)
    require_same_channels(image_set({"liver": 1}, ("T1",)), single)
