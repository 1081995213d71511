"""Predicted quality on real sets: coverage, risk and AURC over 200 splits of out-of-fold cases.

Judge what is recorded (the default), as `results/quality.json`:

    python -m tests.benchmarks.bench_quality [SET ...] [--splits 200]

Record a set of `../shared/data`: three small U-Nets a fold, `--seconds` of CPU time each, one
thread. It may be stopped and repeated with the same options; finished folds and trainings stay, and
`--folds 0,1` does some of them:

    python -m tests.benchmarks.bench_quality --record left_atrium --seconds 600 --folder WORK
    python -m tests.benchmarks.bench_quality --record cardiac_mr --seconds 300 --folder WORK
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from tests.benchmarks.quality_recording import DATA, FOLDS, RECORDED, Recording
from tests.benchmarks.quality_splits import SPLITS, judged, read_recorded

HIPPOCAMPUS = Path(__file__).resolve().parents[1] / "quality" / "hippocampus_cases.json"
RESULT = Path(__file__).parent / "results" / "quality.json"
SETS = ("hippocampus", "left_atrium", "cardiac_mr")


def main() -> int:
    """Record a set, or judge those recorded; status 1 where a promise is not kept."""
    options = _options()
    if options.record:
        if not (DATA / options.record).is_dir():
            print(f"../shared/data/{options.record} is not there: nothing is recorded")
            return 0
        torch.set_num_threads(1)
        folds = [int(part) for part in options.folds.split(",")]
        place = options.folder / options.record
        recording = Recording(options.record, place, options.seconds, options.networks, folds)
        path = recording.run()
        if path is None:
            return 0
        print(f"recorded: {path}")
    sets = [options.record] if options.record else options.sets or list(SETS)
    found = {name: judged(read_recorded(_file(name)), options.splits)
             for name in sets if _is_recorded(name)}  # fmt: skip
    for name, tables in found.items():
        for table, record in tables.items():
            print("\n".join(_lines(f"{name}, {table}", record)))
    if options.splits == SPLITS:
        known = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {}
        RESULT.write_text(
            json.dumps({**known, **found}, indent=1, sort_keys=True) + "\n", encoding="utf-8"
        )
    return 0 if all(_is_kept(one) for tables in found.values() for one in tables.values()) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("sets", nargs="*", choices=[[], *SETS], help="Sets to judge.")
    parser.add_argument("--splits", type=int, default=SPLITS)
    parser.add_argument("--record", metavar="SET", help="Set of ../shared/data to record.")
    parser.add_argument("--seconds", type=float, default=600.0, help="CPU seconds a training.")
    parser.add_argument("--networks", type=int, default=3, help="Trainings a fold.")
    parser.add_argument("--folds", default=",".join(map(str, range(FOLDS))))
    parser.add_argument("--folder", type=Path, default=Path("bench-quality"))
    return parser.parse_args()


def _file(name: str) -> Path:
    return HIPPOCAMPUS if name == "hippocampus" else RECORDED / f"{name}.json"


def _is_recorded(name: str) -> bool:
    if not _file(name).is_file():
        print(f"{name}: not recorded yet, see --record")
    return _file(name).is_file()


def _is_kept(record: dict[str, Any]) -> bool:
    aurc = record["aurc"]
    kept = [row["is_kept"] for row in record["coverage"].values()]
    good = [row["is_as_good"] for row in aurc["against"].values()]
    return all(kept) and record["risk"]["is_kept"] and all(good)


def _lines(title: str, record: dict[str, Any]) -> list[str]:
    fewest, most = record["calibrated"]
    lines = [
        f"{title}: {record['cases']} cases of {record['patients']} patients, {record['splits']} "
        f"splits, {fewest} to {most} calibrate, intervals of {record['level']:.0%}"
    ]
    lines += [
        f"  {name}: covered {row['mean']:.3f} (binomial error {row['error']:.3f})"
        f"{'' if row['is_kept'] else ' NOT KEPT'}"
        for name, row in record["coverage"].items()
    ]
    risk = record["risk"]
    lines.append(
        f"  risk: promised in {risk['promised']}, broken in {risk['broken']}, bound exceeded in "
        f"{risk['bounds_exceeded']} of {record['splits']}{'' if risk['is_kept'] else ' NOT KEPT'}"
    )
    areas = {name: area for name, area in record["aurc"].items() if name != "against"}
    lines.append("  AURC: " + ", ".join(f"{name} {area:.4f}" for name, area in areas.items()))
    lines += [
        f"  AURC less that of {name}: {row['difference']:+.4f} ({row['low']:+.4f} to "
        f"{row['high']:+.4f} by patients){'' if row['is_as_good'] else ' NOT KEPT'}"
        for name, row in record["aurc"]["against"].items()
    ]
    return lines


if __name__ == "__main__":
    raise SystemExit(main())
