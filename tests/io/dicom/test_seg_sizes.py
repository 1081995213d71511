"""A study of 512 x 512 x 600 with 20 structures: memory is bounded, sizes are those of the docs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import seg_sizes

DOCS = Path(__file__).resolve().parents[3] / "docs" / "results.md"
MOST_GROWN = 1.7e9
"""Bytes by which writing may grow the memory; all probabilities as float32 would be 12.6e9."""


def documented() -> dict[str, tuple[int, float]]:
    """Frames and size in MB of each form, from the table of the docs."""
    rows = [line.strip("| ").split(" | ") for line in DOCS.read_text(encoding="utf-8").splitlines()]
    return {
        row[0].strip("`").replace(" --", "-"): (int(row[1]), float(row[2].split()[0]))
        for row in rows
        if len(row) == 5 and row[2].endswith(" MB")
    }


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_large_study_is_written_in_bounded_memory(tmp_path: Path) -> None:
    series = tmp_path / "series"
    seg_sizes.write_study(series)
    expected = documented()
    assert set(expected) == set(seg_sizes.FORMS)
    for name, (frames, megabytes) in expected.items():
        out = tmp_path / "seg.dcm"
        words = [sys.executable, str(Path(seg_sizes.__file__)), str(series), name, str(out)]
        done = subprocess.run(words, check=True, capture_output=True, text=True, encoding="utf-8")
        size, found, _, grown = done.stdout.split()
        assert int(found) == frames
        assert int(size) == pytest.approx(megabytes * 1e6, rel=0.01)
        assert int(grown) < MOST_GROWN, name
        out.unlink()
