"""The table of plans is that of today's planner, and near what nnU-Net publishes."""

from __future__ import annotations

import sys

import pytest
from documentation import REPOSITORY

sys.path.append(str(REPOSITORY / "docs"))

from make_plans import (
    HEAD,
    MEMORIES_GB,
    OTHERS_GB,
    OTHERS_HEAD,
    SETS,
    TARGET,
    others_row,
    page,
    row,
)

from segmed.plan.networks import Size

MADE = "run `python docs/make_plans.py` and commit the result"
FAST: tuple[tuple[str, Size, float], ...] = (("lits", "full", 11), ("hippocampus", "full", 8))


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_page_has_a_row_for_each_set_size_and_memory() -> None:
    text = TARGET.read_text(encoding="utf-8")
    assert text.startswith(HEAD), MADE
    first, second = text.split(OTHERS_HEAD)
    rows = [line for line in first.splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(SETS) * sum(map(len, MEMORIES_GB.values())), MADE
    assert len(second.splitlines()) == len(SETS) * len(OTHERS_GB), MADE


@pytest.mark.parametrize("case", FAST)
def test_rows_are_todays(case: tuple[str, Size, float]) -> None:
    assert row(*case) in TARGET.read_text(encoding="utf-8").splitlines(), MADE


def test_a_row_of_the_other_architectures_is_todays() -> None:
    assert others_row("lits", 11) in TARGET.read_text(encoding="utf-8").splitlines(), MADE


def test_no_architecture_has_a_quarter_of_its_widths() -> None:
    """8 features at the finest level were planned for 24 GB once."""
    second = TARGET.read_text(encoding="utf-8").split(OTHERS_HEAD)[1]
    for line in second.splitlines():
        memory, *others = cells(line)[1:]
        for other in others:
            features, need = other.split(":")
            assert int(features.split(",")[0]) >= 16, line
            assert float(need) <= float(memory), line


@pytest.mark.slow
def test_all_rows_are_todays() -> None:
    assert TARGET.read_text(encoding="utf-8") == page(), MADE


def test_plans_of_full_networks_are_near_those_of_nnunet() -> None:
    rows = [cells(line) for line in TARGET.read_text(encoding="utf-8").splitlines()]
    plans = {tuple(row[:3]): row[3:] for row in rows if len(row) > 6}
    assert plans["LiTS", "`full`", "11"][1:5] == ["128x128x128", "2", "6", "32 to 320"]
    assert plans["Hippocampus", "`full`", "8"][1] == "40x56x40"
    for title in ("LiTS", "KiTS23", "BraTS", "AMOS"):
        for memory in ("8", "11", "24", "80"):
            _, patch, batch, levels, features, need, _, share = plans[title, "`full`", memory]
            assert int(levels) in ((5, 6) if memory == "8" else (6,))
            assert features == "32 to 320"
            assert int(batch) >= 2
            assert 0.6 * float(memory) < float(need) <= float(memory), (title, memory, patch)
            assert 0.4 < float(share) < 1.1, (title, memory, patch)
