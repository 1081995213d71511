"""The table of all recorded trainings, made from their records: `results/training.md`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.benchmarks.training_runs import PEER, RUNS

TABLE = RUNS.with_suffix(".md")

HEAD = """# Trainings

Made from the JSON files beside it by `python -m tests.benchmarks.bench_training table`.
One row a training on one thread of a shared machine: time is CPU seconds of training (batches,
forward, backward, optimiser), validation and preparation not counted. Fold 0 is held out. Dice is
the mean over labels and held-out cases of the last weights; in the column "delivered" as `segmed
predict` gives it, on each image's own grid. No row was picked: every run that ended is here.
"""

Record = dict[str, Any]


def records() -> list[Record]:
    """All finished runs."""
    found = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RUNS.glob("*.json"))]
    return [record for record in found if record["is_finished"]]


def write_table() -> Path:
    """Write the Markdown; gives its path."""
    parts = [HEAD]
    runs = records()
    for data in dict.fromkeys(record["data"] for record in runs):
        mine = [record for record in runs if record["data"] == data]
        first = mine[0]
        parts += [
            f"## {data}: {first['training_cases']} training cases, "
            f"{first['held_out_cases']} held out",
            "",
            *_runs(mine),
            "",
            *_races(mine),
        ]
    TABLE.write_text("\n".join(parts).rstrip() + "\n", encoding="utf-8")
    return TABLE


def _runs(runs: list[Record]) -> list[str]:
    columns = ["learner", "CPU s", "seed", "steps", "parameters", "Dice", "delivered", "by label"]
    lines = [_row(columns), _row(["---"] * len(columns))]
    for run in sorted(runs, key=lambda run: (run["learner"], run["cpu_seconds"], run["seed"])):
        last = run["points"][-1]
        by_label = run.get("delivered_dice", last["dice"])
        lines.append(
            _row(
                [
                    run["learner"],
                    f"{run['cpu_seconds']:.0f}",
                    str(run["seed"]),
                    str(run["steps"]),
                    f"{run['parameters']:,}",
                    f"{last['mean_dice']:.3f}",
                    _number(run.get("delivered_mean_dice")),
                    ", ".join(f"{name} {value:.3f}" for name, value in by_label.items()),
                ]
            )
        )
        lines += [f"  - {note}" for note in run.get("notes", [])]
    extra = [(run, run["scores"]) for run in runs if "scores" in run]
    for run, scores in extra:
        told = ", ".join(f"{name} {value:.4f}" for name, value in scores.items())
        lines += ["", f"{run['learner']}, {run['cpu_seconds']:.0f} s, seed {run['seed']}: {told}."]
    return lines


def _races(runs: list[Record]) -> list[str]:
    """The peer's points beside the curve of segmed's `unet` of the same budget and seed."""
    peers = {(r["cpu_seconds"], r["seed"]): r for r in runs if r["learner"] == PEER}
    ours = {(r["cpu_seconds"], r["seed"]): r for r in runs if r["learner"] == "unet"}
    lines: list[str] = []
    for key in sorted(peers.keys() & ours.keys()):
        seconds, seed = key
        lines += [
            f"### `unet` against a plain MONAI loop, {seconds:.0f} CPU s, seed {seed}",
            "",
            "segmed's value is the last one measured by then.",
            "",
            _row(["CPU s", "MONAI loop", "segmed", "measured at"]),
            _row(["---"] * 4),
        ]
        for point in peers[key]["points"]:
            own = up_to(ours[key]["points"], point["cpu_seconds"])
            lines.append(_row(_pair(point, own)))
        lines.append("")
    return lines


def up_to(points: list[Record], cpu_seconds: float) -> Record | None:
    """The last point of a curve that was measured by then; None before the first one."""
    measured = [point for point in points if point["cpu_seconds"] <= cpu_seconds]
    return measured[-1] if measured else None


def _pair(peer: Record, own: Record | None) -> list[str]:
    told = [f"{own['mean_dice']:.3f}", f"{own['cpu_seconds']:.0f}"] if own else ["", ""]
    return [f"{peer['cpu_seconds']:.0f}", f"{peer['mean_dice']:.3f}", *told]


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"
