"""Prepared cases are computed once, found by content, and never half there."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from inverse_oracle import inverse_probs
from monai.data import CacheDataset, load_decathlon_datalist

from segmed.errors import ManifestError
from segmed.manifest import Manifest, read_manifest
from segmed.plan.schema import Intensity, Plan
from segmed.preprocessing import (
    PreparedCache,
    cache_key,
    cached_case,
    cached_measures,
    prepared_case,
)
from segmed.preprocessing.entry import PreparedEntry
from segmed.transforms import ReadCase, preparation


@pytest.fixture
def manifest(sample_manifest_path: Path) -> Manifest:
    return read_manifest(sample_manifest_path)


@pytest.fixture
def plan(make_plan_for: Callable[..., Plan]) -> Plan:
    return make_plan_for(scheme=Intensity(scheme="zscore"), orientation="LPS")


def packs(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.glob("*.pack"))}


def test_the_second_call_finds_what_the_first_computed(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    case = manifest.training[0]
    image, label, prepared = cached_case(manifest, case, plan, tmp_path)
    before = packs(tmp_path)
    again, label_again, prepared_again = cached_case(manifest, case, plan, tmp_path)
    assert packs(tmp_path) == before
    assert len(before) == 1
    fresh, fresh_label = prepared_case(manifest, case, plan)
    assert torch.equal(image, again)
    assert torch.equal(image, fresh.tensor)
    assert label is not None
    assert label_again is not None
    assert fresh_label is not None
    assert torch.equal(label, fresh_label)
    assert torch.equal(label, label_again)
    assert (prepared.grid.affine_ras == prepared_again.grid.affine_ras).all()
    assert torch.equal(inverse_probs(image, prepared_again), inverse_probs(fresh.tensor, fresh))


def test_the_key_follows_content_and_preprocessing_alone(
    manifest: Manifest, plan: Plan, make_plan_for: Callable[..., Plan], tmp_path: Path
) -> None:
    case = manifest.training[0]
    key = cache_key(manifest, case, plan)
    other_recipe = plan.recipe.model_copy(update={"batch_size": 7})
    assert cache_key(manifest, case, plan.model_copy(update={"recipe": other_recipe})) == key
    assert cache_key(manifest, case.model_copy(update={"fold": 3, "id": "x"}), plan) == key
    assert cache_key(manifest, manifest.training[1], plan) != key
    assert cache_key(manifest, case, make_plan_for()) != key
    assert cache_key(manifest, case, make_plan_for(values=(2, 1))) != cache_key(
        manifest, case, make_plan_for(values=(1, 2))
    )
    for name in ("moved.nii.gz", "label.nii.gz"):
        origin = case.image[0] if name.startswith("moved") else str(case.label)
        shutil.copy(manifest.root / origin, tmp_path / name)
    moved = case.model_copy(
        update={"image": ("moved.nii.gz",), "label": "label.nii.gz", "sha256": {}}
    )
    assert cache_key(manifest.model_copy(update={"root": tmp_path}), moved, plan) == key


def test_a_case_without_label_has_none(manifest: Manifest, plan: Plan, tmp_path: Path) -> None:
    case = manifest.test[0].model_copy(update={"label": None})
    assert cached_case(manifest, case, plan, tmp_path)[1] is None
    assert cached_case(manifest, case, plan, tmp_path)[1] is None


def test_measures_of_the_reference_are_kept_with_the_entry(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    case = manifest.training[0]
    first = cached_measures(manifest, case, plan, tmp_path)
    before = packs(tmp_path)
    assert first is not None
    assert first == cached_measures(manifest, case, plan, tmp_path)
    assert packs(tmp_path) == before
    assert set(first["volumes_ml"]) == {label.name for label in plan.labels}
    without = manifest.test[0].model_copy(update={"label": None})
    assert cached_measures(manifest, without, plan, tmp_path) is None


def test_writing_to_a_tensor_changes_no_file(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    image, _, _ = cached_case(manifest, manifest.training[0], plan, tmp_path)
    first = image.clone()
    image.zero_()
    assert torch.equal(cached_case(manifest, manifest.training[0], plan, tmp_path)[0], first)


def test_a_pack_that_was_cut_short_is_made_anew(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    case = manifest.training[0]
    image, label, _ = cached_case(manifest, case, plan, tmp_path)
    (whole,) = tmp_path.glob("*.pack")
    content = whole.read_bytes()
    for number, keep in enumerate((0, 100, len(content) // 2, len(content) - 1)):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / whole.name).write_bytes(content[:keep])
        again, label_again, _ = cached_case(manifest, case, plan, folder)
        assert torch.equal(image, again)
        assert label is not None
        assert label_again is not None
        assert torch.equal(label, label_again)
        assert whole.name not in packs(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.1, 0.5, 0.9, 0.97])
def test_a_changed_byte_is_never_read_as_a_voxel(
    manifest: Manifest, plan: Plan, tmp_path: Path, share: float
) -> None:
    case = manifest.training[0]
    image, label, _ = cached_case(manifest, case, plan, tmp_path / "good")
    (good,) = (tmp_path / "good").glob("*.pack")
    content = bytearray(good.read_bytes())
    content[int(share * len(content))] ^= 0x10
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / good.name).write_bytes(content)
    again, label_again, _ = cached_case(manifest, case, plan, tmp_path / "bad")
    assert torch.equal(image, again)
    assert label is not None
    assert label_again is not None
    assert torch.equal(label, label_again)


def test_a_cache_that_is_removed_meanwhile_is_filled_anew(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    cache = PreparedCache(manifest, plan, tmp_path / "cache")
    prepared = cache.case(manifest.training[0])
    before = prepared.read(PreparedEntry.image)
    shutil.rmtree(tmp_path / "cache")
    assert torch.equal(prepared.read(PreparedEntry.image), before)
    assert len(packs(tmp_path / "cache")) == 1


def test_entries_of_an_earlier_form_are_not_read(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    case = manifest.training[0]
    key = cache_key(manifest, case, plan)
    (tmp_path / key).mkdir()
    (tmp_path / key / "placement.json").write_text("{}", encoding="utf-8")
    (tmp_path / key / "image.npy").write_bytes(b"of form 3")
    image, _, _ = cached_case(manifest, case, plan, tmp_path)
    assert torch.equal(image, prepared_case(manifest, case, plan)[0].tensor)


def test_a_file_that_is_not_the_listed_one_is_refused(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    case = manifest.training[0]
    for name in case.sha256:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(manifest.root / name, tmp_path / name)
    copy = manifest.model_copy(update={"root": tmp_path})
    cached_case(copy, case, plan, tmp_path / "cache")
    shutil.copy(manifest.root / manifest.training[1].image[0], tmp_path / case.image[0])
    with pytest.raises(ManifestError, match="does not have the content that the manifest states"):
        cached_case(copy, case, plan, tmp_path / "cache")
    (tmp_path / case.image[0]).unlink()
    with pytest.raises(ManifestError, match="does not exist"):
        cached_case(copy, case, plan, tmp_path / "cache")


def test_what_a_killed_writer_left_is_not_taken_for_a_pack(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / ".partial-0123456789ab-00000000000000000001-dead.pack").write_bytes(b"half")
    image, _, _ = cached_case(manifest, manifest.training[0], plan, tmp_path)
    assert image.shape[0] == 1


def test_many_at_once_do_not_collide(manifest: Manifest, plan: Plan, tmp_path: Path) -> None:
    results: list[torch.Tensor] = []

    def fetch() -> None:
        results.append(cached_case(manifest, manifest.training[0], plan, tmp_path)[0])

    threads = [threading.Thread(target=fetch) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 6
    assert all(torch.equal(one, results[0]) for one in results)
    assert 1 <= len(packs(tmp_path)) <= 6  # equal packs: whoever reads takes the latest


def test_the_monai_chain_gives_the_same(
    manifest: Manifest, plan: Plan, sample_manifest_path: Path
) -> None:
    rows = load_decathlon_datalist(str(sample_manifest_path), True, "training")[:2]
    dataset = CacheDataset(rows, preparation(plan, ReadCase()), progress=False)
    fresh, label = prepared_case(manifest, manifest.training[1], plan)
    assert label is not None
    assert torch.equal(dataset[1]["image"], fresh.tensor)
    assert torch.equal(dataset[1]["label"][0], label)
    assert dataset[1]["fold"] == manifest.training[1].fold
