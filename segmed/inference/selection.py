"""Selection of the DICOM series of each channel, by rules that state their reasons."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from segmed.geometry import Affine
from segmed.inference.fault import InputFault
from segmed.io.dicom.series import SeriesAudit
from segmed.naming import has_mask_words
from segmed.package.series_rules import ChannelRule, Rules, tokens_of

PLANES = ("sagittal", "coronal", "axial")
"""Plane of the slices, by the world axis (x, y, z) that their normal is nearest to."""


EVERY_SERIES = "a model of one channel takes every image series"
"""Why a series is segmented where no rules choose."""


@dataclass(frozen=True)
class Choice:
    """One study-to-be made of series.

    Attributes:
        audits: The series, one a channel.
        fault: Why they cannot be used, if so.
        left_out: Files of series that were not chosen, each with the reason.
        because: Why each of the series was chosen; empty where there is a fault.
    """

    audits: tuple[SeriesAudit, ...]
    fault: InputFault | None = None
    left_out: tuple[tuple[Path, str], ...] = ()
    because: tuple[str, ...] = ()


def choose_series(
    audits: Sequence[SeriesAudit], rules: Rules | None, *, num_channels: int = 1
) -> Iterator[Choice]:
    """Choose among the image series of one DICOM study.

    Planes are images of their own. Without rules every series is a study of its own for a model of
    one channel, and refused for a model of several. With rules the study gives one choice; a series
    that fits in every way but is unsound makes the study refused with that series' own reason
    rather than be passed over.

    Args:
        audits: The study's image series.
        rules: The rules, if any.
        num_channels: Input channels of the model.
    """
    for plane in (audit for audit in audits if audit.is_plane):  # one has all its channels
        fault = mask_fault(plane)
        yield Choice((plane,), fault, because=() if fault else (EVERY_SERIES,))
    audits = [audit for audit in audits if not audit.is_plane]
    if not audits:
        return
    if rules is None and num_channels == 1:
        for audit in audits:
            fault = own_fault(audit) or mask_fault(audit)
            yield Choice((audit,), fault, because=() if fault else (EVERY_SERIES,))
    elif rules is None:
        message = (
            f"a model of {num_channels} channels needs rules that say which series is which; "
            "give a rules file"
        )
        yield Choice(tuple(audits), InputFault("needs_rules", message))
    elif len(rules.channels) != num_channels:
        message = f"the rules name {len(rules.channels)} channels, the model has {num_channels}"
        yield Choice(tuple(audits), InputFault("other_channels", message))
    else:
        yield _by_rules(audits, rules)


def own_fault(audit: SeriesAudit) -> InputFault | None:
    """The fault of an unsound series; names of its files are left out of the message."""
    if audit.usable:
        return None
    message = audit.message
    for number, path in enumerate(audit.files, 1):
        message = message.replace(path.name, f"file {number} of {len(audit.files)}")
    return InputFault(audit.reason or "unreadable", message, audit.offending)


def mask_fault(audit: SeriesAudit) -> InputFault | None:
    """The fault of a series whose description calls it a mask: it is a result, no input."""
    if not has_mask_words(audit.description):
        return None
    message = "described as a mask, no image to segment; if it is one, rename it"
    return InputFault("mask", message)


def _by_rules(audits: Sequence[SeriesAudit], rules: Rules) -> Choice:
    chosen: list[SeriesAudit] = []
    because: list[str] = []
    for rule in rules.channels:
        misses = [_misfit(audit, rule) for audit in audits]
        fits = [audit for audit, miss in zip(audits, misses, strict=True) if miss is None]
        if not fits:
            reasons = "; ".join(f"series {n}: {miss}" for n, miss in enumerate(misses, 1))
            message = f"no series fits channel {rule.name} ({reasons})"
            return Choice(tuple(audits), InputFault("no_series_fits", message))
        best = _preferred(fits, rule)
        if len(best) > 1:
            message = (
                f"{len(best)} series fit channel {rule.name} equally well; narrow its rule, "
                "or say what to prefer"
            )
            return Choice(tuple(audits), InputFault("several_series_fit", message))
        fault = own_fault(best[0])
        if fault is not None:
            return Choice(tuple(audits), fault)
        chosen.append(best[0])
        because.append(_why_chosen(rule, len(fits)))
    others = [audit for audit in audits if audit not in chosen]
    left_out = tuple((path, _why_not(a, rules)) for a in others for path in a.files)
    return Choice(tuple(chosen), None, left_out, tuple(because))


def _why_chosen(rule: ChannelRule, fitting: int) -> str:
    """A rule in words: what the series of a channel has."""
    contrast = "a contrast agent" if rule.contrast else "no contrast agent"
    limits = (
        (rule.modality, f"modality {rule.modality}"),
        (rule.words, f"a description with {' '.join(rule.words)}"),
        (rule.without, f"none with {' or '.join(rule.without)}"),
        (rule.description, "the requested description"),
        (rule.body_part, f"body part {rule.body_part}"),
        (rule.orientation, f"{rule.orientation} slices"),
        (rule.contrast is not None, contrast),
        (rule.max_spacing_mm, f"voxel edges up to {rule.max_spacing_mm} mm"),
        (rule.min_slices, f"at least {rule.min_slices} slices"),
        (fitting > 1, f"preferred of {fitting} that fit: {rule.prefer or 'the sound one'}"),
    )
    found = ", ".join(text for is_asked, text in limits if is_asked)
    return f"channel {rule.name}: {found or 'any image series'}"


def _why_not(audit: SeriesAudit, rules: Rules) -> str:
    """Describe why no channel takes a series."""
    misses = {rule.name: _misfit(audit, rule) for rule in rules.channels}
    reasons = "; ".join(
        f"{name}: {miss or 'another is preferred'}" for name, miss in misses.items()
    )
    return f"series not chosen by the rules ({reasons})"


def _misfit(audit: SeriesAudit, rule: ChannelRule) -> str | None:
    """Return why a series does not fit a rule; free text is not quoted, since it may be personal.

    Unknown values of an unsound series (its spacing, say) do not count as a mismatch.
    """
    return _other_words(audit, rule) or _other_grid(audit, rule)


def _other_words(audit: SeriesAudit, rule: ChannelRule) -> str | None:
    """Return the header words of a series that contradict a rule."""
    if rule.modality is not None and audit.modality != rule.modality:
        return f"modality {audit.modality or 'unknown'} instead of {rule.modality}"
    if rule.description is not None and not re.search(rule.description, audit.description, re.I):
        return "another description"
    if rule.description is None and has_mask_words(audit.description):
        return "described as a mask"
    words = set(tokens_of(audit.description))
    if not set(rule.words) <= words:
        return f"a description without {' '.join(rule.words)}"
    if words & set(rule.without):
        return f"a description with {' '.join(sorted(words & set(rule.without)))}"
    if rule.body_part is not None and audit.body_part.upper() != rule.body_part.upper():
        return f"another body part than {rule.body_part}"
    if rule.contrast is not None and audit.has_contrast != rule.contrast:
        return "no contrast agent" if rule.contrast else "a contrast agent"
    return None


def _other_grid(audit: SeriesAudit, rule: ChannelRule) -> str | None:
    """Return the property of a series' grid that contradicts a rule."""
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
    """The best of several that fit: valid ones before invalid ones, then by preference."""
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
