"""Query of a PACS, and the conversion of its answers into studies."""

from __future__ import annotations

import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path
from typing import Generic, TypeVar

from segmed.archive.identifying import Answer, StudyListing, Unidentified, identified_here
from segmed.archive.identity import identity_of_series
from segmed.archive.query import SeriesQuery
from segmed.archive.study import NotImage, Study
from segmed.errors import AccessDeniedError, RefusedRequestError, ServiceError
from segmed.inference.fault import InputFault
from segmed.inference.selection import choose_series
from segmed.io.dicom.scan import group_files
from segmed.io.dicom.uid import short_hash
from segmed.io.digest import sha256_of_text
from segmed.io.output_names import mirrored
from segmed.outcomes import SERVICE, SERVICE_REFUSES
from segmed.package.series_rules import Rules

Service = TypeVar("Service")


@dataclass(frozen=True)
class Query(SeriesQuery):
    """Conditions on the series of a PACS.

    Attributes:
        since: Studies of this day or later.
        until: Studies of this day or earlier.
    """

    since: date | None = None
    until: date | None = None

    @property
    def study_dates(self) -> str | None:
        """The StudyDate to match, as DICOM writes ranges; None for all."""
        if self.since is None and self.until is None:
            return None
        start, end = (day.strftime("%Y%m%d") if day else "" for day in (self.since, self.until))
        return f"{start}-{end}"


@dataclass(frozen=True)
class RemoteSeries:
    """One series as a PACS lists it.

    Attributes:
        study_uid: StudyInstanceUID.
        series_uid: SeriesInstanceUID.
        modality: Such as `MR`.
        description: SeriesDescription; never logged.
        body_part: BodyPartExamined.
        instances: SOPInstanceUIDs.
        patient_id: PatientID as the PACS lists it; never logged.
    """

    study_uid: str = field(repr=False)
    series_uid: str = field(repr=False)
    modality: str = ""
    description: str = field(default="", repr=False)
    body_part: str = ""
    instances: tuple[str, ...] = field(default=(), repr=False)
    patient_id: str = field(default="", repr=False)


def remote_studies(
    series: Sequence[RemoteSeries], rules: Rules | None, num_channels: int
) -> Iterator[Study]:
    """Units of work among the requested series of one DICOM study, before anything is fetched.

    Without rules each series is one for a model of one channel; else all of one patient together,
    and the rules choose once they are here. The content of a series is known by its patient, study,
    series and instances: an instance that changes must take another UID (DICOM PS3.5, 9), and
    poorly anonymised patients have equal ones.

    Args:
        series: The wanted series of one study.
        rules: The rules, if any.
        num_channels: Input channels of the model.
    """
    wanted = [item for item in series if item.instances]
    is_whole = rules is not None or num_channels > 1
    units: dict[str, list[RemoteSeries]] = {}
    for item in wanted:
        units.setdefault(item.patient_id if is_whole else item.series_uid, []).append(item)
    for unit in units.values():
        uids = sorted(uid for item in unit for uid in item.instances)
        first = unit[0]
        names = [item.series_uid for item in unit]
        yield Study(
            content=content_of_series(first.patient_id, first.study_uid, names, uids),
            form="dicom",
            place=f"series {' '.join(names)} of patient {short_hash(first.patient_id)}",
            remote={"study": first.study_uid, "series": names, "instances": len(uids)},
            identity=identity_of_series(
                short_hash(first.patient_id), first.study_uid, () if is_whole else names
            ),
            older_content=_hash("instances", *uids),
            uids=(first.study_uid, *names),
            source_name=mirrored(Path(first.study_uid), "+".join(names)),
        )


def content_of_series(
    patient_id: str, study_uid: str, series_uids: Sequence[str], instances: Sequence[str]
) -> str:
    """Content hash of series of a PACS, from their identifiers alone.

    Args:
        patient_id: PatientID.
        study_uid: StudyInstanceUID.
        series_uids: SeriesInstanceUIDs.
        instances: SOPInstanceUIDs of all their objects.
    """
    owner = ["patient", patient_id, "study", study_uid, "series", *sorted(series_uids)]
    return _hash(*owner, "instances", *sorted(instances))


