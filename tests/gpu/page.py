"""Page of the recorded checks on a GPU, `docs/measured-gpu.md`; run `python -m tests.gpu.page`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
RESULTS = REPOSITORY / "tests" / "benchmarks" / "results" / "gpu"
PAGE = REPOSITORY / "docs" / "measured-gpu.md"

HEAD = """# Measured on a GPU

Made from the JSON files in `tests/benchmarks/results/gpu` by `python -m tests.gpu.page`; `make gpu`
measures anew and writes `gpu-check.json`. Times are medians of calls that were waited for. "Bare
forward and backward" is the network alone, in the same arithmetic and the same run.

The record named `first` is of the code before it had run on any GPU, by an earlier form of the
check. Its rows "labels changed" of untrained networks are wrong: that check moved the weights to
the CPU and back between a graph's capture and its replays, so that graphs read freed memory. The
engine now owns a copy of the weights, and compares each graph with the uncaptured network first.

Time to Dice on hippocampus (fold 0, full-width U-Net, batch 7): validation Dice is highest after 35
to 45 s (0.872) and falls afterwards (0.858 after 110 s): with 208 training cases the network
overfits; the speed of the step no longer decides, augmentation and averaging do.

Not measured yet, as no GPU was available since: gathering and shading a batch moves 5 instead of 18
GB at two patches of 128 cubed (counted on a CPU, `tests/training/test_memory_traffic.py`). At the
4.8 TB/s of an H200 that is up to 2.7 of the 4.4 ms that the whole step took beside its bare passes.
"""


def page() -> str:
    """The whole page, newest record first."""
    records = sorted(RESULTS.glob("*.json"), reverse=True)
    return HEAD + "".join(section(path) for path in records)


def section(path: Path) -> str:
    """One record as a table."""
    record: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    rows = "".join(
        f"| {name} | {_shown(value)} |\n"
        for name, value in record["found"].items()
        if isinstance(value, int | float | str | list)
    )
    failed = ", ".join(record["failed"]) or "none"
    head = f"\n## {path.stem}\n\nFailed parts or limits: {failed}.\n\n"
    return f"{head}| what | figure |\n|---|---|\n{rows}"


def _shown(value: float | str | list[list[float]]) -> str:
    if isinstance(value, list):
        return ", ".join(f"{dice} after {seconds} s" for seconds, _, dice in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value).replace("|", "/")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
