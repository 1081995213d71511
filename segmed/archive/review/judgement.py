"""The judgement of a study: the last opinion of each reviewer, and where they agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from segmed.archive.review.store import Opinion

JudgedState = Literal["open", "accepted", "rejected", "disputed"]


@dataclass(frozen=True)
class Judgement:
    """Judgement of one study.

    Attributes:
        state: `open` without a verdict; `accepted`: all that accept, accept one label map, and
            nobody rejects it; `rejected`: nobody accepts any; `disputed`: anything else.
        correction: Number of the accepted correction; None for the model's own result.
        authors: Whose verdicts count.
        why: The dispute in one line; else empty.
    """

    state: JudgedState
    correction: int | None = None
    authors: tuple[str, ...] = ()
    why: str = ""


def last_opinions(opinions: Iterable[Opinion]) -> list[Opinion]:
    """The last verdict of each reviewer, in the order in which they were given."""
    last: dict[str, Opinion] = {}
    for opinion in sorted(opinions, key=lambda one: one.id):
        if opinion.verdict:
            last[opinion.author] = opinion
    return sorted(last.values(), key=lambda one: one.id)


def judge_study(opinions: Iterable[Opinion]) -> Judgement:
    """Judgement of a study from all opinions on it."""
    last = last_opinions(opinions)
    if not last:
        return Judgement("open")
    authors = tuple(opinion.author for opinion in last)
    accepted = {one.correction for one in last if one.verdict == "accepted"}
    rejected = {one.correction for one in last if one.verdict == "rejected"}
    if not accepted:
        return Judgement("rejected", authors=authors)
    if len(accepted) > 1 or accepted & rejected:
        return Judgement("disputed", authors=authors, why=_dispute(last))
    return Judgement("accepted", next(iter(accepted)), authors)


def _dispute(last: Sequence[Opinion]) -> str:
    return "; ".join(f"{one.author} {one.verdict} {label_words(one.correction)}" for one in last)


def label_words(correction: int | None) -> str:
    """Name of a label map in messages."""
    return "the model's result" if correction is None else f"correction {correction}"
