"""An archive run: every study ends once, and says how."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from segmed.archive import (
    FolderSource,
    Ledger,
    RunOptions,
    archive_status,
    places_of,
    retry_archive,
    segment_archive,
)
from segmed.errors import UsageError
from segmed.inference import Predictor


@pytest.fixture
def mixed_archive(
    tmp_path: Path, write_nifti: Callable[..., Path], write_dicom: Callable[..., list[Path]]
) -> Path:
    """Three NIfTI files, three sound series, one series with a slice gap, one text file."""
    root = tmp_path / "archive"
    for seed in range(3):
        write_nifti(root / f"volumes/MUSTER^ANNA_{seed}.nii.gz", seed)
        write_dicom(root / f"series{seed}", seed + 10)
    write_dicom(root / "gap", 20, omit=(3,))
    (root / "readme.txt").write_text("no image", encoding="utf-8")
    return root


def test_archive_ends_every_study_and_names_the_gap(
    mixed_archive: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    outcomes = list(segment_archive(FolderSource(mixed_archive), predictor=predictor, out_dir=out))
    statuses = sorted(outcome.status for outcome in outcomes)
    assert statuses == ["done"] * 6 + ["refused"]
    refused = next(outcome for outcome in outcomes if outcome.status == "refused")
    assert refused.reason.startswith("missing_slice: ")
    written = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    assert {row["key"] for row in written} == {outcome.key for outcome in outcomes}
    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.nii.gz")) == sorted(
        row["output"] for row in written if row["output"]
    )


def test_every_file_is_accounted_for(
    mixed_archive: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    list(segment_archive(FolderSource(mixed_archive), predictor=predictor, out_dir=out))
    status = archive_status(out)
    files = sum(path.is_file() for path in mixed_archive.rglob("*"))
    assert status.files_in_studies + status.files_without_image == files
    assert status.files_without_image == 1


def test_segmentation_lies_on_the_grid_of_its_input(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    path = write_nifti(tmp_path / "archive/a.nii.gz", 5)
    source = FolderSource(tmp_path / "archive")
    [outcome] = segment_archive(source, predictor=predictor, out_dir=tmp_path / "out")
    image, label = nib.load(path), nib.load(tmp_path / "out" / str(outcome.output))
    assert label.shape == image.shape
    np.testing.assert_array_equal(label.affine, image.affine)


@pytest.mark.parametrize("names", [None, "hash"])
def test_no_patient_name_leaves_the_private_files(
    mixed_archive: Path, tmp_path: Path, predictor: Predictor, names
) -> None:
    broken = mixed_archive / "volumes" / "MUSTER^BERTA.nii.gz"
    broken.write_bytes(b"\x1f\x8b broken")
    out = tmp_path / "out"
    source, options = FolderSource(mixed_archive), RunOptions(names=names)
    outcomes = list(segment_archive(source, predictor=predictor, out_dir=out, options=options))
    assert [outcome.status for outcome in outcomes].count("refused") == 2
    private = ["ledger.sqlite", "ledger.sqlite.lock", "index.csv", "outcomes.json", "volumes.csv"]
    for path in out.iterdir():
        if (path.is_file() and path.name in private[2:]) or path.name == private[0]:
            assert path.stat().st_mode & 0o777 == 0o600
        elif path.is_file() and path.name not in private:
            assert b"MUSTER" not in path.read_bytes()
    written = (out / "outcomes.json").read_text(encoding="utf-8") + " ".join(
        map(str, out.rglob("*"))
    )
    assert ("MUSTER" in written) is (names is None)
    assert "SEGMED-0" not in written
    refused = next(o for o in outcomes if o.status == "refused" and o.form == "nifti")
    assert places_of(out, refused.study) == ("volumes/MUSTER^BERTA.nii.gz",)


def test_second_run_works_on_nothing(
    mixed_archive: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out = tmp_path / "out"
    source = FolderSource(mixed_archive)
    first = list(segment_archive(source, predictor=predictor, out_dir=out))
    stamps = {path: path.stat().st_mtime_ns for path in (out / "segmentations").rglob("*.gz")}
    assert len(stamps) == 6
    second = list(segment_archive(source, predictor=predictor, out_dir=out))
    assert sorted(o.key for o in second) == sorted(o.key for o in first)
    assert not any(outcome.fresh for outcome in second)
    assert stamps == {p: p.stat().st_mtime_ns for p in (out / "segmentations").rglob("*.gz")}


@pytest.mark.parametrize("harm", ["delete", "change"])
def test_only_the_lost_or_changed_output_returns(
    mixed_archive: Path, tmp_path: Path, predictor: Predictor, harm: str
) -> None:
    out = tmp_path / "out"
    source = FolderSource(mixed_archive)
    list(segment_archive(source, predictor=predictor, out_dir=out))
    victim = sorted((out / "segmentations").rglob("*.gz"))[-1]
    content = victim.read_bytes()
    if harm == "delete":
        victim.unlink()
    else:
        victim.write_bytes(content[:-9])
    again = list(segment_archive(source, predictor=predictor, out_dir=out))
    assert [outcome.output for outcome in again if outcome.fresh] == [str(victim.relative_to(out))]
    assert victim.read_bytes() == content


def test_moved_and_renamed_input_is_known_by_its_content(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    path = write_nifti(tmp_path / "archive/a.nii.gz", 5)
    source = FolderSource(tmp_path / "archive")
    list(segment_archive(source, predictor=predictor, out_dir=tmp_path / "out"))
    path.rename(path.with_name("b.nii.gz"))
    [outcome] = segment_archive(source, predictor=predictor, out_dir=tmp_path / "out")
    assert not outcome.fresh
    write_nifti(tmp_path / "archive/b.nii.gz", 6)
    [outcome] = segment_archive(source, predictor=predictor, out_dir=tmp_path / "out")
    assert outcome.fresh


def test_same_content_twice_is_segmented_once_and_reported_twice(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    for name in ("a", "b"):
        write_nifti(tmp_path / f"archive/{name}/x.nii.gz", 5)
    source = FolderSource(tmp_path / "archive")
    outcomes = list(segment_archive(source, predictor=predictor, out_dir=tmp_path / "out"))
    assert [outcome.status for outcome in outcomes] == ["done", "done"]
    assert len(list((tmp_path / "out/segmentations").rglob("*.gz"))) == 1
    assert len(json.loads((tmp_path / "out/outcomes.json").read_text(encoding="utf-8"))) == 2


def test_limit_stops_early_and_the_next_run_goes_on(
    mixed_archive: Path, tmp_path: Path, predictor: Predictor
) -> None:
    out, source = tmp_path / "out", FolderSource(mixed_archive)
    first = list(
        segment_archive(source, predictor=predictor, out_dir=out, options=RunOptions(limit=2))
    )
    assert sum(outcome.status == "done" for outcome in first) == 2
    second = list(segment_archive(source, predictor=predictor, out_dir=out))
    assert sum(outcome.fresh and outcome.status == "done" for outcome in second) == 4


def test_refused_studies_are_tried_again_only_when_asked(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    path = write_nifti(tmp_path / "archive/a.nii.gz", 5)
    path.write_bytes(path.read_bytes()[:-40])
    out, source = tmp_path / "out", FolderSource(tmp_path / "archive")
    [first] = segment_archive(source, predictor=predictor, out_dir=out)
    assert (first.status, first.reason.split(":")[0]) == ("refused", "truncated")
    [second] = segment_archive(source, predictor=predictor, out_dir=out)
    assert not second.fresh
    assert retry_archive(out) == 1
    [third] = segment_archive(source, predictor=predictor, out_dir=out)
    assert third.fresh


def test_full_disk_fails_studies_and_the_next_run_does_them(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    write_nifti(tmp_path / "archive/a.nii.gz", 5)
    out, source = tmp_path / "out", FolderSource(tmp_path / "archive")
    greedy = RunOptions(min_free_bytes=1 << 60)
    [first] = segment_archive(source, predictor=predictor, out_dir=out, options=greedy)
    assert (first.status, first.reason.split(":")[0]) == ("failed", "disk_full")
    [second] = segment_archive(source, predictor=predictor, out_dir=out)
    assert second.status == "done"


def test_a_second_run_at_the_same_time_is_refused(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    write_nifti(tmp_path / "archive/a.nii.gz", 5)
    out, source = tmp_path / "out", FolderSource(tmp_path / "archive")
    with Ledger(out / "ledger.sqlite"), pytest.raises(UsageError, match="another run"):
        next(segment_archive(source, predictor=predictor, out_dir=out))


@pytest.mark.parametrize("kind", ["nifti", "nrrd", "metaimage"])
def test_images_in_two_files_with_equal_headers_are_two_studies(
    tmp_path: Path, predictor: Predictor, kind: str
) -> None:
    for number in (1, 2):
        write_pair(tmp_path / f"archive/case{number}", kind, number)
    source, out = FolderSource(tmp_path / "archive"), tmp_path / "out"
    first = list(segment_archive(source, predictor=predictor, out_dir=out))
    assert [outcome.status for outcome in first] == ["done", "done"]
    assert {outcome.form for outcome in first} == {kind}
    assert len({outcome.output for outcome in first}) == 2
    status = archive_status(out)
    assert (status.files_in_studies, status.files_without_image) == (4, 0)
    write_pair(tmp_path / "archive/case1", kind, 3)
    again = list(segment_archive(source, predictor=predictor, out_dir=out))
    assert [outcome.fresh for outcome in again].count(True) == 1


def write_pair(folder: Path, kind: str, seed: int) -> None:
    """A header and its voxels; headers of equal bytes whatever the seed."""
    folder.mkdir(parents=True, exist_ok=True)
    voxels = np.random.default_rng(seed).integers(1, 900, (12, 10, 8)).astype(np.int16)
    if kind == "nifti":
        nib.save(nib.Nifti1Pair(voxels, np.eye(4)), folder / "image.img")
        return
    (folder / "image.raw").write_bytes(voxels.tobytes(order="F"))
    if kind == "nrrd":
        (folder / "image.nhdr").write_text(
            "NRRD0004\ntype: short\ndimension: 3\nspace: left-posterior-superior\nsizes: 12 10 8\n"
            "space directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: raw\n"
            "space origin: (0,0,0)\ndata file: image.raw\n",
            encoding="utf-8",
        )
    else:
        (folder / "image.mhd").write_text(
            "ObjectType = Image\nNDims = 3\nBinaryData = True\nBinaryDataByteOrderMSB = False\n"
            "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\nElementSpacing = 1 1 1\n"
            "DimSize = 12 10 8\nElementType = MET_SHORT\nElementDataFile = image.raw\n",
            encoding="utf-8",
        )
