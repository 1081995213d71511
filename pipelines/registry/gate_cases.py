"""Cases on which the gate decides: test cases that neither model has seen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pipelines.registry.reference import CHALLENGER
from segmed.errors import UsageError
from segmed.manifest import Case, Manifest
from segmed.package import ModelPackage
from segmed.package.training_cases import CORRECTIONS, image_mark, seen_by

MOST_NAMED = 12
"""Corrections that a line of the evidence names."""


@dataclass(frozen=True)
class GateCases:
    """Test cases of an evaluation set that decide, and those that do not.

    Attributes:
        cases: Test cases that neither model has seen.
        seen: Number of test cases that each model has seen, by its alias; those do not decide.
        unknown: Aliases of the models that do not record their images, as those of segmed 0.1 and
            of other programs do not.
        trained: Ids of the accepted corrections that the challenger was trained on.
        deciding: Ids of the accepted corrections among the cases that decide.
    """

    cases: tuple[Case, ...]
    seen: dict[str, int]
    unknown: tuple[str, ...]
    trained: tuple[str, ...]
    deciding: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """Plain values, for JSON; cases without a correction are not named."""
        return {
            "deciding_cases": len(self.cases),
            "seen_cases_left_out": self.seen,
            "images_not_recorded_by": list(self.unknown),
            "corrections_trained_on": list(self.trained),
            "corrections_deciding": list(self.deciding),
        }

    def lines(self) -> list[str]:
        """The same in sentences."""
        found = [
            f"left out: {number} test case{'s'[: number > 1]} that the {who} has seen in training"
            for who, number in self.seen.items()
            if number
        ]
        found += [
            f"the {who} does not record the images of its training: it may have seen some of the "
            "cases"
            for who in self.unknown
        ]
        if not found:
            found = [f"neither model has seen any of the {len(self.cases)} cases"]
        if self.trained:
            found.append(f"the challenger was trained on {_named(self.trained)}")
        if self.deciding:
            found.append(f"the cases include {_named(self.deciding)}")
        return found


def gate_cases(manifest: Manifest, packages: Mapping[str, ModelPackage]) -> GateCases:
    """Test cases of a manifest that none of the models has seen.

    Args:
        manifest: The evaluation set.
        packages: The models, by their aliases.

    Raises:
        UsageError: There is no labelled test case, or none that neither model has seen.
    """
    if not manifest.test or any(case.label is None for case in manifest.test):
        raise UsageError(
            f"{manifest.name!r} has no labelled test cases; the gate compares on those"
        )
    marks = {case.id: image_mark(manifest, case) for case in manifest.test}
    known = {who: seen_by(package) for who, package in packages.items()}
    seen = {who: found or frozenset() for who, found in known.items()}
    counts = {who: sum(mark in seen[who] for mark in marks.values()) for who in seen}
    cases = tuple(
        case
        for case in manifest.test
        if not any(marks[case.id] in found for found in seen.values())
    )
    if not cases:
        words = ", ".join(f"{number} by the {who}" for who, number in counts.items() if number)
        raise UsageError(
            f"all {len(marks)} test cases of {manifest.name!r} were seen in training ({words}): "
            "the gate needs cases that neither model has seen"
        )
    trained = packages[CHALLENGER].provenance.get(CORRECTIONS, ())
    return GateCases(
        cases=cases,
        seen=counts,
        unknown=tuple(who for who, found in known.items() if found is None),
        trained=tuple(map(str, trained)),
        deciding=tuple(case.id for case in cases if case.correction is not None),
    )


def _named(ids: tuple[str, ...]) -> str:
    noun = "accepted correction" if len(ids) == 1 else "accepted corrections"
    more = f" and {len(ids) - MOST_NAMED} more" if len(ids) > MOST_NAMED else ""
    return f"{len(ids)} {noun}: {', '.join(ids[:MOST_NAMED])}{more}"
