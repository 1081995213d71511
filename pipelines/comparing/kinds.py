"""Kinds of plans that a comparison may have side by side: dimensions, or stages of a cascade."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from segmed.errors import UsageError

Kind = Literal["2d", "3d", "fullres", "lowres", "cascade"]
"""Dimensions of a plan, or its stage of a cascade; see `segmed.plan.stages`."""

DIMENSIONS: dict[str, Kind] = {"2": "2d", "3": "3d"}
"""Kinds by the names of `--dims`."""

STAGES: tuple[Kind, ...] = ("fullres", "lowres", "cascade")
"""Kinds of a comparison with a cascade, of which the first may be missing."""

FIRST_STAGE: Kind = "lowres"
"""Kind of the model whose label maps a cascade refines."""


def kinds_of_dims(text: str) -> tuple[Kind, ...]:
    """The kinds that `--dims` names, such as `2,3`.

    Raises:
        UsageError: Others than 2 and 3 are named.
    """
    names = list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if not names or not set(names) <= set(DIMENSIONS):
        raise UsageError(f"--dims {text!r}: give 2, 3 or 2,3")
    return tuple(DIMENSIONS[name] for name in names)


def plan_of_kind(plan_path: Path, kind: Kind | None) -> Path:
    """The plan of a kind beside the place of a comparison's one plan."""
    return plan_path if kind is None else plan_path.parent / f"plan-{kind}.yaml"


def wishes_of(kind: Kind | None) -> dict[str, Any]:
    """Arguments by which `plan_of_cases` makes a plan of a kind."""
    if kind in STAGES:
        return {"stage": kind}
    return {"spatial_dims": None if kind is None else int(kind[0])}


def planned_stages(plan_path: Path) -> tuple[Kind, ...]:
    """Stages of a cascade whose plans are there; none before they are made.

    Args:
        plan_path: Place of the comparison's one plan.
    """
    found = tuple(kind for kind in STAGES if plan_of_kind(plan_path, kind).exists())
    return found if set(STAGES[1:]) <= set(found) else ()
