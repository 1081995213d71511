"""Sets of many small rasters: few processes read them, and give what single reads give."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sandbox_processes import SandboxProcesses

from segmed.errors import ManifestError, SegmedError
from segmed.io import batches
from segmed.io.batched_work import runs_of
from segmed.manifest import Case, Manifest, build_manifest, check_manifest
from segmed.manifest.case_reader import CaseReader, over_cases
from segmed.plan import plan_hash
from segmed.plan.fingerprint import survey
from segmed.plan.known_facts import KnownFacts
from segmed.plan.make import plan_of_cases
from segmed.preprocessing import PreparedCache, prepare_cases

NUM_CASES = 80


@pytest.fixture(scope="module")
def micrographs(tmp_path_factory: pytest.TempPathFactory, shared_data: Callable[..., Path]) -> Path:
    """Tiles of electron micrographs with their masks, as PNG."""
    folder = tmp_path_factory.mktemp("micrographs")
    source = shared_data("isbi2012")
    for kind, target in (("images", "images"), ("labels", "masks")):
        (folder / target).mkdir()
        for number in range(NUM_CASES):
            place = (number // 10 * 60, number % 10 * 50)
            with Image.open(source / kind / f"{number % 30}.png") as picture:
                tile = picture.crop((place[1], place[0], place[1] + 48, place[0] + 40))
                tile.save(folder / target / f"c{number:02d}.png")
    return folder


@pytest.fixture
def manifest(micrographs: Path, tmp_path: Path) -> Manifest:
    """The set, in a folder that a test may change."""
    for path in micrographs.rglob("*.png"):
        place = tmp_path / "set" / path.relative_to(micrographs)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(path.read_bytes())
    return build_manifest(tmp_path / "set")


def records(manifest: Manifest, folder: Path) -> dict[str, tuple[bytes, object]]:
    """Content and facts of every prepared case."""
    cache = PreparedCache(manifest, plan_of_cases(manifest, survey(manifest)), folder)
    prepare_cases(cache, manifest.training)
    found = {}
    for case in manifest.training:
        record = cache.find(cache.key(case))
        assert record is not None
        (content,) = record.read([(0, record.length)])
        found[case.id] = content, record.facts
    return found


def single(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have every file read alone from here on."""
    monkeypatch.setattr(batches, "LARGEST_BYTES", 0)


def test_facts_plan_and_prepared_bytes_are_those_of_single_reads(
    manifest: Manifest, tmp_path: Path, sandbox: SandboxProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = survey(manifest)
    few = len(sandbox.requests)
    assert few <= 8  # of 160 files
    prepared = records(manifest, tmp_path / "one")
    assert len(sandbox.requests) <= 3 * few
    single(monkeypatch)
    sandbox.requests.clear()
    alone = survey(manifest)
    assert len(sandbox.requests) == 2 * NUM_CASES
    for one, other in zip(facts, alone, strict=True):
        assert np.array_equal(one.foreground, other.foreground)
        assert one.foreground.dtype == other.foreground.dtype
        for name in ("extent_mm", "thickness_mm", "gap_mm", "together_mm"):
            sizes = (getattr(case.shapes, name) for case in (one, other))
            assert np.array_equal(*sizes, equal_nan=True)
        assert np.array_equal(one.grid.affine_ras, other.grid.affine_ras)
        rest = {"foreground": alone[0].foreground, "shapes": one.shapes, "grid": one.grid}
        assert replace(one, **rest) == replace(other, **rest)
    plans = [plan_of_cases(manifest, found) for found in (facts, alone)]
    assert plan_hash(plans[0]) == plan_hash(plans[1])
    assert records(manifest, tmp_path / "two") == prepared


def test_a_check_reads_in_batches_and_finds_the_same(
    manifest: Manifest, sandbox: SandboxProcesses, monkeypatch: pytest.MonkeyPatch
) -> None:
    torn = manifest.root / manifest.training[33].image[0]
    torn.write_bytes(torn.read_bytes()[:-300])
    (manifest.root / str(manifest.training[50].label)).write_bytes(b"\x89PNG\r\n\x1a\n")
    found = check_manifest(manifest)
    assert {fault.case_id for fault in found} >= {"c33", "c50"}
    assert len(sandbox.requests) <= 16
    single(monkeypatch)
    assert check_manifest(manifest) == found


@pytest.mark.parametrize("kind", ["image", "label"])
@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", None], ids=["empty", "head", "torn"]
)
def test_a_damaged_file_is_named_by_survey_and_preparation_and_cases_before_it_are_kept(
    manifest: Manifest, tmp_path: Path, kind: str, content: bytes | None
) -> None:
    plan = plan_of_cases(manifest, survey(manifest))
    case = manifest.training[37].model_copy(update={"sha256": {}})
    cases = [*manifest.training[:37], case, *manifest.training[38:]]
    manifest = manifest.model_copy(update={"training": cases})
    name = case.image[0] if kind == "image" else str(case.label)
    path = manifest.root / name
    path.write_bytes(path.read_bytes()[:-30] if content is None else content)
    reason = rf"case c37: {path.name}: "
    with pytest.raises(ManifestError, match=reason):
        survey(manifest)
    cache = PreparedCache(manifest, plan, tmp_path / "cache")
    with pytest.raises(ManifestError, match=reason):
        prepare_cases(cache, cases)
    assert all(cache.has(cache.key(one)) for one in cases[:37])
    assert not cache.has(cache.key(case))


