"""Subjects (patients) in the names of cases: several scans of one person."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

SUBJECT = r"(?i)((?<![a-z])(?:sub|subj|subject|patient|pat|pid|participant)[-_ .]?[a-z]{0,4}\d+)"
"""A word for a person, and a number."""

VISIT = (
    r"(?i)^(.*\d.*?)(?:[-_. ]*(?<![a-z])(?:ses|sess|session|visit|v|tp|timepoint|time|t|scan|run|"
    r"acq|d|day|week|mo|month|year|baseline|bl|follow-?up|fu|pre|post|before|after|frame|phase|ed|"
    r"es|test|retest|left|right|l|r|ax|axial|cor|coronal|sag|sagittal|cc|mlo|ap|pa|lat)"
    r"(?:[-_ .]?\d+)?)+$"
)
"""A name with a number, and endings that distinguish scans of one person."""

DATED = (
    r"^(.*\d.*?)[-_. ](?:19|20)\d\d([-_.]?)(?:0[1-9]|1[0-2])\2(?:[0-2]\d|3[01])(?:[-_.T ]\d{4,6})?$"
)
"""A name with a number, and a date behind it."""

LETTERED = r"^(.*\d)[-_. ]?[a-dA-D]$"
"""A name with a number, and one of the first letters behind it."""

COUNTED = r"^(.*\d{4,})[-_. ]0\d\d$"
"""A name with a long number, and a short one of three digits behind it, as BraTS counts scans."""

PARTED = r"^(.*\d.*)[-_. ][a-zA-Z]{0,3}\d{1,2}$"
"""A name with a number, and a short number behind it."""

RULES = (
    (SUBJECT, True), (DATED, False), (VISIT, False), (LETTERED, False), (COUNTED, False),
    (PARTED, False),
)  # fmt: skip
"""Expressions whose first group is the subject, and whether that is sure."""

MANY = 12
"""More cases of one name than this, in the middle of all groups, are a site's or a batch's."""

CORRECTION = "--group-by"
"""Option of `segmed manifest build` that states the subject."""


@dataclass(frozen=True)
class SubjectGuess:
    """Cases whose names look like several scans of one person.

    Attributes:
        groups: Case ids by subject; subjects with one case are among them.
        pattern: Regular expression whose first group finds the subject in each of these case ids.
        is_sure: Whether a word such as `sub-` or `patient` names the subject.
    """

    groups: dict[str, tuple[str, ...]]
    pattern: str
    is_sure: bool

    @property
    def repeated(self) -> dict[str, tuple[str, ...]]:
        """The subjects with several cases."""
        return {name: ids for name, ids in self.groups.items() if len(ids) > 1}


def guess_subjects(case_ids: Sequence[str]) -> SubjectGuess | None:
    """Cases that look like several scans of one person, by their names.

    A word for a person with a number behind it (`sub-01_ses-1`, `patient12_frame01`) names the
    subject. Else cases belong together, in doubt, if their names have a number and are equal but
    for an ending that distinguishes scans (`0007_visit1`, `Image_01L`) or for a short last number
    (`AB12_1`, `AB12_2`).

    Args:
        case_ids: All case ids of a set.

    Returns:
        The guess of the first rule by which some but not all cases share a subject; None if no
        rule finds any.
    """
    for pattern, is_sure in RULES:
        groups: dict[str, list[str]] = defaultdict(list)
        for case_id in case_ids:
            if match := re.search(pattern, case_id):
                groups[match[1]].append(case_id)
        sizes = sorted((len(ids) for ids in groups.values()), reverse=True)
        # One name for all is the set's own; large groups are those of a site.
        is_shared_by_all = sizes[:1] == [len(case_ids)]
        if sizes and not is_shared_by_all and sizes[0] > 1 and sizes[len(sizes) // 2] <= MANY:
            found = {name: tuple(ids) for name, ids in groups.items()}
            return SubjectGuess(found, _shortest(found, pattern, case_ids), is_sure)
    return None


def _shortest(groups: dict[str, tuple[str, ...]], pattern: str, case_ids: Sequence[str]) -> str:
    """An expression fit for a command line that finds the same subjects, else the rule's own."""
    subject_of = {case_id: name for name, ids in groups.items() for case_id in ids}
    first = next(iter(groups))
    digits = re.sub(r"\d+", r"\\d+", first) if re.fullmatch(r"[\w-]+", first) else ""
    for short in (f"^({digits})", f"({digits})"):
        found = {case_id: re.search(short, case_id) for case_id in case_ids}
        if digits and all(m and m[1] == subject_of.get(i) for i, m in found.items()):
            return short
    return pattern
