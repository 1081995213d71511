"""Channels that all cases of a set have, and what is dropped for that."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segmed.errors import ManifestError

NAMED_CASES = 3
"""Cases that a remark names at most."""


@dataclass(frozen=True)
class Agreement:
    """Channels and cases that remain.

    Attributes:
        channels: Channels in order; every remaining case has them all.
        cases: The cases that remain.
        remarks: What was dropped and why, one line each.
    """

    channels: tuple[str, ...]
    cases: tuple[str, ...]
    remarks: tuple[str, ...]


def agree_on_channels(
    found: Mapping[str, Sequence[str]],
    *,
    order: Sequence[str] = (),
    require: Sequence[str] = (),
    unit: str = "case",
) -> Agreement:
    """The channels that all cases have.

    A channel that some cases lack is dropped, unless it is required: then these cases are.

    Args:
        found: Channels of each case.
        order: The channels wanted, in order; all that occur, as they occur, if empty.
        require: Channels that every case must have.
        unit: Word for a case in remarks, such as `session`.

    Raises:
        ManifestError: A channel that is named occurs nowhere, one of `order` is not in all cases
            and not required, or nothing remains.
    """
    known = list(dict.fromkeys(name for names in found.values() for name in names))
    for name in (*order, *require):
        if name not in known:
            raise ManifestError(
                f"channel {name!r} was found nowhere: found are {', '.join(known) or 'none'}"
            )
    wanted = list(order) or known
    wanted += [name for name in require if name not in wanted]
    remarks = [f"{name} dropped: not among --channels" for name in known if name not in wanted]
    cases = list(found)
    for name in require:
        lacking = [case for case in cases if name not in found[case]]
        if lacking:
            remarks.append(
                f"{_number(lacking, unit)} dropped ({_named(lacking)}): without {name}, "
                "which is required"
            )
            cases = [case for case in cases if case not in set(lacking)]
    channels = []
    for name in wanted:
        lacking = [case for case in cases if name not in found[case]]
        if not lacking:
            channels.append(name)
            continue
        missing = f"missing in {len(lacking)} of {len(cases)} {unit}s ({_named(lacking)})"
        dropping = f"drop the {unit}{'s' if len(lacking) > 1 else ''} with --require {name}"
        if name in order:
            raise ManifestError(
                f"{name} is {missing}: leave it out of --channels, or keep it and {dropping}"
            )
        remarks.append(f"{name} dropped: {missing}; keep it and {dropping}")
    if not channels or not cases:
        raise ManifestError(
            f"the {len(found)} {unit}s have no channel in common: {'; '.join(remarks)}"
        )
    return Agreement(tuple(channels), tuple(cases), tuple(remarks))


def _number(cases: Sequence[str], unit: str) -> str:
    return f"{len(cases)} {unit}{'s' if len(cases) > 1 else ''}"


def _named(cases: Sequence[str]) -> str:
    more = ", ..." if len(cases) > NAMED_CASES else ""
    return ", ".join(cases[:NAMED_CASES]) + more
