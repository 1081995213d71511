"""Rules by which the series of a DICOM study become the channels of a model.

```yaml
channels:
  - name: T1post
    modality: MR
    words: [t1, post]           # words of SeriesDescription, in any order
    without: [flair]            # words that it must not have
    description: "t1.*post"     # regular expression, case does not matter
    orientation: axial          # plane of the slices: axial, coronal, sagittal
    body_part: BRAIN            # BodyPartExamined
    contrast: true              # whether ContrastBolusAgent names one
    max_spacing_mm: 7.0         # largest voxel edge
    min_slices: 10
    prefer: most_slices         # among several that fit: most_slices or finest_spacing
```
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from segmed.errors import PackageError, UsageError
from segmed.naming.words import plain
from segmed.structures import Channel, Frozen
from segmed.validation import first_fault

if TYPE_CHECKING:  # a package needs torch, rules do not
    from segmed.package.model_package import ModelPackage

MAX_RULES_BYTES = 1 << 18
"""Largest file of rules that is read."""

SERIES_RULES = "series_rules"
"""Key of a package's provenance that has its rules."""

TOKEN = re.compile(r"[a-z]+\d*|\d+")
NOISE = {"w", "weighted"}
"""Words that distinguish no two channels: T1 is T1w."""


class ChannelRule(Frozen):
    """Conditions on the DICOM series of one input channel.

    Attributes:
        name: Name of the channel, for messages.
        modality: DICOM modality.
        words: Words that SeriesDescription must have, in any order; see `tokens_of`.
        without: Words that it must not have.
        description: Regular expression searched in SeriesDescription, whatever the case.
        orientation: Plane of the slices.
        body_part: BodyPartExamined, whatever the case.
        contrast: Whether a contrast agent must, or must not, be named.
        max_spacing_mm: Largest voxel edge along any axis, in mm.
        min_slices: Fewest slices.
        prefer: What decides among several that fit; without it they are a tie, and refused.
    """

    name: str
    modality: str | None = None
    words: tuple[str, ...] = ()
    without: tuple[str, ...] = ()
    description: str | None = None
    orientation: Literal["axial", "coronal", "sagittal"] | None = None
    body_part: str | None = None
    contrast: bool | None = None
    max_spacing_mm: PositiveFloat | None = None
    min_slices: PositiveInt | None = None
    prefer: Literal["most_slices", "finest_spacing"] | None = None

    @field_validator("description")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        if value is not None:
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"not a regular expression: {error}") from error
        return value


class Rules(Frozen):
    """Rules for all channels of a model, in the model's order."""

    channels: Annotated[tuple[ChannelRule, ...], Field(min_length=1)]


def tokens_of(text: str) -> tuple[str, ...]:
    """Words of a name or description in lower case: `T1post` and `t1 post` are t1, post."""
    found = TOKEN.findall(plain(text).casefold())
    return tuple(word for word in dict.fromkeys(found) if word not in NOISE)


def rules_of(channels: Sequence[Channel]) -> Rules:
    """The rules that the names of a plan's channels make.

    A series fits a channel if its description has all words of the channel's name, and no word that
    only another channel's name has. Of several series that fit none is taken.
    """
    words = [tokens_of(channel.name) for channel in channels]
    every = dict.fromkeys(word for own in words for word in own)
    return Rules(
        channels=tuple(
            ChannelRule(
                name=channel.name,
                modality=None if channel.modality == "OT" else channel.modality,
                words=own,
                without=tuple(word for word in every if word not in own),
            )
            for channel, own in zip(channels, words, strict=True)
        )
    )


def stored_rules(channels: Sequence[Channel]) -> dict[str, Any]:
    """Return the channel rules of a multi-channel package, under their provenance key."""
    if len(channels) < 2:
        return {}
    return {SERIES_RULES: rules_of(channels).model_dump(mode="json", exclude_defaults=True)}


def rules_in(package: ModelPackage) -> Rules | None:
    """The rules of a package of several channels: those it keeps, else those of its plan's names.

    Raises:
        PackageError: Its rules are invalid.
    """
    if package.plan.in_channels == 1:
        return None
    kept = package.provenance.get(SERIES_RULES)
    if kept is None:
        return rules_of(package.plan.channels)
    try:
        return Rules.model_validate(kept)
    except ValidationError as error:
        raise PackageError(f"series rules of the package: {first_fault(error)}") from error


def read_rules(path: Path) -> Rules:
    """Rules from a YAML file.

    Raises:
        UsageError: The file is missing or invalid; the message names the field.
    """
    try:
        if path.stat().st_size > MAX_RULES_BYTES:
            raise UsageError(f"{path.name}: rules have at most {MAX_RULES_BYTES} bytes")
        return Rules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path.name}: no YAML file of rules: {type(error).__name__}") from error
    except ValidationError as error:
        raise UsageError(f"{path.name}: {first_fault(error)}") from error
