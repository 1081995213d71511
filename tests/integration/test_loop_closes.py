"""The loop: segmented from a PACS, corrected there by other programs, trained with, and judged."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from prefect.testing.utilities import prefect_test_harness

sys.path += [str(Path(__file__).parents[1] / name) for name in ("archive", "archive/review")]

from corrected_segs import write_dcmqi_seg, write_seg
from listener import WebHook, listening
from orthanc_server import PASSWORD, USER, Orthanc

from pipelines.flows.weekly import WeeklyJob, weekly
from pipelines.registry.versions import Registry
from segmed.archive import segment_archive
from segmed.archive.pacs.address import PASSWORD_VARIABLE, source_at
from segmed.archive.pacs.remote import Query
from segmed.archive.review.archive import ReviewArchive
from segmed.archive.review.cases import PREFIX
from segmed.archive.review.from_pacs import take_corrections
from segmed.inference import Predictor
from segmed.io import read_image, read_label
from segmed.io.dicom.write import Identity, write_series
from segmed.manifest import Case, read_manifest, write_manifest
from segmed.package.training_cases import CORRECTIONS, SEEN

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

HOURS = 0.02
"""Budget of one training: 72 s, in which a small network learns to find the hippocampus."""


def in_folds(cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """The cases in two folds."""
    return tuple(case.model_copy(update={"fold": number % 2}) for number, case in enumerate(cases))


def test_corrections_of_a_pacs_train_the_next_model_and_the_evidence_names_them(
    orthanc: Orthanc, tmp_path: Path, sample_manifest_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setenv(PASSWORD_VARIABLE, PASSWORD)
    monkeypatch.chdir(tmp_path)
    sample = read_manifest(sample_manifest_path)
    corrected = sample.training[20:22]  # two patients whom the set does not have
    small = sample.model_copy(update={"training": in_folds(sample.training[:12])})
    manifest = write_manifest(small, tmp_path / "set.json")
    job = WeeklyJob(manifest, "hippocampus", tmp_path / "one", HOURS, tmp_path, "unet", "0")
    with prefect_test_harness(server_startup_timeout=120), listening(WebHook()) as hook:
        first = weekly(replace(job, size="small"), (hook.url,))
        registry = Registry(tmp_path)
        assert registry.version("hippocampus", "champion").reference == first
        series = [tmp_path / "series" / str(number) for number in range(len(corrected))]
        for number, (folder, case) in enumerate(zip(series, corrected, strict=True)):
            image = read_image(sample.image_paths(case)[0])
            identity = Identity(patient_id=f"NEW{number}", description="T1")
            write_series(folder, image, identity=identity)
            orthanc.upload(folder)
        address = f"dicomweb://{USER}@127.0.0.1:{orthanc.http_port}/dicom-web"
        source = source_at(address, query=Query(modalities=("MR",)))
        package = registry.resolve(first).load()
        out = tmp_path / "archive"
        run = segment_archive(
            source,
            predictor=Predictor(package, device="cpu", engine="torch"),
            out_dir=out,
            format="dicom-seg",
        )
        assert [outcome.status for outcome in run] == ["done", "done"]
        orthanc.upload(out / "segmentations")
        stored = tmp_path / "stored"
        stored.mkdir()
        for number, (folder, case) in enumerate(zip(series, corrected, strict=True)):
            label = sample.label_path(case)
            assert label is not None
            values = np.asarray(read_label(label))[0]
            shown = read_image(folder)
            values = on_grid_of(values, np.asarray(read_label(label).affine), shown)
            path = stored / f"{number}.dcm"
            if number:
                write_dcmqi_seg(path, folder, values, sample.labels, "binary")
            else:
                write_seg(path, sorted(folder.glob("*.dcm")), values, sample.labels, "LABELMAP")
        orthanc.upload(stored)
        archive = ReviewArchive(out)
        found = take_corrections(archive, source)
        assert (found.refused, len(found.linked), found.own) == ({}, 2, 2)
        ids = sorted(f"{PREFIX}{study}" for study in found.linked)
        again = replace(job, size="small", out_dir=tmp_path / "two", archive=out)
        second = weekly(again, (hook.url,))
    assert second != first
    made = registry.resolve(second).load().provenance
    assert made[CORRECTIONS] == ids
    assert len(made[SEEN]) == 14
    said = hook.got[1]["body"]
    assert f"the challenger was trained on 2 accepted corrections: {', '.join(ids)}" in said
    assert "neither model has seen any of the 6 cases" in said
    records = [
        json.loads(path.read_text(encoding="utf-8")) for path in tmp_path.rglob("decision.json")
    ]
    (record,) = (one for one in records if one["version"] == second.rpartition("/")[2])
    assert record["corrections_trained_on"] == ids
    assert record["deciding_cases"] == record["cases"] == 6
    assert record["seen_cases_left_out"] == {"champion": 0, "challenger": 0}
    (week,) = (tmp_path / "two").glob("*/manifest.json")
    trained = read_manifest(week)
    groups = [{case.group for case in trained.training if case.fold == fold} for fold in (0, 1)]
    assert not groups[0] & groups[1]
    assert not (groups[0] | groups[1]) & {case.group for case in trained.test}


def on_grid_of(values: np.ndarray, affine: np.ndarray, image: object) -> np.ndarray:
    """The label map in the order of axes in which the series is read."""
    steps = np.linalg.inv(affine) @ np.asarray(image.affine)
    order = [int(np.argmax(np.abs(steps[:3, axis]))) for axis in range(3)]
    flips = [axis for axis in range(3) if steps[order[axis], axis] < 0]
    return np.ascontiguousarray(np.flip(values.transpose(order), flips)).astype(np.int32)
