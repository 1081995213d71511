"""Several models of one run: averaged to one output, or an output of each."""

from __future__ import annotations

import re
from collections.abc import Sequence

from pipelines.registry.reference import short_name
from segmed.archive.watch.rules import SEVERAL, Several
from segmed.errors import UsageError, unknown_name

__all__ = ["SEVERAL", "Several", "check_several", "folder_names"]


def check_several(several: str) -> None:
    """Refuse an unknown use of several models.

    Raises:
        UsageError: It is neither `ensemble` nor `each`.
    """
    if several not in SEVERAL:
        raise unknown_name("use of several models", several, SEVERAL)


def folder_names(models: Sequence[str]) -> dict[str, str]:
    """A folder for each of several models that give an output each.

    A name is that of the model, so that it stays when others are added behind it.

    Args:
        models: Model references.

    Raises:
        UsageError: A model is named twice.
    """
    names: dict[str, str] = {}
    for model in models:
        if model in names:
            raise UsageError(f"model {model} is named twice; name each once")
        plain = short_name(model).removesuffix(".zip")
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain).strip("-.") or "model"
        taken = {other.casefold() for other in names.values()}
        number = 2
        while (own := name if number == 2 else f"{name}-{number - 1}").casefold() in taken:
            number += 1
        names[model] = own
    return names
