"""Prepared cases are computed once, found by content, and never half there."""

from __future__ import annotations

import resource
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from inverse_oracle import inverse_probs
from monai.data import CacheDataset, load_decathlon_datalist

from segmed.errors import ManifestError
from segmed.manifest import Manifest, read_manifest
from segmed.plan.schema import Intensity, Plan
from segmed.preprocessing import (
    cache_key,
    cached_case,
    cached_measures,
    preparation_chain,
    prepared_case,
)
from segmed.preprocessing.cache import _mapped


@pytest.fixture
def manifest(sample_manifest_path: Path) -> Manifest:
    return read_manifest(sample_manifest_path)


@pytest.fixture
def plan(make_plan_for: Callable[..., Plan]) -> Plan:
    return make_plan_for(scheme=Intensity(scheme="zscore"), orientation="LPS")


def entries(folder: Path) -> dict[str, int]:
    return {path.name: path.stat().st_mtime_ns for path in sorted(folder.iterdir())}


def test_the_second_call_finds_what_the_first_computed(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    case = manifest.training[0]
    image, label, prepared = cached_case(manifest, case, plan, tmp_path)
    before = entries(tmp_path)
    again, label_again, prepared_again = cached_case(manifest, case, plan, tmp_path)
    assert entries(tmp_path) == before
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
    before = entries(tmp_path)
    assert first is not None
    assert first == cached_measures(manifest, case, plan, tmp_path)
    assert entries(tmp_path) == before
    assert set(first["volumes_ml"]) == {label.name for label in plan.labels}
    without = manifest.test[0].model_copy(update={"label": None})
    assert cached_measures(manifest, without, plan, tmp_path) is None


def test_writing_to_a_mapped_tensor_changes_no_file(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    image, _, _ = cached_case(manifest, manifest.training[0], plan, tmp_path)
    first = image.clone()
    image.zero_()
    assert torch.equal(cached_case(manifest, manifest.training[0], plan, tmp_path)[0], first)


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts handles as Linux shows them")
def test_a_mapped_case_keeps_no_file_open(manifest: Manifest, plan: Plan, tmp_path: Path) -> None:
    cases = [cached_case(manifest, manifest.training[0], plan, tmp_path)]
    before = open_files()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 50, hard))
    try:
        for _ in range(600):
            cases.append(cached_case(manifest, manifest.training[0], plan, tmp_path))
        assert open_files() <= before + 2
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert torch.equal(cases[0][0], cases[-1][0])


@pytest.mark.parametrize("name", ["image.npy", "label.npy", "placement.json"])
@pytest.mark.parametrize("keep", [0, 100, -1])
def test_a_damaged_entry_is_made_anew(
    manifest: Manifest, plan: Plan, tmp_path: Path, name: str, keep: int
) -> None:
    case = manifest.training[0]
    image, label, _ = cached_case(manifest, case, plan, tmp_path)
    image, label = image.clone(), None if label is None else label.clone()
    (path,) = tmp_path.glob(f"*/{name}")
    content = path.read_bytes()
    path.unlink()  # the mapping of the first call must not shrink
    path.write_bytes(content[:keep])
    again, label_again, _ = cached_case(manifest, case, plan, tmp_path)
    assert torch.equal(image, again)
    assert label is not None
    assert label_again is not None
    assert torch.equal(label, label_again)


@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_of_either_order_are_mapped_as_numpy_reads_them(tmp_path: Path, order: str) -> None:
    array = np.asarray(np.arange(24, dtype=np.float32).reshape(2, 3, 4), order=order)
    np.save(tmp_path / "a.npy", array)
    assert np.array_equal(_mapped(tmp_path / "a.npy").numpy(), array)


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


def test_an_entry_that_was_cut_off_is_not_taken_for_whole(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    case = manifest.training[0]
    key = cache_key(manifest, case, plan)
    (tmp_path / f".{key}.1.dead.part").mkdir()
    (tmp_path / f".{key}.1.dead.part" / "image.npy").write_bytes(b"half")
    image, _, _ = cached_case(manifest, case, plan, tmp_path)
    assert image.shape[0] == 1
    assert (tmp_path / key / "placement.json").is_file()


def test_many_at_once_leave_one_entry(manifest: Manifest, plan: Plan, tmp_path: Path) -> None:
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
    assert list(entries(tmp_path)) == [cache_key(manifest, manifest.training[0], plan)]


def test_the_monai_chain_gives_the_same(
    manifest: Manifest, plan: Plan, sample_manifest_path: Path
) -> None:
    rows = load_decathlon_datalist(str(sample_manifest_path), True, "training")[:2]
    dataset = CacheDataset(rows, preparation_chain(plan), progress=False)
    fresh, label = prepared_case(manifest, manifest.training[1], plan)
    assert label is not None
    assert torch.equal(dataset[1]["image"], fresh.tensor)
    assert torch.equal(dataset[1]["label"][0], label)
    assert dataset[1]["fold"] == manifest.training[1].fold
