"""Facts of cases are measured once, and again only where content or labels change."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from pipelines.comparing.jobs import CACHE
from pipelines.comparing.settled_plan import settle_plan
from segmed.errors import ManifestError, UsageError
from segmed.io.packs import read_index
from segmed.manifest import Manifest, build_manifest, read_manifest, write_manifest
from segmed.manifest.case_reader import CaseReader
from segmed.plan import fingerprint, make_plan, plan_hash, read_plan
from segmed.plan.fingerprint import gather, survey
from segmed.plan.known_facts import KnownFacts
from segmed.preprocessing import PreparedCache, prepare_cases


@pytest.fixture
def manifest(tmp_path: Path, sample_manifest_path: Path) -> Manifest:
    """Some cases of the sample, in a folder that tests may change."""
    shutil.copytree(
        sample_manifest_path.parent / "hippocampus_sample", tmp_path / "hippocampus_sample"
    )
    found = read_manifest(sample_manifest_path)
    few = found.model_copy(update={"training": found.training[:6]})
    shutil.copyfile(sample_manifest_path, tmp_path / "all.json")
    here = read_manifest(tmp_path / "all.json").model_copy(update={"training": few.training})
    return read_manifest(write_manifest(here, tmp_path / "few.json"))


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the cases whose images are read for their facts."""
    ids: list[str] = []
    real = fingerprint._look_at

    def noted(reader: CaseReader, case: Any, samples: int) -> Any:
        ids.append(case.id)
        return real(reader, case, samples)

    monkeypatch.setattr(fingerprint, "_look_at", noted)
    return ids


def surveyed(manifest: Manifest, folder: Path) -> list[Any]:
    known = KnownFacts(folder)
    facts = survey(manifest, known=known)
    known.save()
    return facts


def test_facts_come_back_as_they_were_measured(
    manifest: Manifest, tmp_path: Path, read: list[str]
) -> None:
    first = surveyed(manifest, tmp_path / "cache")
    assert len(read) == 6
    read.clear()
    second = surveyed(manifest, tmp_path / "cache")
    assert read == []
    for one, other in zip(first, second, strict=True):
        for field in fields(one):
            if field.name in {"grid", "shapes"}:
                continue
            assert np.array_equal(getattr(one, field.name), getattr(other, field.name)), field.name
        assert one.foreground.dtype == other.foreground.dtype
        assert np.array_equal(one.grid.affine_ras, other.grid.affine_ras)
        assert one.grid.shape == other.grid.shape
        for name in ("extent_mm", "thickness_mm", "gap_mm", "together_mm"):
            sizes = (getattr(facts.shapes, name) for facts in (one, other))
            assert np.array_equal(*sizes, equal_nan=True)
    assert gather(first) == gather(second)


def relabelled(manifest: Manifest) -> Manifest:
    one = manifest.labels[0]
    return manifest.model_copy(update={"labels": (one,), "ignore_value": manifest.labels[1].value})


def test_other_labels_are_measured_again(
    manifest: Manifest, tmp_path: Path, read: list[str]
) -> None:
    surveyed(manifest, tmp_path / "cache")
    read.clear()
    fewer = manifest.model_copy(update={"labels": manifest.labels[:1]})
    for changed in (relabelled(manifest), fewer):
        facts = surveyed(changed, tmp_path / "cache")
        assert all(len(one.class_voxels) == 1 for one in facts)
    assert len(read) == 12


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_changed_file_is_measured_again_and_alone(
    manifest: Manifest, tmp_path: Path, read: list[str], kind: str
) -> None:
    surveyed(manifest, tmp_path / "cache")
    read.clear()
    case = manifest.training[2]
    path = manifest.image_paths(case)[0] if kind == "image" else manifest.label_path(case)
    stored = nib.load(path)
    voxels = np.asarray(stored.dataobj).copy()
    voxels[:5] = 0
    nib.save(nib.Nifti1Image(voxels, stored.affine), path)
    facts = surveyed(manifest, tmp_path / "cache")
    assert read == [case.id]
    assert gather(facts) == gather(survey(manifest))


def test_damaged_facts_are_measured_again(
    manifest: Manifest, tmp_path: Path, read: list[str]
) -> None:
    surveyed(manifest, tmp_path / "cache")
    (pack,) = (tmp_path / "cache").glob("*.pack")  # cases stand in it as their threads ended
    content = bytearray(pack.read_bytes())
    first = min(read_index(pack).values(), key=lambda record: record.start)
    content[first.length - 2] ^= 0x40  # in an intensity, which stays a number
    pack.write_bytes(bytes(content))
    read.clear()
    facts = surveyed(manifest, tmp_path / "cache")
    assert len(read) == 1
    assert gather(facts) == gather(survey(manifest))


def test_a_missing_file_is_named_as_without_known_facts(manifest: Manifest, tmp_path: Path) -> None:
    surveyed(manifest, tmp_path / "cache")
    case = manifest.training[1]
    manifest.image_paths(case)[0].unlink()
    with pytest.raises(ManifestError, match=case.id):
        surveyed(manifest, tmp_path / "cache")


def test_plans_of_both_dimensions_and_of_another_size_read_the_images_once(
    manifest: Manifest, tmp_path: Path, read: list[str]
) -> None:
    out = tmp_path / "out"
    for dims in ("2d", "3d"):
        settle_plan(tmp_path / "few.json", None, out, kind=dims)
    assert len(read) == 6
    place = settle_plan(tmp_path / "few.json", None, out)
    again = settle_plan(tmp_path / "few.json", None, out, size="full", is_fresh=True)
    assert len(read) == 6
    assert place == again
    whole = make_plan(manifest, size="full", memory_gb=None)
    assert read_plan(again).fingerprint == whole.fingerprint
    assert plan_hash(read_plan(out / "plan-3d.yaml")) != plan_hash(read_plan(out / "plan-2d.yaml"))


def test_facts_and_prepared_cases_share_a_folder(
    manifest: Manifest, tmp_path: Path, read: list[str]
) -> None:
    settle_plan(tmp_path / "few.json", None, tmp_path / "out")
    plan = read_plan(tmp_path / "out" / "plan.yaml")
    cache = PreparedCache(manifest, plan, tmp_path / "out" / CACHE)
    assert len(prepare_cases(cache, manifest.training)) == 6
    assert cache.missing(manifest.training) == []
    surveyed(manifest, tmp_path / "out" / CACHE)
    assert len(read) == 6


def test_nothing_is_written_where_no_plan_can_be_made(
    tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    rasters = build_manifest(shared_data("isbi2012"))
    path = write_manifest(
        rasters.model_copy(update={"training": rasters.training[:3]}), tmp_path / "em.json"
    )
    with pytest.raises(UsageError, match="two-dimensional"):
        settle_plan(path, None, tmp_path / "out", kind="3d")
    assert not (tmp_path / "out").exists()


def test_many_cases_contribute_fewer_intensities_each(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sum(one.foreground.shape[1] for one in survey(manifest))
    monkeypatch.setattr(fingerprint, "ALL_SAMPLES", 600)
    facts = survey(manifest)
    assert 0 < sum(one.foreground.shape[1] for one in facts) <= 2 * 600 < whole
    assert all(one.foreground.shape[1] for one in facts)
