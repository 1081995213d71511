"""Identity of an input: equal for all versions of its content, so that versions are recognised.

- A DICOM series: patient, study and series. It may grow, shrink or be sent again.
- A DICOM study from which rules choose the channels: patient and study, since a series that arrives
  later may be chosen instead.
- A volume file: its place. Another image at that place is taken for the new version of the old one.

All are hashes: identifiers of patients stay out of the ledger's tables.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from segmed.io.digest import sha256_of_text


def identity_of_series(patient_key: str, study_uid: str, series_uids: Iterable[str] = ()) -> str:
    """Identity of DICOM series.

    Args:
        patient_key: Hash of the patient identifier.
        study_uid: StudyInstanceUID.
        series_uids: SeriesInstanceUIDs; none for whatever rules choose of the study.
    """
    return _hash("series", patient_key, study_uid, *sorted(series_uids))


def identity_of_place(path: Path) -> str:
    """Identity of a volume file: its resolved path."""
    return _hash("place", os.path.realpath(path))


def _hash(*parts: str) -> str:
    text = "\n".join(parts)
    return sha256_of_text(text, "surrogateescape")
