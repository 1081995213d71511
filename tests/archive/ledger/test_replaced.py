"""Inputs that change between runs: their earlier results are replaced, and nothing else is."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from segmed.archive import FolderSource, Ledger, Study, archive_status, segment_archive
from segmed.archive.ledger.versions import REPLACES, REPLACES_DELIVERED
from segmed.archive.model import Model
from segmed.archive.outcomes import KEPT
from segmed.archive.run import key_in
from segmed.archive.study import key_of
from segmed.inference import Predictor


def run(root: Path, out: Path, predictor: Predictor, **options: object) -> list[dict[str, object]]:
    """One run; what stands in outcomes.json afterwards."""
    list(segment_archive(FolderSource(root, **options), predictor=predictor, out_dir=out))
    found: list[dict[str, object]] = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    return found


def outputs(out: Path) -> list[str]:
    return sorted(
        path.relative_to(out).as_posix() for path in (out / "segmentations").rglob("*.nii.gz")
    )


def volumes(out: Path) -> list[dict[str, str]]:
    with (out / "volumes.csv").open(encoding="utf-8") as stream:
        return list(csv.DictReader(stream))


@pytest.mark.parametrize(("first", "second"), [(range(5), range(8)), (range(8), range(2, 8))])
def test_series_that_grows_or_shrinks_has_one_result(
    tmp_path: Path,
    predictor: Predictor,
    write_dicom: Callable[..., list[Path]],
    first: range,
    second: range,
) -> None:
    files = write_dicom(tmp_path / "sent", 7)
    other = write_dicom(tmp_path / "archive/other", 8)
    out = tmp_path / "out"
    for present in (first, second):
        shutil.rmtree(tmp_path / "archive/series", ignore_errors=True)
        (tmp_path / "archive/series").mkdir()
        for number in present:
            shutil.copy(files[number], tmp_path / "archive/series")
        rows = run(tmp_path / "archive", out, predictor)
    assert [row["status"] for row in rows] == ["done", "done"]
    assert len(other) == 8
    assert outputs(out) == sorted(str(row["output"]) for row in rows)
    assert {row["output"] for row in volumes(out)} == set(outputs(out))
    assert [REPLACES in row["notes"] for row in rows].count(True) == 1
    assert archive_status(out).counts["replaced"] == 1


def test_series_that_is_back_as_it_was_is_segmented_again(
    tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    files = write_dicom(tmp_path / "archive/s", 7)
    out = tmp_path / "out"
    first = run(tmp_path / "archive", out, predictor)
    content = (out / str(first[0]["output"])).read_bytes()
    files[-1].rename(tmp_path / "away.dcm")
    run(tmp_path / "archive", out, predictor)
    (tmp_path / "away.dcm").rename(files[-1])
    again = run(tmp_path / "archive", out, predictor)
    assert [row["key"] for row in again] == [row["key"] for row in first]
    assert outputs(out) == [str(again[0]["output"])]
    assert (out / str(again[0]["output"])).read_bytes() == content


def test_earlier_result_stays_flagged_while_the_present_input_is_refused(
    tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    files = write_dicom(tmp_path / "sent", 7)
    archive, out = tmp_path / "archive", tmp_path / "out"
    archive.mkdir()
    for path in files[:4]:
        shutil.copy(path, archive)
    [half] = run(archive, out, predictor)
    shutil.copy(files[6], archive)
    [gap] = run(archive, out, predictor)
    assert str(gap["reason"]).startswith("missing_slice")
    assert gap["notes"] == [KEPT]
    assert outputs(out) == [str(half["output"])]
    assert "outdated:input" in volumes(out)[0]["flags"]
    for path in files[4:]:
        shutil.copy(path, archive)
    [whole] = run(archive, out, predictor)
    assert outputs(out) == [str(whole["output"])]
    assert "outdated" not in volumes(out)[0]["flags"]
    assert archive_status(out).refused_and_failed == ()


def test_file_with_other_voxels_replaces_and_its_copy_keeps_the_old_result(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    for place in ("a", "b"):
        write_nifti(tmp_path / f"archive/{place}/x.nii.gz", 1)
    out = tmp_path / "out"
    run(tmp_path / "archive", out, predictor)
    write_nifti(tmp_path / "archive/a/x.nii.gz", 2)
    rows = run(tmp_path / "archive", out, predictor)
    assert len({row["output"] for row in rows}) == 2
    assert outputs(out) == sorted(str(row["output"]) for row in rows)
    write_nifti(tmp_path / "archive/b/x.nii.gz", 3)
    rows = run(tmp_path / "archive", out, predictor)
    assert outputs(out) == sorted(str(row["output"]) for row in rows)


def test_result_of_an_input_that_left_the_archive_stays(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    first = write_nifti(tmp_path / "archive/a.nii.gz", 1)
    out = tmp_path / "out"
    [row] = run(tmp_path / "archive", out, predictor)
    first.unlink()
    write_nifti(tmp_path / "archive/b.nii.gz", 2)
    run(tmp_path / "archive", out, predictor)
    assert str(row["output"]) in outputs(out)
    assert len(outputs(out)) == 2


def test_equal_names_in_two_archives_are_two_inputs(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    for number in (1, 2):
        write_nifti(tmp_path / f"site{number}/scan.nii.gz", number)
        run(tmp_path / f"site{number}", out, predictor)
    assert len(outputs(out)) == 2


def entry_of(ledger: Ledger, name: str, content: str, run: int, *, done: bool = True) -> str:
    study = Study(content * 64, "dicom", f"series {name} {content}", identity=name)
    key = key_of(study.content, "package")
    ledger.enter(study, key, "package", settings="nifti", run=run)
    if done:
        ledger.note_output(key, f"{content}.gz", "0", seconds=1, measures={}, is_final=True)
    ledger.replace_earlier(key)
    return key


def states(ledger: Ledger, *keys: str) -> list[str]:
    return [ledger.entry(key).state for key in keys]


def test_two_contents_of_one_run_are_two_inputs_for_good(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        for _ in range(3):
            run = ledger.begin_run("package")
            keys = [entry_of(ledger, "s", content, run) for content in "ab"]
            assert states(ledger, *keys) == ["done", "done"]


def test_output_is_replaced_by_a_whole_one_only(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        old = entry_of(ledger, "s", "a", ledger.begin_run("package"))
        new = entry_of(ledger, "s", "b", ledger.begin_run("package"), done=False)
        assert states(ledger, old, new) == ["done", "pending"]
        ledger.record_failure(new, "missing_slice", "a gap", refused=True)
        assert ledger.outdated() == {old}
        newest = entry_of(ledger, "s", "c", ledger.begin_run("package"))
        assert states(ledger, old, new, newest) == ["replaced", "replaced", "done"]
        assert ledger.outdated() == frozenset()


def test_what_a_refusal_or_failure_left_is_replaced_at_once(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        old = entry_of(ledger, "s", "a", ledger.begin_run("package"), done=False)
        ledger.record_failure(old, "truncated", "cut", refused=True)
        new = entry_of(ledger, "s", "b", ledger.begin_run("package"), done=False)
        assert states(ledger, old, new) == ["replaced", "pending"]


def test_another_models_result_of_the_same_content_stays(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        study = Study("a" * 64, "dicom", "series", identity="s")
        keys = []
        for package in ("one", "other"):
            key = key_of(study.content, package)
            run = ledger.begin_run(package)
            ledger.enter(study, key, package, settings="nifti", run=run)
            ledger.note_output(key, package, "0", seconds=1, measures={}, is_final=True)
            assert ledger.replace_earlier(key) == []
            keys.append(key)
        assert states(ledger, *keys) == ["done", "done"]
        newest = entry_of(ledger, "s", "b", ledger.begin_run("one"))
        assert states(ledger, *keys, newest) == ["replaced", "replaced", "done"]


def test_delivered_result_that_is_replaced_is_named(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        old = entry_of(ledger, "s", "a", ledger.begin_run("package"))
        ledger.finish(old, delivered="1.2.3")
        new = entry_of(ledger, "s", "b", ledger.begin_run("package"))
        assert ledger.entry(new).measures["notes"] == [REPLACES_DELIVERED]


def test_output_left_by_a_kill_is_withdrawn_at_the_next_start(
    tmp_path: Path,
    predictor: Predictor,
    write_nifti: Callable[..., Path],
) -> None:
    path = write_nifti(tmp_path / "archive/a.nii.gz", 1)
    out = tmp_path / "out"
    [old] = run(tmp_path / "archive", out, predictor)
    content = (out / str(old["output"])).read_bytes()
    write_nifti(path, 2)
    run(tmp_path / "archive", out, predictor)
    with Ledger(out / "ledger.sqlite") as ledger:  # as if killed before the file was removed
        (out / str(old["output"])).write_bytes(content)
        ledger._connection.execute(
            "UPDATE studies SET output = ? WHERE key = ?", (old["output"], old["key"])
        )
    [new] = run(tmp_path / "archive", out, predictor)
    assert outputs(out) == [str(new["output"])]


@pytest.mark.parametrize(
    ("places", "is_kept"),
    [(["one"], True), (["one", "one of patient a"], True), (["one", "two"], False)],
)
def test_entry_under_an_older_hash_is_kept_where_it_is_sure(
    tmp_path: Path, places: list[str], is_kept: bool
) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        for place in places:
            older = Study("a" * 64, "dicom", place)
            key = key_of(older.content, "package", "nifti")
            ledger.enter(older, key, "package", settings="nifti", run=run)
        ledger.note_output(key, "x.gz", "0", seconds=1, measures={}, is_final=True)
        now = Study("b" * 64, "dicom", "one of patient a", older_content="a" * 64)
        found, _ = key_in(ledger, now, Model("package", "m", (), 1), "nifti", resegment=False)
        assert (found == key) is is_kept
        other, package = key_in(ledger, now, Model("new", "m", (), 1), "nifti", resegment=False)
        assert (other == key) is is_kept
        assert (package == "package") is is_kept


def test_no_place_is_left_of_content_that_no_input_has(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        old, other = entry_of(ledger, "s", "a", run), entry_of(ledger, "t", "b", run)
        new = entry_of(ledger, "s", "c", ledger.begin_run("package"), done=False)
        assert [bool(ledger.places(key)) for key in (old, other, new)] == [False, True, True]