@pytest.mark.parametrize("at", [0, 9, 39])
def test_a_file_that_kills_its_process_costs_two_more_and_no_case(
    manifest: Manifest, sandbox: SandboxProcesses, at: int
) -> None:
    expected = survey(manifest, workers=1)
    few = sandbox.files
    sandbox.requests.clear()
    sandbox.kill(at)
    facts = survey(manifest, workers=1)
    victim = few[0][at]
    alone = [one for one in sandbox.files if one == [victim]]
    assert len(alone) == 1
    assert len(few) + 1 <= len(sandbox.files) <= len(few) + 2
    assert [one.class_voxels for one in facts] == [one.class_voxels for one in expected]
    assert all(
        np.array_equal(a.foreground, b.foreground) for a, b in zip(facts, expected, strict=True)
    )


@pytest.mark.parametrize("kind", ["image", "label"])
def test_a_file_that_kills_every_process_is_named_and_it_alone(
    manifest: Manifest, sandbox: SandboxProcesses, kind: str
) -> None:
    case = manifest.training[5]
    path = manifest.root / (case.image[0] if kind == "image" else str(case.label))
    sandbox.fatal.add(path)
    with pytest.raises(ManifestError, match=rf"case c05: {path.name}: its decoder crashed"):
        survey(manifest)
    found = check_manifest(manifest)
    assert [(fault.case_id, fault.code) for fault in found if fault.severity == "error"] == [
        ("c05", "decoder_crashed")
    ]


def test_kept_facts_and_prepared_cases_are_not_read_ahead(
    manifest: Manifest, tmp_path: Path, sandbox: SandboxProcesses
) -> None:
    known = KnownFacts(tmp_path / "cache")
    facts = survey(manifest, known=known)
    known.save()
    plan = plan_of_cases(manifest, facts)
    cache = PreparedCache(manifest, plan, tmp_path / "cache")
    prepare_cases(cache, manifest.training[::2])
    sandbox.requests.clear()
    survey(manifest, known=KnownFacts(tmp_path / "cache"))
    prepare_cases(cache, manifest.training[::2])
    assert sandbox.requests == []
    changed = manifest.training[6]
    path = manifest.root / str(changed.label)
    Image.fromarray(np.asarray(Image.open(path))[::-1].copy()).save(path)
    survey(manifest, known=KnownFacts(tmp_path / "cache"))
    names = [Path(name).name for name in (*changed.image, str(changed.label))]
    assert sandbox.files == [names]
    sandbox.requests.clear()
    prepare_cases(cache, manifest.training[:6])
    missing = manifest.training[1:6:2]
    expected = [Path(name).name for one in missing for name in (*one.image, str(one.label))]
    assert sorted(name for names in sandbox.files for name in names) == sorted(expected)


def test_runs_are_small_enough_for_every_worker(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = list(manifest.training)

    def files_of(case: Case) -> list[Path]:
        return [*manifest.image_paths(case), manifest.root / str(case.label)]

    def lengths(workers: int) -> list[int]:
        found = list(runs_of(cases, files_of, workers=workers))
        assert [case for run in found for case in run] == cases
        return [len(run) for run in found]

    assert lengths(1) == [32, 32, 16]
    assert lengths(2) == [20] * 4
    assert lengths(40) == [1] * 80
    sizes = sum((manifest.root / name).stat().st_size for name in cases[0].image)
    monkeypatch.setattr(batches, "BATCH_BYTES", 5 * sizes)
    assert max(lengths(1)) <= 5
    large = manifest.root / cases[3].image[0]
    monkeypatch.setattr(batches, "LARGEST_BYTES", large.stat().st_size - 1)
    assert [cases[3]] in list(runs_of(cases[:6], files_of, workers=1))


def test_the_first_error_ends_the_work_behind_the_results_before_it(manifest: Manifest) -> None:
    seen: list[str] = []

    def work(_: CaseReader, case: Case) -> str:
        seen.append(case.id)
        if case.id in {"c25", "c70"}:
            raise SegmedError(case.id)
        return case.id

    results: list[str] = []
    with pytest.raises(SegmedError, match="c25"):
        results.extend(over_cases(work, manifest, manifest.training, workers=2))
    assert results == [case.id for case in manifest.training[:25]]
    assert threading.active_count() < 20
