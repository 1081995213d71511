"""The dataset through which preprocessing and training fill and read the cache."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from tiny_data import write_set

from segmed.errors import UsageError
from segmed.manifest import Manifest, read_manifest
from segmed.plan import Plan, read_plan
from segmed.preprocessing import PreparedCases, PreparedDataset
from segmed.preprocessing.cache import PreparedCache


@pytest.fixture
def manifest(tmp_path: Path) -> Manifest:
    return read_manifest(write_set(tmp_path / "set", training=3, test=1))


@pytest.fixture
def plan(manifest: Manifest) -> Plan:
    return read_plan(manifest.root / "plan.yaml")


def test_what_is_prepared_is_no_longer_missing_and_is_what_items_are(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    dataset = PreparedDataset(manifest, plan, tmp_path / "cache", cases=["case1", "case3"])
    assert [case.id for case in dataset.missing()] == ["case1", "case3"]
    seen: list[int] = []
    prepared = dataset.prepare(on_case=lambda: seen.append(1))
    assert [one.id for one in prepared] == ["case1", "case3"]
    assert len(seen) == 2
    assert dataset.missing() == []
    for index, one in enumerate(prepared):
        assert torch.equal(
            dataset[index]["image"].as_tensor(), one.read(lambda entry: entry.image())
        )


def test_an_open_dataset_travels_to_worker_processes_without_its_cache(
    manifest: Manifest, plan: Plan, tmp_path: Path
) -> None:
    dataset = PreparedDataset(manifest, plan, tmp_path / "cache")
    item = dataset[0]
    copied = pickle.loads(pickle.dumps(dataset))
    assert len(copied) == 3
    assert torch.equal(copied[0]["image"], item["image"])


def test_items_open_the_cache_once(
    manifest: Manifest, plan: Plan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[int] = []
    real = PreparedCache.__init__

    def count(*args: object) -> None:
        opened.append(1)
        real(*args)

    monkeypatch.setattr(PreparedCache, "__init__", count)
    dataset = PreparedDataset(manifest, plan, tmp_path / "cache")
    for _ in range(2):
        assert [dataset[index]["case"] for index in range(3)] == ["case0", "case1", "case2"]
    assert len(opened) == 1


def test_unknown_cases_and_none_are_refused(manifest: Manifest, plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no case 'case9'"):
        PreparedDataset(manifest, plan, tmp_path, cases=["case9"])
    with pytest.raises(UsageError, match="at least one case"):
        PreparedDataset(manifest, plan, tmp_path, cases=[])
    with pytest.raises(UsageError, match="no case 'case9'"):
        PreparedCases(manifest, plan, tmp_path, cases=["case9"])
    with pytest.raises(UsageError, match="PreparedCases needs at least one case"):
        PreparedCases(manifest, plan, tmp_path, cases=[])


def test_cases_and_dataset_share_one_cache(manifest: Manifest, plan: Plan, tmp_path: Path) -> None:
    cases = PreparedCases(manifest, plan, tmp_path / "cache")
    assert (len(cases), repr(cases)) == (3, "PreparedCases(3 cases, plan 'cubes')")
    cases.prepare()
    dataset = PreparedDataset(manifest, plan, tmp_path / "cache")
    assert dataset.missing() == []
    whole = dataset[1]["image"].as_tensor()
    assert torch.equal(cases.case(1).read(lambda entry: entry.image()), whole)
