"""A PACS by DICOMweb: list by QIDO-RS, fetch by WADO-RS, deliver by STOW-RS.

Source:
    DICOM PS3.18, sections 10.4 to 10.6.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient

from segmed.archive.pacs.delivery import Patience
from segmed.archive.pacs.remote import (
    Query,
    RemoteSeries,
    empty_folder,
    local_study,
    remote_studies,
)
from segmed.archive.pacs.tls import Tls
from segmed.archive.study import NotImage, Study
from segmed.errors import ServiceError
from segmed.package.series_rules import Rules

PAGE = 100
"""Studies asked for at once."""

TIMEOUT_S = 60.0

STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"
PATIENT_ID = "00100020"
MODALITY, DESCRIPTION, BODY_PART = "00080060", "0008103E", "00180015"


@dataclass(frozen=True)
class DicomWeb:
    """A DICOMweb service.

    Attributes:
        url: Its root, such as `http://127.0.0.1:8042/dicom-web`.
        user: User for basic authentication, if it wants one.
        password: The password; never shown.
        tls: What proves the service to us, and us to it.
        patience: How long it is waited for when it does not answer.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    patience: Patience = field(default_factory=Patience)
    tls: Tls = field(default_factory=Tls)

    @cached_property
    def client(self) -> DICOMwebClient:
        """The client; it keeps its connection."""
        session = requests.Session()
        session.trust_env = False  # no proxy and no .netrc that the user did not name here
        if self.user:
            session.auth = (self.user, self.password)
        self.tls.apply_to(session, self.url)
        client = DICOMwebClient(self.url, session=session, timeout=TIMEOUT_S)
        client.set_http_retry_params(retry=False)  # patience is ours
        return client

    @contextmanager
    def talking(self, what: str) -> Iterator[DICOMwebClient]:
        """The client, its errors turned into ours.

        Args:
            what: What is asked of the service, for the message.

        Raises:
            ServiceError: The service does not answer, or refuses.
        """
        try:
            yield self.client
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else "no status"
            raise ServiceError(f"the DICOMweb service refused to {what}: HTTP {status}") from error
        except (requests.RequestException, ConnectionError) as error:
            raise ServiceError(
                f"the DICOMweb service did not {what}: {type(error).__name__}; is it running?"
            ) from error


@dataclass(frozen=True)
class DicomWebSource:
    """Studies of a PACS, by DICOMweb.

    Attributes:
        service: The PACS.
        query: Which series are wanted.
        num_channels: Input channels of the model.
        rules: Which series of a study fit the model.
    """

    service: DicomWeb
    query: Query = field(default_factory=Query)
    num_channels: int = 1
    rules: Rules | None = None

    def studies(self) -> Iterator[Study | NotImage]:
        """Units of work, a page of studies in memory at a time.

        Raises:
            ServiceError: The service does not answer, or refuses.
        """
        for study_uid, patient_id in self._studies():
            found = self._series(study_uid, patient_id)
            series = [self._complete(item) for item in self.query.select(found)]
            yield from remote_studies(series, self.rules, self.num_channels)

    def fetch(self, study: Study, folder: Path) -> Study:
        """Fetch a study's series and audit them.

        Raises:
            ServiceError: The service does not answer, or refuses.
        """
        with self.service.talking("send a series") as client:
            for number, series_uid in enumerate(study.remote["series"]):
                place = empty_folder(folder / str(number))
                datasets = client.iter_series(study.remote["study"], series_uid)
                for index, dataset in enumerate(datasets):
                    dataset.save_as(place / f"{index:05d}.dcm")
        return local_study(study, folder, self.rules, self.num_channels)

    def _studies(self) -> Iterator[tuple[str, str]]:
        """StudyInstanceUID and PatientID of every study."""
        dates = self.query.study_dates
        filters = {} if dates is None else {"StudyDate": dates}
        offset = 0
        while True:
            page = self._search("search_for_studies", filters, limit=PAGE, offset=offset)
            for answer in page:
                yield text_of(answer, STUDY_UID), text_of(answer, PATIENT_ID)
            if len(page) < PAGE:
                return
            offset += PAGE

    def _series(self, study_uid: str, patient_id: str) -> list[RemoteSeries]:
        """The series of a study; the patient of each, where the service names it, else its own."""
        answers = self._search(
            "search_for_series",
            {},
            study_instance_uid=study_uid,
            fields=["SeriesDescription", "BodyPartExamined", "PatientID"],
        )
        found = [
            RemoteSeries(
                study_uid=study_uid,
                series_uid=text_of(answer, SERIES_UID),
                modality=text_of(answer, MODALITY),
                description=text_of(answer, DESCRIPTION),
                body_part=text_of(answer, BODY_PART),
                patient_id=text_of(answer, PATIENT_ID) or patient_id,
            )
            for answer in answers
        ]
        return sorted(found, key=lambda series: series.series_uid)

    def _complete(self, series: RemoteSeries) -> RemoteSeries:
        answers = self._search(
            "search_for_instances",
            {},
            study_instance_uid=series.study_uid,
            series_instance_uid=series.series_uid,
        )
        instances = tuple(text_of(answer, SOP_UID) for answer in answers)
        return RemoteSeries(**{**series.__dict__, "instances": instances})

    def _search(self, method: str, filters: Mapping[str, str], **options: Any) -> list[Any]:
        def ask() -> list[Any]:
            with self.service.talking("answer a query") as client:
                return list(getattr(client, method)(search_filters=dict(filters), **options))

        return self.service.patience.insist(ask)


@dataclass(frozen=True)
class StowDelivery:
    """Delivers DICOM segmentations to a PACS by STOW-RS.

    Attributes:
        service: The PACS.
    """

    service: DicomWeb

    def deliver(self, path: Path) -> str:
        """Store one DICOM file; the address is its SOPInstanceUID.

        Raises:
            ServiceError: The service does not answer, or refuses the object.
        """
        dataset = pydicom.dcmread(path)
        uid = str(dataset.SOPInstanceUID)
        with self.service.talking("store a segmentation") as client:
            reply = client.store_instances([dataset])
        # A FailedSOPSequence may be there, empty, in the reply to a success.
        stored = [
            str(item.ReferencedSOPInstanceUID) for item in reply.get("ReferencedSOPSequence", ())
        ]
        if len(reply.get("FailedSOPSequence", ())) or uid not in stored:
            raise ServiceError("the DICOMweb service did not keep the segmentation it was sent")
        return uid

    def holds(self, address: str) -> bool:
        """Whether the PACS has an instance.

        Raises:
            ServiceError: The service does not answer.
        """
        with self.service.talking("answer a query") as client:
            found = client.search_for_instances(search_filters={"SOPInstanceUID": address})
        return any(text_of(answer, SOP_UID) == address for answer in found)


def text_of(answer: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute of a DICOM JSON object; empty where it has none."""
    values = answer.get(tag, {}).get("Value") or [""]
    return str(values[0])
