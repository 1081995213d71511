"""Several models of one run: averaged to one output, an output of each, or one joined label map."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pipelines.registry.reference import short_name
from segmed.archive.watch.rules import SEVERAL, Several
from segmed.errors import UsageError, unknown_name
from segmed.formats import SegForm

if TYPE_CHECKING:
    from segmed.inference.joined import Joining

__all__ = ["SEVERAL", "Several", "check_several", "folder_names", "joining_of", "several_named"]


def several_named(several: str) -> Several:
    """Return a use of several models that is known.

    Raises:
        UsageError: It is unknown.
    """
    if several not in SEVERAL:
        raise unknown_name("use of several models", several, SEVERAL)
    return several


def check_several(
    several: str, models: Sequence[str], seg: SegForm, same_names: str | None = None
) -> None:
    """Refuse a use of several models that cannot work.

    Args:
        several: The use.
        models: Model references.
        seg: Form of DICOM segmentations.
        same_names: Rule of structures that have one name in two models, if given.

    Raises:
        UsageError: It is unknown, or a joined label map is of one model or has probabilities, or
            a rule of names is given for another use.
    """
    several_named(several)
    if several == "joined" and seg.kind == "fractional":
        raise UsageError(
            "joined models have no common probabilities: choose --seg binary or labelmap, or "
            "--several each"
        )
    if several != "joined" and same_names is not None:
        raise UsageError(
            f"--same-names {same_names} is about models with one joined label map: add --several "
            "joined"
        )
    joining_of(several, models, same_names)


def joining_of(several: str, models: Sequence[str], same_names: str | None) -> Joining | None:
    """The rule of a joined label map, models in the order of their priority; None for other uses.

    Args:
        several: Use of several models.
        models: Model references.
        same_names: Rule of structures that have one name in two models; None refuses them.

    Raises:
        UsageError: There is one model, a model is named twice, or the rule of names is unknown.
    """
    if several != "joined":
        return None
    from segmed.inference.joined import Joining  # noqa: PLC0415 - loads PyTorch

    names = tuple(folder_names(models).values())
    return Joining(names, same_names or "refuse")  # type: ignore[arg-type]  # checked by itself


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
