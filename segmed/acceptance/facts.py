"""Facts of a case by which scores are grouped, and the rule by which their texts may be shown."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from segmed.io.dicom.acquisition import Acquisition, acquisition_at
from segmed.io.salt import pseudonym
from segmed.manifest.schema import AcquisitionFacts, Case, Manifest

SCANNER, PROTOCOL, AGE, SEX = "scanner", "protocol", "age decade", "sex"
KINDS = (SCANNER, PROTOCOL, AGE, SEX)
"""Kinds of groups, in the order of the tables."""

FEWEST_PATIENTS = 5
"""Patients that must share a value before it is shown and compared: a text that fewer share may be
about one of them, whatever element it was written into."""

OTHERS = "values of fewer than {} patients"
OLDEST_DECADE = 90
SEXES = {"F": "female", "M": "male", "O": "other"}


NAME_DIGITS = 6
"""Hex digits by which the free text of a protocol's name is replaced."""


def values_of(manifest: Manifest, case: Case, salt: bytes) -> dict[str, str]:
    """Values of a case by kind; those of the manifest come before those of the DICOM header.

    Args:
        manifest: The image set.
        case: The case.
        salt: Secret of the site, for the pseudonyms of names of protocols.

    Returns:
        Only kinds that are stated.
    """
    stated = acquisition_at(Path(manifest.image_paths(case)[0])) or Acquisition()
    return values_in(stated, case.facts, salt)


def values_in(stated: Acquisition, ours: AcquisitionFacts | None, salt: bytes) -> dict[str, str]:
    """Values by kind from what a header and a manifest state; see `values_of`."""
    age = stated.age if ours is None or ours.age is None else ours.age
    sex = stated.sex if ours is None or ours.sex is None else ours.sex
    found = {
        SCANNER: stated.scanner if ours is None or ours.scanner is None else ours.scanner,
        PROTOCOL: _protocol(stated, salt) if ours is None or not ours.protocol else ours.protocol,
        AGE: "" if age is None else decade_of(age),
        SEX: SEXES.get(sex, ""),
    }
    return {kind: value for kind, value in found.items() if value}


def _protocol(stated: Acquisition, salt: bytes) -> str:
    """Sequence or voltage, and a pseudonym of the name, which is free text."""
    if not stated.protocol_name:
        return stated.protocol
    named = f"name {pseudonym(salt, stated.protocol_name)[:NAME_DIGITS]}"
    return f"{stated.protocol}, {named}" if stated.protocol else named


def decade_of(age: float) -> str:
    """The decade of an age in years; ages from 90 are one group, as they identify people.

    Source:
        45 CFR 164.514(b)(2)(i)(C): ages over 89 may be aggregated into one category.
    """
    start = int(age // 10) * 10
    return f"{OLDEST_DECADE} and older" if start >= OLDEST_DECADE else f"{start} to {start + 9}"


def shown_values(
    values: Mapping[str, Mapping[str, str]],
    patients: Mapping[str, str],
    *,
    fewest: int = FEWEST_PATIENTS,
) -> dict[str, dict[str, str]]:
    """Values of each case that may be shown; rare ones are joined into one group.

    Args:
        values: By case and kind.
        patients: Patient of each case.
        fewest: Patients that must share a value.

    Returns:
        By case and kind.
    """
    sharing: dict[tuple[str, str], set[str]] = defaultdict(set)
    for case, found in values.items():
        for kind, value in found.items():
            sharing[kind, value].add(patients[case])
    rest = OTHERS.format(fewest)
    return {
        case: {
            kind: value if len(sharing[kind, value]) >= fewest else rest
            for kind, value in found.items()
        }
        for case, found in values.items()
    }
