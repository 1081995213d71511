"""DICOM-SEG objects of several studies are one set of structures, whatever their numbers."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import torch

from segmed.io import read_image
from segmed.io.dicom.seg import write_dicom_seg
from segmed.manifest import (
    Manifest,
    build_manifest,
    change_values,
    check_manifest,
    read_manifest,
    read_reference,
    write_manifest,
)
from segmed.structures import LabelClass

SIZES = {"head": 24, "tail": 8, "body": 4}
"""Voxels of each structure in every study."""


def study(root: Path, source: Path, name: str, segments: Sequence[str]) -> None:
    """A real series with a DICOM-SEG by another program: segments numbered in the given order."""
    images = shutil.copytree(source, root / name / "images")
    image = read_image(images)
    label = np.zeros(tuple(image.shape[1:]), dtype=np.uint8)
    for number, segment in enumerate(segments, 1):
        flat = label[:, :, 2 + 2 * list(SIZES).index(segment.casefold())]
        flat[:4, : SIZES[segment.casefold()] // 4] = number
    labels = [LabelClass(name=segment, value=n) for n, segment in enumerate(segments, 1)]
    path = write_dicom_seg(
        root / name / "seg" / "label.dcm",
        torch.from_numpy(label),
        like=image,
        labels=labels,
        model_name="hand",
        model_version="1",
    )
    dataset = pydicom.dcmread(path)
    for item in dataset.SegmentSequence:
        del item.SegmentDescription
    dataset.save_as(path)


@pytest.fixture(scope="module")
def sources(shared_data: Callable[[str], Path]) -> list[Path]:
    return sorted(shared_data("hippocampus_dicom").glob("study*"))[:2]


def sizes(manifest: Manifest) -> list[dict[str, int]]:
    """Voxels of each structure in each case."""
    found = []
    for case in manifest.training:
        path = manifest.label_path(case)
        assert path is not None
        label = read_reference(manifest, path, like=read_image(manifest.image_paths(case)[0]))
        found.append({one.name: int((label == one.value).sum()) for one in manifest.labels})
    return found


def test_swapped_numbers_are_no_swapped_structures(tmp_path: Path, sources: list[Path]) -> None:
    study(tmp_path / "set", sources[0], "a", ["head", "tail"])
    study(tmp_path / "set", sources[1], "b", ["Tail", "Head"])
    manifest = build_manifest(tmp_path / "set")
    assert len(manifest.labels) == 2
    assert {frozenset(one.items()) for one in sizes(manifest)} == {
        frozenset({(name, SIZES[name.casefold()]) for name in (x.name for x in manifest.labels)})
    }
    assert not [fault for fault in check_manifest(manifest) if fault.severity == "error"]


def test_given_names_do_not_drop_the_check(tmp_path: Path, sources: list[Path]) -> None:
    study(tmp_path / "set", sources[0], "a", ["head", "tail"])
    study(tmp_path / "set", sources[1], "b", ["tail", "head"])
    plain = build_manifest(tmp_path / "set")
    given = [f"new {label.name}" for label in plain.labels]
    named = build_manifest(tmp_path / "set", label_names=given)
    assert [label.name for label in named.labels] == given
    back = read_manifest(write_manifest(named, tmp_path / "set" / "m.json"))
    for one in sizes(back):
        assert one == {"new head": SIZES["head"], "new tail": SIZES["tail"]}


def test_structures_of_some_studies_alone_get_values_of_their_own(
    tmp_path: Path, sources: list[Path]
) -> None:
    study(tmp_path / "set", sources[0], "a", ["head", "tail"])
    study(tmp_path / "set", sources[1], "b", ["body", "head"])
    manifest = build_manifest(tmp_path / "set")
    assert {label.name for label in manifest.labels} == set(SIZES)
    found = sizes(manifest)
    assert sorted(one["body"] for one in found) == [0, SIZES["body"]]
    assert [one["head"] for one in found] == [SIZES["head"]] * 2
    merged = change_values(manifest, merge={"body,tail": "rest"})
    assert sorted(one["rest"] for one in sizes(merged)) == [SIZES["body"], SIZES["tail"]]


def test_a_segment_that_came_later_is_refused_by_name(tmp_path: Path, sources: list[Path]) -> None:
    study(tmp_path / "set", sources[0], "a", ["head", "tail"])
    study(tmp_path / "set", sources[1], "b", ["tail", "head"])
    manifest = build_manifest(tmp_path / "set")
    path = manifest.label_path(manifest.training[0])
    assert path is not None
    dataset = pydicom.dcmread(path)
    dataset.SegmentSequence[0].SegmentLabel = "body"
    dataset.save_as(path)
    faults = {fault.code for fault in check_manifest(manifest)}
    assert "unknown_segment" in faults
