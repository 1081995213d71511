"""Machine-readable output for operators: JSON log lines and Prometheus figures of a run."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from pipelines.runs.metrics import serving_metrics
from segmed.errors import UsageError

SEGMED = [sys.executable, "-c", "from pipelines.cli import main; main()"]


@pytest.fixture(scope="module")
def run(
    package_folder: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, list[dict[str, object]]]:
    """Output folder and log records of a run over one sound and one empty image."""
    root = tmp_path_factory.mktemp("watched")
    (root / "scans").mkdir()
    voxels = np.random.default_rng(1).integers(0, 900, (12, 12, 12)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), root / "scans" / "Muster.nii.gz")
    (root / "scans" / "Anneliese.nii.gz").write_bytes(b"")
    done = subprocess.run(
        [*SEGMED, "--log-format", "json", "archive", "segment", str(root / "scans"),
         "--model", str(package_folder), "-o", str(root / "out")],
        capture_output=True, text=True, check=False, timeout=750, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("{")]
    assert "Muster" not in done.stdout + done.stderr
    assert "Anneliese" not in done.stdout + done.stderr
    return root / "out", [json.loads(line) for line in lines]


def test_every_study_has_a_record_with_the_ids_of_run_and_study(
    run: tuple[Path, list[dict[str, object]]],
) -> None:
    out, records = run
    ended = [record for record in records if record["message"] == "study ended"]
    outcomes = {
        entry["study"]: entry
        for entry in json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    }
    assert {record["study"] for record in ended} == set(outcomes)
    assert len({record["run"] for record in ended}) == 1
    for record in ended:
        assert record["status"] == outcomes[str(record["study"])]["status"]
        assert {"time", "level", "logger", "reason", "seconds", "model"} <= set(record)


def test_prometheus_reads_states_reasons_runs_and_disk(
    run: tuple[Path, list[dict[str, object]]],
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with serving_metrics(run[0], port):
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
        with (
            pytest.raises(UsageError, match="choose another port"),
            serving_metrics(run[0], port),
        ):
            pass
    found = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    assert found["segmed_studies", "done"] == 1
    assert found["segmed_studies", "refused"] == 1
    assert found["segmed_refused_and_failed", "empty_file"] == 1
    assert found["segmed_bad_ends", "empty_file"] == 1  # its old name, for one version
    assert found["segmed_last_run_ended",] == 1
    assert found["segmed_output_free_bytes",] > 0
    assert (
        found["segmed_last_run_ended_timestamp_seconds",]
        >= found["segmed_last_run_started_timestamp_seconds",]
    )


def test_folder_without_a_run_has_figures_too(tmp_path: Path) -> None:
    from pipelines.runs.metrics import ArchiveFigures  # noqa: PLC0415 - beside what it is about

    names = {metric.name for metric in ArchiveFigures(tmp_path / "not" / "there").collect()}
    assert names == {"segmed_output_free_bytes", "segmed_ledger_exists"}
