"""Cases that a package was trained on, and those that it may be scored on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segmed.errors import UsageError
from segmed.io.digest import sha256_of_json
from segmed.manifest import data_hash
from segmed.manifest.content import image_digest
from segmed.manifest.schema import Case, Manifest
from segmed.package.model_package import ModelPackage

SEEN = "seen_images"
"""Key of a package's provenance: marks of the images that trained or chose it, in order."""

CORRECTIONS = "corrections"
"""Key of a package's provenance: ids of the accepted corrections among them."""

MARK_DIGITS = 16
"""Hex digits of a mark: 64 bits, with which a million images have no two alike by chance."""


def image_mark(manifest: Manifest, case: Case) -> str:
    """Begin of the SHA-256 of the images of a case, without its label, name and place."""
    digests = [case.sha256.get(name) or image_digest(manifest.root / name) for name in case.image]
    return sha256_of_json(digests)[:MARK_DIGITS]


def seen_record(manifest: Manifest) -> dict[str, list[str]]:
    """Provenance of a training: the images of all folds, and the corrections among them.

    A held-out fold counts as seen: its scores choose epoch, architecture and post-processing.

    Args:
        manifest: The image set that was trained on.
    """
    corrections = sorted(case.id for case in manifest.training if case.correction is not None)
    return {
        SEEN: sorted(image_mark(manifest, case) for case in manifest.training),
        **({CORRECTIONS: corrections} if corrections else {}),
    }


def seen_by(package: ModelPackage) -> frozenset[str] | None:
    """Marks of the images that a package has seen; None if it does not record them."""
    marks = package.provenance.get(SEEN)
    return None if marks is None else frozenset(map(str, marks))


def require_unseen(
    packages: Sequence[ModelPackage], manifest: Manifest, cases: Sequence[Case]
) -> None:
    """Refuse cases whose images trained or chose a model, whatever set and name they have now.

    Args:
        packages: The packages of one model; those that record no images refuse none.
        manifest: The image set of the cases.
        cases: The cases.

    Raises:
        UsageError: There is one; the first is named.
    """
    known = frozenset().union(*(seen_by(package) or () for package in packages))
    found = [case.id for case in cases if image_mark(manifest, case) in known] if known else []
    if found:
        raise UsageError(
            f"{len(found)} of {len(cases)} cases are images that trained or chose the model, such "
            f"as {found[0]!r}: give others"
        )


def trained_folds(package: ModelPackage, manifest: Manifest) -> tuple[int, ...]:
    """Folds of a manifest that the trainings of a package held out.

    Args:
        package: A package; an ensemble has one training a member.
        manifest: The image set.

    Returns:
        The folds; none for a training on other data than this manifest's, by its data hash.
    """
    trainings: list[Mapping[str, Any]] = [
        package.provenance,
        *package.provenance.get("members", ()),
    ]
    return tuple(
        fold
        for training in trainings
        if (fold := training.get("fold")) in manifest.folds
        and training.get("data_hash") == data_hash(manifest, manifest.split(fold)[0])
    )


def unseen_cases(
    packages: Sequence[ModelPackage],
    manifest: Manifest,
    *,
    fold: int | None = None,
    cases: Sequence[Case | str] | None = None,
) -> tuple[Case, ...]:
    """The cases to score, none of which any of the packages was trained on.

    Args:
        packages: The packages of one model.
        manifest: The image set.
        fold: Fold whose cases are meant.
        cases: The cases that are meant, or their ids.

    Raises:
        UsageError: A case was trained on; fold and cases are both given; or neither is, and no
            fold was held out by all trainings.
    """
    if fold is not None and cases is not None:
        raise UsageError(f"give fold={fold} or cases=, not both")
    folds = {held_out for package in packages for held_out in trained_folds(package, manifest)}
    if cases is not None:
        chosen = tuple(manifest.case(case) if isinstance(case, str) else case for case in cases)
    else:
        chosen = _fold_cases(manifest, folds, fold)
    seen = {case.id for held_out in folds for case in manifest.split(held_out)[0]}
    trained_on = [case.id for case in chosen if case.id in seen]
    if trained_on:
        raise UsageError(
            f"{len(trained_on)} of {len(chosen)} cases were trained on, such as {trained_on[0]!r}: "
            f"their scores would flatter the model; {_repair(manifest, folds)}"
        )
    return chosen


def _fold_cases(manifest: Manifest, folds: set[int], fold: int | None) -> tuple[Case, ...]:
    if fold is None and len(folds) != 1:
        raise UsageError(
            f"the model held out no single fold of manifest {manifest.name!r}: "
            f"{_repair(manifest, folds)}"
        )
    chosen = next(iter(folds)) if fold is None else fold
    if chosen not in manifest.folds:
        known = ", ".join(map(str, manifest.folds)) or "none"
        raise UsageError(
            f"fold {chosen} is not in manifest {manifest.name!r}: its folds are {known}"
        )
    return manifest.split(chosen)[1]


def _repair(manifest: Manifest, folds: set[int]) -> str:
    if len(folds) == 1:
        return f"score fold={next(iter(folds))}, which the training held out"
    if manifest.test:
        return "score cases=manifest.test"
    return "give fold= or cases= with cases that were not trained on"
