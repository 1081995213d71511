"""The page of a run: what ended badly, and what to look at first."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from tiny_model import LABELS, tiny_package

from segmed.archive import (
    FolderSource,
    Ledger,
    RunOptions,
    Study,
    preview_archive,
    segment_archive,
)
from segmed.archive.gallery import KEPT, Gallery
from segmed.archive.model import model_of
from segmed.archive.run_page import write_run_page
from segmed.archive.triage import in_words, review_priority
from segmed.inference import Predictor
from segmed.metrics.quality import learn_ranges, measure_shapes


def run(root: Path, predictor: Predictor, out: Path, options: RunOptions | None = None) -> str:
    """Segment a folder; the page that is left."""
    source = FolderSource(root)
    list(
        segment_archive(
            source,
            predictor=predictor,
            out_dir=out,
            options=options or RunOptions(min_free_bytes=0),
        )
    )
    return (out / "report.html").read_text(encoding="utf-8")


def test_page_shows_refusals_with_reasons_and_pictures_of_the_segmented(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    for seed in range(3):
        write_nifti(tmp_path / f"archive/MUSTER^ANNA_{seed}.nii.gz", seed)
    broken = write_nifti(tmp_path / "archive/MUSTER^BERTA.nii.gz", 9)
    broken.write_bytes(broken.read_bytes()[:-40])
    page = run(tmp_path / "archive", predictor, tmp_path / "out")
    assert page.count("data:image/webp;base64,") == 3
    assert "truncated" in page
    assert "MUSTER" not in page
    assert "http" not in page.replace("http-equiv", "")
    assert not (tmp_path / "out" / "pictures").exists()


def test_worst_stands_first(tmp_path: Path, predictor: Predictor) -> None:
    flags = [["border:anterior"], [], ["empty:anterior", "empty:posterior"], ["shape:anterior"]]
    with Ledger(tmp_path / "ledger.sqlite") as ledger:
        number = ledger.begin_run("p")
        for index, found in enumerate(flags):
            study = Study(f"{index:064x}"[::-1], "nifti", f"{index}.nii.gz", ((Path("x"),),))
            ledger.enter(study, str(index), "p", settings="nifti", run=number)
            ledger.start(str(index), run=number)
            measures = {"flags": found, "volumes_ml": {"anterior": 1.5}, "spacing_mm": [1, 1, 1]}
            ledger.note_output(
                str(index), f"s/{index}.gz", "0", seconds=1.0, measures=measures, is_final=True
            )
        page = write_run_page(ledger, tmp_path, model_of(predictor.packages)).read_text(
            encoding="utf-8"
        )
    assert re.findall(r"<tr><td>(\d)0{15}</td>", page) == ["2", "3", "0", "1"]
    assert ".gz" not in page  # names that are no hashes may name patients


def test_page_tells_of_this_run_and_keeps_those_before(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    write_nifti(tmp_path / "archive/0.nii.gz", 0)
    first = run(tmp_path / "archive", predictor, out)
    write_nifti(tmp_path / "archive/1.nii.gz", 1)
    second = run(tmp_path / "archive", predictor, out)
    assert "Archive run 2" in second
    assert "1 were settled before" in second
    assert second.count("data:image/webp") == 1
    assert (out / "reports" / "run-0001.html").read_text(encoding="utf-8") == first


def test_run_that_continues_a_cut_off_one_tells_of_both(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    out = tmp_path / "out"
    for seed in range(3):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    cut_off = segment_archive(FolderSource(tmp_path / "archive"), predictor=predictor, out_dir=out)
    next(cut_off)
    cut_off.close()
    page = run(tmp_path / "archive", predictor, out)
    assert "Archive run 2" in page
    assert "3 studies segmented" in page


def test_drift_alarm_stands_at_the_top_of_the_page(
    tmp_path: Path, write_nifti: Callable[..., Path]
) -> None:
    norms = {"intensity:0:median": [float(value) for value in range(-200, -100)]}
    package = replace(tiny_package(), provenance={"training_distributions": norms})
    for seed in range(20):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    predictor = Predictor(package, device="cpu", engine="torch")
    page = run(tmp_path / "archive", predictor, tmp_path / "out")
    assert "Drift alarm: intensity:0:median" in page


def test_flags_of_training_weigh_more_than_an_edge() -> None:
    assert (
        review_priority(["empty:a"])
        > review_priority(["volume:a"])
        > review_priority(["border:a"])
        > review_priority([])
        == 0
    )
    assert in_words(["empty:a", "border:b", "fragments:b"]) == (
        "a: nothing found; b: reaches the edge of the image, in pieces"
    )


def test_gallery_keeps_the_worst_and_no_more_than_it_may(tmp_path: Path) -> None:
    image = MetaTensor(torch.rand(1, 9, 8, 7))
    label = MetaTensor(torch.zeros(1, 9, 8, 7, dtype=torch.uint8))
    label[0, 3:5, 3:5, 3:5] = 1
    gallery = Gallery(tmp_path)
    for number in range(KEPT + 6):
        gallery.offer(f"plain{number:02d}", {}, image, label)
    gallery.offer("bad", {"flags": ["empty:a"]}, image, label)
    kept = sorted(path.name for path in tmp_path.iterdir())
    assert len(kept) == KEPT
    assert "bad.webp" in kept
    assert f"plain{KEPT:02d}.webp" not in kept


def test_picture_that_cannot_be_written_does_not_fail_the_study(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    write_nifti(tmp_path / "archive/0.nii.gz", 0)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "pictures").write_text("in the way", encoding="utf-8")
    page = run(tmp_path / "archive", predictor, tmp_path / "out")
    assert "1 studies segmented" in page
    assert "data:image/webp" not in page


def test_shapes_unlike_training_are_named_in_words(
    tmp_path: Path, write_nifti: Callable[..., Path]
) -> None:
    small = np.zeros((12, 10, 8), dtype=np.uint8)
    small[4:6, 4:6, 4:6], small[6:8, 4:6, 4:6] = 1, 2
    shapes = measure_shapes(small, labels=LABELS, spacing_mm=(1.0, 1.0, 1.0))
    ranges = [known.model_dump() for known in learn_ranges([shapes] * 6)]
    package = replace(tiny_package(), provenance={"shape_ranges": ranges})
    write_nifti(tmp_path / "archive/0.nii.gz", 0)
    page = run(
        tmp_path / "archive", Predictor(package, device="cpu", engine="torch"), tmp_path / "out"
    )
    assert "volume unlike training" in page


@pytest.mark.parametrize("limit", [1, 2])
def test_dry_run_says_what_the_run_would_do_and_writes_nothing(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path], limit: int
) -> None:
    out, options = tmp_path / "out", RunOptions(limit=limit)
    for seed in range(4):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    model, source = model_of(predictor.packages), FolderSource(tmp_path / "archive")
    foreseen = list(preview_archive(source, model=model, out_dir=out, options=options))
    assert not out.exists()
    done = list(segment_archive(source, predictor=predictor, out_dir=out, options=options))
    assert [outcome.key for outcome in foreseen] == [outcome.key for outcome in done]


def test_dry_run_with_a_new_model_leaves_the_old_work_unless_asked(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path]
) -> None:
    out, source = tmp_path / "out", FolderSource(tmp_path / "archive")
    write_nifti(tmp_path / "archive/0.nii.gz", 0)
    list(segment_archive(source, predictor=predictor, out_dir=out))
    new = model_of([tiny_package(seed=1)])
    [kept] = preview_archive(source, model=new, out_dir=out)
    assert (kept.status, kept.package) == ("done", model_of(predictor.packages).hash)
    [again] = preview_archive(source, model=new, out_dir=out, options=RunOptions(resegment=True))
    assert (again.status, again.package) == ("pending", new.hash)
