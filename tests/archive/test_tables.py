"""The volumes table, quality flags and the drift watch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pandas as pd
import pytest
from tiny_model import LABELS, tiny_package

from segmed.archive import FolderSource, Ledger, segment_archive
from segmed.archive.drift import (
    drift_metrics,
    watch,
)
from segmed.archive.volumes import write_volumes
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.metrics.measures import flags_of
from segmed.metrics.quality import learn_ranges, measure_shapes


@pytest.mark.parametrize("suffix", [".csv", ".parquet"])
def test_volumes_table_holds_each_done_study_with_its_volumes(
    tmp_path: Path, predictor: Predictor, write_nifti: Callable[..., Path], suffix: str
) -> None:
    for seed in range(3):
        write_nifti(tmp_path / f"archive/{seed}.nii.gz", seed)
    out = tmp_path / "out"
    source = FolderSource(tmp_path / "archive")
    outcomes = list(segment_archive(source, predictor=predictor, out_dir=out))
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        path = write_volumes(ledger, out / f"volumes{suffix}", LABELS)
    table = pd.read_csv(path) if suffix == ".csv" else pd.read_parquet(path)
    assert sorted(table["key"]) == sorted(outcome.key for outcome in outcomes)
    for row in table.itertuples():
        label = np.asarray(nib.load(out / row.output).dataobj)
        assert row.anterior_ml == pytest.approx((label == 1).sum() / 1000)
    assert list(table["num_flags"] > 0) == sorted(table["num_flags"] > 0, reverse=True)


def test_planes_of_a_format_with_spacing_have_areas(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 900, (20, 16)).astype(np.float32)
    (tmp_path / "archive").mkdir()
    plane = nib.Nifti1Image(pixels, np.diag([0.5, 0.25, 1.0, 1.0]))
    nib.save(plane, tmp_path / "archive/a.nii.gz")
    out = tmp_path / "out"
    model = Predictor(tiny_package(dims=2, edge_mm=0.5), device="cpu", engine="torch")
    source = FolderSource(tmp_path / "archive")
    (outcome,) = segment_archive(source, predictor=model, out_dir=out)
    assert outcome.status == "done", outcome.reason
    label = np.squeeze(np.asarray(nib.load(out / str(outcome.output)).dataobj))
    table = pd.read_csv(out / "volumes.csv")
    (row,) = table.itertuples()
    assert row.anterior_pixels == (label == 1).sum() > 0
    assert row.anterior_mm2 == pytest.approx((label == 1).sum() * 0.125)
    assert (row.spacing_mm_0, row.spacing_mm_1) == (0.5, 0.25)
    assert not [name for name in table if "_ml" in name]


def test_table_of_an_unknown_kind_is_refused(tmp_path: Path) -> None:
    with Ledger(tmp_path / "l.sqlite") as ledger, pytest.raises(UsageError, match="csv, parquet"):
        write_volumes(ledger, tmp_path / "volumes.xlsx", LABELS)


def test_flags_name_what_is_empty_cut_off_or_in_pieces() -> None:
    values = np.zeros((8, 8, 8), dtype=np.uint8)
    assert list(flags_of(values, LABELS)) == ["empty:anterior", "empty:posterior"]
    values[0:3, 2:4, 2:4] = 1
    values[5, 2, 2] = values[5, 5, 5] = 2
    assert list(flags_of(values, LABELS)) == ["border:anterior", "fragments:posterior"]
    values[:] = 0
    values[2:4, 2:4, 2:4], values[4:6, 2:4, 2:4] = 1, 2
    assert list(flags_of(values, LABELS)) == []


def test_flags_of_the_training_ranges_stand_beside_the_others(
    tmp_path: Path, write_nifti: Callable[..., Path]
) -> None:
    untrained = tiny_package()
    small = np.zeros((12, 10, 8), dtype=np.uint8)
    small[4:6, 4:6, 4:6], small[6:8, 4:6, 4:6] = 1, 2
    shapes = measure_shapes(small, labels=LABELS, spacing_mm=(1.0, 1.0, 1.0))
    ranges = [known.model_dump() for known in learn_ranges([shapes] * 6)]
    package = replace(untrained, provenance={"shape_ranges": ranges})
    write_nifti(tmp_path / "archive/0.nii.gz", 0)
    predictor = Predictor(package, device="cpu", engine="torch")
    list(
        segment_archive(
            FolderSource(tmp_path / "archive"), predictor=predictor, out_dir=tmp_path / "out"
        )
    )
    with Ledger(tmp_path / "out" / "ledger.sqlite", writer=False) as ledger:
        [entry] = ledger.entries()
    assert "volume:posterior" in entry.measures["flags"]


def normal(seed: int, number: int, mean: float) -> list[float]:
    return list(np.random.default_rng(seed).normal(mean, 1.0, number))


def test_run_like_the_training_raises_no_alarm() -> None:
    training = {"volume_ml:a": normal(1, 200, 10.0), "flagged": [0.0, 0.0, 0.0, 1.0] * 50}
    current = {"volume_ml:a": normal(2, 60, 10.0), "flagged": [0.0, 0.0, 0.0, 1.0] * 15}
    rows = watch(training, current, refused=(3, 63))
    assert not any(row.is_alarm for row in rows)
    assert drift_metrics(rows)["drift/alarms"] == 0


def test_shifted_volumes_and_rising_shares_raise_the_alarm() -> None:
    training = {"volume_ml:a": normal(1, 200, 10.0), "flagged": [0.0] * 190 + [1.0] * 10}
    current = {"volume_ml:a": normal(2, 60, 12.0), "flagged": [0.0, 1.0] * 30}
    alarms = {row.feature for row in watch(training, current, refused=(20, 80)) if row.is_alarm}
    assert alarms == {"volume_ml:a", "flagged", "refused"}


def test_small_run_and_small_shift_raise_no_alarm() -> None:
    training = {"volume_ml:a": normal(1, 5000, 10.0)}
    few, slight = {"volume_ml:a": normal(2, 5, 15.0)}, {"volume_ml:a": normal(2, 5000, 10.2)}
    for current in (few, slight):
        assert not any(row.is_alarm for row in watch(training, current))
