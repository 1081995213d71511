"""Evidence without data: a signed record of paired scores of a site, without identifiers.

A record has, for each case and structure, the scores of the model and of the one that it is
compared with, under a keyed hash of the voxels. It has no name, path, id, date of a study,
volume or text of a header. The hash needs the study's key: who has neither key nor image can make
nothing of it, and two sites that have the same case are found out.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
import secrets
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

import pandas as pd
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError, model_validator

from segmed.acceptance.dossier import Dossier
from segmed.acceptance.keys import (
    is_signed_by,
    public_bytes,
    read_site_key,
    read_study_key,
    site_id,
    site_key_path,
    study_key_id,
    study_key_path,
)
from segmed.acceptance.measured import shifted_structures
from segmed.acceptance.scoring import LocalResults
from segmed.errors import UsageError
from segmed.io.atomic import write_whole
from segmed.io.salt import pseudonym
from segmed.metrics.score import METRICS
from segmed.metrics.summary import RECORDED_METRICS
from segmed.structures import Frozen
from segmed.validation import first_fault
from segmed.version import __version__

KIND = "segmed evidence"
MAX_RECORD_BYTES = 1 << 28

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
KeyId = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class RowScores(Frozen):
    """Scores of one model for one structure of a case.

    Attributes:
        missed: The reference has it, the prediction does not.
        false_positive: The prediction has it, the reference does not.
        both_empty: Neither has it; then there are no scores.
        values: Value of each metric.
    """

    missed: bool
    false_positive: bool
    both_empty: bool
    values: dict[str, float]

    @model_validator(mode="after")
    def _require_all(self) -> RowScores:
        wanted = set() if self.both_empty else set(RECORDED_METRICS)
        if set(self.values) != wanted:
            raise ValueError(f"scores of {sorted(self.values)}, needed {sorted(wanted)}")
        for metric in METRICS:
            value = self.values.get(metric.name, 0.0)
            if value < 0.0 or (metric.is_fraction and value > 1.0):
                raise ValueError(f"{metric.name} is {value}, which no score can be")
        return self


class EvidenceRow(Frozen):
    """One structure of one case.

    Attributes:
        case: Keyed hash of the voxels.
        label: Structure.
        is_region: A union of structures.
        model: Scores of the model.
        against: Scores of the model that it is compared with.
    """

    case: Digest
    label: str
    is_region: bool
    model: RowScores
    against: RowScores | None = None


class Evidence(Frozen):
    """Content of a record, which the site signs.

    Attributes:
        record: Random number of the record.
        created: Day on which it was made.
        segmed: Version that made it.
        model: Hash of the model.
        against: Hash of the model that it is compared with.
        study_key: Name of the key that hashes the cases.
        patients: Patients of the cases.
        refused: Refused and failed cases by reason code.
        groups: Groups of cases that are scored worse than the rest.
        shifts: Structures scored worse than on the card.
        drift: Features that drifted from the training, of the cases or of the archive; None where
            that is not known, such as with fewer cases than show drift.
        seconds: Seconds a case of the model.
        against_seconds: The same of the other model.
        rows: Scores, in the order of the hashes.
    """

    record: Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]
    segmed: str
    model: Digest
    against: Digest | None = None
    study_key: KeyId
    patients: PositiveInt
    refused: dict[str, NonNegativeInt] = Field(default_factory=dict)
    groups: NonNegativeInt = 0
    shifts: NonNegativeInt = 0
    drift: NonNegativeInt | None = None
    seconds: Annotated[float, Field(ge=0)] | None = None
    against_seconds: Annotated[float, Field(ge=0)] | None = None
    rows: Annotated[tuple[EvidenceRow, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _require_each_row_once(self) -> Evidence:
        times = Counter((row.case, row.label) for row in self.rows)
        if times.most_common(1)[0][1] > 1:
            raise ValueError("a case and structure occur twice")
        if any((row.against is None) != (self.against is None) for row in self.rows):
            raise ValueError("scores of the other model are in some rows alone")
        return self

    @property
    def cases(self) -> set[str]:
        """Keyed hashes of the cases."""
        return {row.case for row in self.rows}


class SignedEvidence(Frozen):
    """The file: evidence, the public key of the site, and its signature.

    Attributes:
        kind: Name of the form.
        schema_version: Version of the form.
        evidence: What is signed.
        public_key: Ed25519 public key, base64.
        signature: Ed25519 signature of the evidence as JSON with sorted keys, base64.
    """

    kind: Literal["segmed evidence"] = KIND  # type: ignore[assignment]  # KIND is that literal
    schema_version: Literal[1] = 1
    evidence: Evidence
    public_key: str
    signature: str

    @property
    def site(self) -> str:
        """Name of the site: begin of the digest of its public key."""
        return site_id(_decoded(self.public_key))

    @property
    def is_authentic(self) -> bool:
        """True if the signature is that of the public key on the evidence."""
        key, signature = _decoded(self.public_key), _decoded(self.signature)
        return is_signed_by(key, signature, signed_bytes(self.evidence))


def signed_bytes(evidence: Evidence) -> bytes:
    """The bytes that are signed: JSON with sorted keys and without blanks."""
    content = evidence.model_dump(mode="json")
    return json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return b""


@dataclass(frozen=True)
class SiteKeys:
    """The two keys of a site.

    Attributes:
        study: Key that the sites of a study share; hashes the cases.
        site: Key of this site alone; signs.
    """

    study: bytes = field(repr=False)
    site: Ed25519PrivateKey = field(repr=False)


def read_keys(study: Path | None = None, site: Path | None = None) -> SiteKeys:
    """Read the keys; those that are missing are drawn.

    Args:
        study: File of the study's key; the default one if not given.
        site: File of the site's key; the default one if not given.

    Raises:
        UsageError: Others may read a file, or it is no key.
    """
    return SiteKeys(
        read_study_key(study or study_key_path()), read_site_key(site or site_key_path())
    )


@dataclass(frozen=True)
class RivalResults:
    """Results of the model that a record compares with.

    Attributes:
        hash: Hash of the model.
        results: Its scores on the same cases.
    """

    hash: str
    results: LocalResults


def make_evidence(
    dossier: Dossier, results: LocalResults, study_key: bytes, rival: RivalResults | None = None
) -> Evidence:
    """Make the record of a dossier.

    Args:
        dossier: The dossier.
        results: The results that it was made of.
        study_key: Key that the sites of a study share.
        rival: Results of the other model; cases that it did not score are left out.

    Raises:
        UsageError: Two cases have the same image, or no case was scored by both models.
    """
    if dossier.copies:
        raise UsageError(
            f"{dossier.copies} of the cases are copies of others and would count twice: take them "
            "out of the manifest"
        )
    names = [case for case in results.cases if rival is None or case in rival.results.contents]
    if not names:
        raise UsageError("no case was scored by both models: nothing can be compared")
    hashes = {case: pseudonym(study_key, results.contents[case]) for case in names}
    theirs = {} if rival is None else _scores_of(rival.results.table)
    rows = [
        EvidenceRow(
            case=hashes[case],
            label=label,
            is_region=is_region,
            model=scores,
            against=None if rival is None else theirs[case, label][1],
        )
        for (case, label), (is_region, scores) in _scores_of(results.table).items()
        if case in hashes
    ]
    return Evidence(
        record=secrets.token_hex(16),
        created=datetime.now(UTC).strftime("%Y-%m-%d"),
        segmed=__version__,
        model=dossier.model.hash,
        against=None if rival is None else rival.hash,
        study_key=study_key_id(study_key),
        patients=len({results.patients[case] for case in names}),
        refused=dossier.refused,
        groups=len({(row.kind, row.value) for row in dossier.groups if row.is_worse}),
        shifts=len(shifted_structures(dossier.scores)),
        drift=None if isinstance(dossier.drifted, str) else round(dossier.drifted),
        seconds=_mean(results.seconds),
        against_seconds=None if rival is None else _mean(rival.results.seconds),
        rows=tuple(sorted(rows, key=lambda row: (row.case, row.label))),
    )


def _mean(values: Mapping[str, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def _scores_of(table: pd.DataFrame) -> dict[tuple[str, str], tuple[bool, RowScores]]:
    return {
        (str(row["case"]), str(row["label"])): (bool(row["is_region"]), _row_scores(row))
        for row in table.to_dict("records")
    }


def _row_scores(row: Mapping[Any, Any]) -> RowScores:
    values = {name: float(row[name]) for name in RECORDED_METRICS}
    return RowScores(
        missed=bool(row["missed"]),
        false_positive=bool(row["false_positive"]),
        both_empty=bool(row["both_empty"]),
        values={name: value for name, value in values.items() if math.isfinite(value)},
    )


def sign(evidence: Evidence, key: Ed25519PrivateKey) -> SignedEvidence:
    """Sign a record with the key of the site."""
    return SignedEvidence(
        evidence=evidence,
        public_key=base64.b64encode(public_bytes(key)).decode("ascii"),
        signature=base64.b64encode(key.sign(signed_bytes(evidence))).decode("ascii"),
    )


def write_evidence(path: Path, signed: SignedEvidence) -> Path:
    """Write a signed record, whole or not at all, readable to its owner alone."""
    content = signed.model_dump(mode="json")
    return write_whole(path, json.dumps(content, indent=1, allow_nan=False) + "\n", private=True)


def read_evidence(path: Path) -> SignedEvidence:
    """Read a record and verify its signature.

    Raises:
        UsageError: There is no such file, it is no record, or it was changed after it was signed.
    """
    if not path.is_file():
        raise UsageError(f"{path}: there is no such record")
    if path.stat().st_size > MAX_RECORD_BYTES:
        raise UsageError(f"{path} has more than {MAX_RECORD_BYTES} bytes: no record is so large")
    try:
        signed = SignedEvidence.model_validate_json(path.read_bytes(), strict=False)
    except ValidationError as error:
        raise UsageError(f"{path} is no evidence record: {first_fault(error)}") from error
    if not signed.is_authentic:
        raise UsageError(
            f"{path} was changed after its site signed it: ask the site for its record again"
        )
    return signed