@dataclass(frozen=True)
class RemoteSource(ABC, Generic[Service]):
    """Studies of a PACS, one study's list in memory at a time; a protocol lists and fetches.

    Attributes:
        service: The PACS.
        query: Which series are wanted.
        num_channels: Input channels of the model.
        rules: Which series of a study fit the model.
        on_listed: Called for each study with the number of its units of work.
    """

    service: Service
    query: Query = field(default_factory=Query)
    num_channels: int = 1
    rules: Rules | None = None
    on_listed: Callable[[int], None] | None = field(default=None, compare=False, repr=False)

    def studies(self) -> Iterator[Study | NotImage]:
        """Units of work; a study that the server does not list is a failed one.

        Raises:
            ServiceError: The server does not answer, or refuses the caller.
        """
        yield from identified_here(self)

    def unidentified(self) -> Iterator[Study | NotImage | Unidentified]:
        """Questions for the series and instances of each study.

        Raises:
            ServiceError: The server does not answer, or refuses the caller.
        """
        for study_uid, patient_id in self._studies():
            yield Unidentified(StudyListing(study_uid, patient_id))

    def identified(self, item: Unidentified, answer: Answer | Exception) -> Iterable[Study]:
        """Units of work of a study; a failed one if the server does not list it.

        Raises:
            AccessDeniedError: The server refuses the caller.
        """
        asked = item.question
        assert isinstance(asked, StudyListing)  # by `unidentified`
        units: Sequence[Study]
        if isinstance(answer, ServiceError) and not isinstance(answer, AccessDeniedError):
            units = [_unlisted(asked.study_uid, asked.patient_id, answer)]
        elif isinstance(answer, Exception):
            raise answer
        else:
            units = answer  # type: ignore[assignment]  # of a listing
        if self.on_listed is not None:
            self.on_listed(len(units))
        return units

    def units_of(self, study_uid: str, patient_id: str) -> list[Study]:
        """Units of work of one study.

        Args:
            study_uid: StudyInstanceUID.
            patient_id: PatientID.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        wanted = self.query.select(self._series(study_uid, patient_id))
        series = [replace(item, instances=self._instances(item)) for item in wanted]
        return list(remote_studies(series, self.rules, self.num_channels))

    def fetch(self, study: Study, folder: Path) -> Study:
        """Fetch a study's series and audit them.

        Raises:
            ServiceError: The server does not answer, refuses, or sends only a part.
        """
        for number, series_uid in enumerate(study.remote["series"]):
            self.fetch_series(study.remote["study"], series_uid, folder / str(number))
        return local_study(study, folder, self.rules, self.num_channels)

    def count_studies(self) -> int:
        """Number of studies, by their listing alone: one query, or one for each page of them.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        return sum(1 for _ in self._studies())

    def segmentations(self, study_uid: str) -> list[RemoteSeries]:
        """The series of segmentations in a study, by UID.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        return [item for item in self._series(study_uid, "") if item.modality == "SEG"]

    @abstractmethod
    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> None:
        """Fetch all objects of a series into a folder, which is emptied first.

        Args:
            study_uid: StudyInstanceUID.
            series_uid: SeriesInstanceUID.
            folder: Takes one file an object.

        Raises:
            ServiceError: The server does not answer, refuses, or sends only a part.
        """

    @abstractmethod
    def _studies(self) -> Iterator[tuple[str, str]]:
        """StudyInstanceUID and PatientID of every study."""

    @abstractmethod
    def _series(self, study_uid: str, patient_id: str) -> list[RemoteSeries]:
        """The series of a study, by UID, without their instances."""

    @abstractmethod
    def _instances(self, series: RemoteSeries) -> tuple[str, ...]:
        """SOPInstanceUIDs of a series."""


def _unlisted(study_uid: str, patient_id: str, error: ServiceError) -> Study:
    """A study whose series the server does not list, as failed."""
    owner = short_hash(patient_id)
    reason = SERVICE_REFUSES if isinstance(error, RefusedRequestError) else SERVICE
    return Study(
        content=_hash("unlisted", patient_id, study_uid),
        form="dicom",
        place=f"study {study_uid} of patient {owner}",
        fault=InputFault(reason, str(error)),
        environment=True,
        identity=identity_of_series(owner, study_uid, ()),
        uids=(study_uid,),
    )


def _hash(*parts: str) -> str:
    return sha256_of_text("\n".join(parts), "backslashreplace")


def empty_folder(path: Path) -> Path:
    """A folder with nothing in it: what an earlier attempt left there is removed."""
    shutil.rmtree(path, ignore_errors=True)
    path.mkdir(parents=True)
    return path


def local_study(study: Study, folder: Path, rules: Rules | None, num_channels: int) -> Study:
    """A fetched study, audited and with its series chosen.

    Args:
        study: As it was listed.
        folder: Where its files were put.
        rules: The rules, if any.
        num_channels: Input channels of the model.

    Returns:
        The study with its files, or with the fault that intake found.

    Raises:
        ServiceError: The PACS listed more than it sent.
    """
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    audits = group_files(files)
    # A copy sent twice is not a second instance: one at an end would leave the volume short unseen.
    arrived = len(files) - sum(len(audit.copies) for audit in audits)
    if arrived < study.remote["instances"]:
        raise ServiceError(
            f"{arrived} of {study.remote['instances']} instances of a series were to be had; "
            "does it still arrive there?"
        )
    if not audits:
        return replace(study, fault=InputFault("not_image", "none of its objects is an image"))
    asked = {"", *study.remote["series"]}  # a damaged file cannot name its series
    if any(audit.series_uid not in asked for audit in audits):
        raise ServiceError("the PACS sent a series that was not requested")
    images = [audit for audit in audits if audit.reason != "not_image"] or audits
    if len({(audit.patient_key, audit.study_uid) for audit in images}) > 1:
        message = "the PACS lists images of several patients or studies as one study"
        return replace(study, fault=InputFault("mixed_patient", message))
    choice = next(choose_series(images, rules, num_channels=num_channels))
    return replace(
        study,
        channels=tuple(tuple(audit.files) for audit in choice.audits),
        audits=choice.audits,
        fault=choice.fault,
    )
