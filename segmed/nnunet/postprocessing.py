"""Postprocessing that nnU-Net found on its cross-validation: read from `postprocessing.json`.

The file beside it, `postprocessing.pkl`, is code, and is never opened.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segmed.errors import PackageError

KNOWN = "remove_all_but_largest_component_from_segmentation"
"""The one function that nnU-Net chooses among its postprocessing."""

Groups = tuple[tuple[int, ...], ...]
"""Label values of each step, of which only the largest component together is kept."""


def folder_of(folds: Sequence[str]) -> str:
    """Name of the folder that nnU-Net writes for an ensemble of these folds."""
    return f"crossval_results_folds_{'_'.join(sorted(folds))}"


def read_steps(content: Mapping[str, Any], place: str) -> Groups:
    """Steps of a `postprocessing.json`, in order.

    Args:
        content: The file.
        place: Its place, for messages.

    Raises:
        PackageError: A step is another function, or the file has another form.
    """
    try:
        functions = [str(name) for name in content["postprocessing_fns"]]
        options = [dict(one) for one in content["postprocessing_kwargs"]]
        return tuple(_step(*pair, place) for pair in zip(functions, options, strict=True))
    except (KeyError, TypeError, ValueError) as error:
        raise PackageError(f"{place} is not a postprocessing of nnU-Net: {error}") from error


def _step(function: str, options: Mapping[str, Any], place: str) -> tuple[int, ...]:
    if function != KNOWN or options.get("background_label", 0) != 0:
        raise PackageError(
            f"{place} has the step {function} with {dict(options)}; known is {KNOWN} onto the "
            "background: give --no-postprocessing"
        )
    given = options["labels_or_regions"]
    values: set[int] = set()
    for one in given if isinstance(given, list) else [given]:
        values |= {int(value) for value in one} if isinstance(one, list) else {int(one)}
    if not values or min(values) < 1:
        raise ValueError(f"label values {sorted(values)}")
    return tuple(sorted(values))
