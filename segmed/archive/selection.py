"""Which series of a DICOM study a model is given, by rules that explain what they chose and why.

```yaml
channels:
  - name: T1post
    modality: MR
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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import yaml
from pydantic import Field, PositiveFloat, PositiveInt, ValidationError, field_validator

from segmed.archive.study import Fault
from segmed.errors import UsageError
from segmed.geometry import Affine
from segmed.io.dicom.series import SeriesAudit
from segmed.structures import Frozen

MAX_RULES_BYTES = 1 << 18
"""Largest file of rules that is read."""

PLANES = ("sagittal", "coronal", "axial")
"""Plane of the slices, by the world axis (x, y, z) that their normal is nearest to."""


class ChannelRule(Frozen):
    """What one input channel wants of a series.

    Attributes:
        name: Name of the channel, for messages.
        modality: DICOM modality.
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
                raise ValueError(f"no regular expression: {error}") from error
        return value


class Rules(Frozen):
    """Rules for all channels of a model, in the model's order."""

    channels: Annotated[tuple[ChannelRule, ...], Field(min_length=1)]


@dataclass(frozen=True)
class Choice:
    """One study-to-be made of series.

    Attributes:
        audits: The series, one a channel.
        fault: Why they cannot be used, if so.
        left_out: Files of series that were not chosen, each with the reason.
    """

    audits: tuple[SeriesAudit, ...]
    fault: Fault | None = None
    left_out: tuple[tuple[Path, str], ...] = ()


def read_rules(path: Path) -> Rules:
    """Rules from a YAML file.

    Raises:
        UsageError: The file is missing or is none; the message names the field.
    """
    try:
        if path.stat().st_size > MAX_RULES_BYTES:
            raise UsageError(f"{path.name}: rules have at most {MAX_RULES_BYTES} bytes")
        return Rules.model_validate(yaml.safe_load(path.read_text(encoding="utf-8")))
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path.name}: no YAML file of rules: {type(error).__name__}") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise UsageError(f"{path.name}: field {where!r}: {first['msg']}") from error


def choose_series(
    audits: Sequence[SeriesAudit], rules: Rules | None, *, num_channels: int = 1
) -> Iterator[Choice]:
    """Choose among the image series of one DICOM study.

    Without rules every series is a study of its own for a model of one channel, and refused for
    a model of several. With rules the study gives one choice; a series that fits in every way but
    is unsound makes the study refused with that series' own reason rather than be passed over.

    Args:
        audits: The study's image series.
        rules: The rules, if any.
        num_channels: Input channels of the model.
    """
    if not audits:
        return
    if rules is None and num_channels == 1:
        for audit in audits:
            yield Choice((audit,), own_fault(audit))
    elif rules is None:
        message = (
            f"a model of {num_channels} channels needs rules that say which series is which; "
            "give a rules file"
        )
        yield Choice(tuple(audits), Fault("needs_rules", message))
    elif len(rules.channels) != num_channels:
        message = f"the rules name {len(rules.channels)} channels, the model has {num_channels}"
        yield Choice(tuple(audits), Fault("other_channels", message))
    else:
        yield _by_rules(audits, rules)


def own_fault(audit: SeriesAudit) -> Fault | None:
    """The fault of an unsound series; names of its files are left out of the message."""
    if audit.usable:
        return None
    message = audit.message
    for number, path in enumerate(audit.files, 1):
        message = message.replace(path.name, f"file {number} of {len(audit.files)}")
    return Fault(audit.reason or "unreadable", message, audit.offending)


def _by_rules(audits: Sequence[SeriesAudit], rules: Rules) -> Choice:
    chosen: list[SeriesAudit] = []
    for rule in rules.channels:
        misses = [_misfit(audit, rule) for audit in audits]
        fits = [audit for audit, miss in zip(audits, misses, strict=True) if miss is None]
        if not fits:
            told = "; ".join(f"series {n}: {miss}" for n, miss in enumerate(misses, 1))
            message = f"no series fits channel {rule.name} ({told})"
            return Choice(tuple(audits), Fault("no_series_fits", message))
        best = _preferred(fits, rule)
        if len(best) > 1:
            message = (
                f"{len(best)} series fit channel {rule.name} equally well; narrow its rule, "
                "or say what to prefer"
            )
            return Choice(tuple(audits), Fault("several_series_fit", message))
        fault = own_fault(best[0])
        if fault is not None:
            return Choice(tuple(audits), fault)
        chosen.append(best[0])
    others = (audit for audit in audits if audit not in chosen)
    left_out = tuple((path, "series not chosen by the rules") for a in others for path in a.files)
    return Choice(tuple(chosen), None, left_out)


def _misfit(audit: SeriesAudit, rule: ChannelRule) -> str | None:
    """Why a series does not fit a rule; free text is not quoted, since it may be personal.

    What an unsound series cannot tell (its spacing, say) is not held against it.
    """
    return _other_words(audit, rule) or _other_grid(audit, rule)


def _other_words(audit: SeriesAudit, rule: ChannelRule) -> str | None:
    """What a series says of itself that a rule does not want."""
    if rule.modality is not None and audit.modality != rule.modality:
        return f"modality {audit.modality or 'unknown'} instead of {rule.modality}"
    if rule.description is not None and not re.search(rule.description, audit.description, re.I):
        return "another description"
    if rule.body_part is not None and audit.body_part.upper() != rule.body_part.upper():
        return f"another body part than {rule.body_part}"
    if rule.contrast is not None and audit.has_contrast != rule.contrast:
        return "no contrast agent" if rule.contrast else "a contrast agent"
    return None


def _other_grid(audit: SeriesAudit, rule: ChannelRule) -> str | None:
    """What of the grid of a series a rule does not want."""
    plane = None if audit.affine_ras is None else plane_of(audit.affine_ras)
    if rule.orientation is not None and plane not in {None, rule.orientation}:
        return f"slices {plane} instead of {rule.orientation}"
    coarsest = max(audit.spacing_mm, default=0.0)
    if rule.max_spacing_mm is not None and coarsest > rule.max_spacing_mm:
        return f"voxel edge {coarsest:.3g} mm over {rule.max_spacing_mm:.3g} mm"
    slices = audit.shape[-1] if audit.shape else 0
    if rule.min_slices is not None and slices < rule.min_slices:
        return f"{slices} slices, fewer than {rule.min_slices}"
    return None


def _preferred(fits: Sequence[SeriesAudit], rule: ChannelRule) -> list[SeriesAudit]:
    """The best of several that fit: sound ones before unsound ones, then by preference."""
    sound = [audit for audit in fits if audit.usable] or list(fits)
    if rule.prefer is None or len(sound) == 1:
        return sound

    def merit(audit: SeriesAudit) -> float:
        if rule.prefer == "most_slices":
            return float(audit.shape[-1]) if audit.shape else 0.0
        return -float(np.prod(audit.spacing_mm)) if audit.spacing_mm else float("-inf")

    best = max(map(merit, sound))
    return [audit for audit in sound if merit(audit) == best]


def plane_of(affine_ras: Affine) -> str:
    """Plane of the slices of a volume whose third index axis walks from slice to slice."""
    return PLANES[int(np.argmax(np.abs(affine_ras[:3, 2])))]
