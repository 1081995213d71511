"""A PACS by DICOMweb: list by QIDO-RS, fetch by WADO-RS, deliver by STOW-RS.

Source:
    DICOM PS3.18, sections 10.4 to 10.6.
"""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pydicom
import requests
from dicomweb_client.api import DICOMwebClient
from pydicom.errors import InvalidDicomError

from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.paging import Page, all_entries
from segmed.archive.pacs.remote import (
    RemoteSeries,
    RemoteSource,
    empty_folder,
)
from segmed.archive.pacs.tls import Tls
from segmed.errors import AccessDeniedError, RefusedRequestError, SegmedError, ServiceError
from segmed.formats import NEVER_IMAGES

TIMEOUT_S = 60.0

DENIED = frozenset({401, 403, 407})
"""HTTP states by which a service refuses the caller."""

PASSING = frozenset({408, 425, 429})
"""HTTP states of 4xx that waiting may mend; all others are final."""

NOT_FOUND = 404

UNREADABLE = (ValueError, KeyError, TypeError, AttributeError, EOFError, struct.error,
              InvalidDicomError)  # fmt: skip
"""Errors of the client and of pydicom on an answer that is not of the requested form."""

STUDY_UID, SERIES_UID, SOP_UID = "0020000D", "0020000E", "00080018"
PATIENT_ID = "00100020"
STUDY_INSTANCES = "00201208"
MODALITY, DESCRIPTION, BODY_PART = "00080060", "0008103E", "00180015"


@dataclass(frozen=True)
class DicomWeb:
    """A DICOMweb service.

    Attributes:
        url: Its root, such as `http://127.0.0.1:8042/dicom-web`.
        user: User for basic authentication, if required.
        password: The password; never shown.
        tls: What proves the service to us, and us to it.
        retry: How long it is waited for when it does not answer.
    """

    url: str
    user: str = ""
    password: str = field(default="", repr=False)
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    tls: Tls = field(default_factory=Tls)

    @cached_property
    def session(self) -> requests.Session:
        """The HTTP session; it keeps its connection."""
        session = requests.Session()
        session.trust_env = False  # no proxy and no .netrc that the user did not name here
        if self.user:
            session.auth = (self.user, self.password)
        self.tls.apply_to(session, self.url)
        session.hooks["response"] = [self._note_warning]
        return session

    @cached_property
    def client(self) -> DICOMwebClient:
        """The client."""
        client = DICOMwebClient(self.url, session=self.session, timeout=TIMEOUT_S)
        client.set_http_retry_params(retry=False)  # see RetryPolicy
        return client

    @cached_property
    def _spoken(self) -> threading.local:
        return threading.local()

    def _note_warning(self, response: requests.Response, **_: object) -> None:
        self._spoken.warning = response.headers.get("Warning", "")

    @property
    def has_more(self) -> bool:
        """Return whether the last answer of this thread announced that results were left out."""
        return str(getattr(self._spoken, "warning", "")).lstrip().startswith("299")

    @contextmanager
    def talking(self, what: str) -> Iterator[DICOMwebClient]:
        """The client, its errors turned into ours.

        Args:
            what: What is asked of the service, for the message.

        Raises:
            ServiceError: The service does not answer, or is in trouble: waiting may help.
            RefusedRequestError: It refuses this request for good.
            AccessDeniedError: It refuses this caller.
        """
        try:
            yield self.client
        except SegmedError:
            raise
        except requests.HTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            message = f"the DICOMweb service refused to {what}: HTTP {status or 'without status'}"
            if status in DENIED:
                advice = "check user, password and rights; it is not queried again"
                raise AccessDeniedError(f"{message}; {advice}") from error
            if 400 <= status < 500 and status not in PASSING:
                raise RefusedRequestError(message) from error
            raise ServiceError(message) from error
        except requests.exceptions.SSLError as error:
            raise AccessDeniedError(
                f"the DICOMweb service did not {what}: its certificate or ours is not accepted; "
                "set SEGMED_DICOMWEB_CA, and _CERT and _KEY for our own"
            ) from error
        except requests.exceptions.JSONDecodeError as error:
            raise _unreadable(what, error) from error
        except (requests.RequestException, ConnectionError) as error:
            raise ServiceError(
                f"the DICOMweb service did not {what}: {type(error).__name__}; is it running?"
            ) from error
        except UNREADABLE as error:
            raise _unreadable(what, error) from error


@dataclass(frozen=True)
class DicomWebSource(RemoteSource[DicomWeb]):
    """Studies of a PACS, by DICOMweb."""

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> None:
        """Fetch all objects of a series; see `RemoteSource`."""
        place = empty_folder(folder)
        with self.service.talking("send a series") as client:
            for index, dataset in enumerate(client.iter_series(study_uid, series_uid)):
                dataset.save_as(place / f"{index:05d}.dcm")

    def _studies(self) -> Iterator[tuple[str, str]]:
        """StudyInstanceUID and PatientID of every study."""
        for study_uid, patient_id, _ in self.listed_studies():
            yield study_uid, patient_id

    def listed_studies(self, *, counts: bool = False) -> Iterator[tuple[str, str, str]]:
        """StudyInstanceUID, PatientID and number of instances of every study.

        Args:
            counts: Request the number of instances; it stays empty where the service has none.
        """
        dates = self.query.study_dates
        filters = {} if dates is None else {"StudyDate": dates}
        fields = {"fields": ["NumberOfStudyRelatedInstances"]} if counts else {}
        for answer in self._search("search_for_studies", STUDY_UID, filters, **fields):
            yield (
                text_of(answer, STUDY_UID),
                text_of(answer, PATIENT_ID),
                text_of(answer, STUDY_INSTANCES),
            )

    def listed_series(self, study_uid: str, patient_id: str) -> list[RemoteSeries]:
        """The series of a study with the UIDs of their instances, without those of results."""
        return [
            replace(series, instances=self._instances(series))
            for series in self._series(study_uid, patient_id)
            if series.modality not in NEVER_IMAGES
        ]

    def _series(self, study_uid: str, patient_id: str) -> list[RemoteSeries]:
        """The series of a study; the patient of each, where the service names it, else its own."""
        answers = self._search(
            "search_for_series",
            SERIES_UID,
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

    def _instances(self, series: RemoteSeries) -> tuple[str, ...]:
        answers = self._search(
            "search_for_instances",
            SOP_UID,
            {},
            study_instance_uid=series.study_uid,
            series_instance_uid=series.series_uid,
        )
        return tuple(text_of(answer, SOP_UID) for answer in answers)

    def _search(
        self, method: str, tag: str, filters: Mapping[str, str], **options: Any
    ) -> Iterator[Any]:
        """All answers to a query, however the service pages them."""

        def fetch_page(limit: int, offset: int) -> Page:
            pages = {"limit": limit, "offset": offset}
            try:
                with self.service.talking("answer a query") as client:
                    search = getattr(client, method)
                    found = search(search_filters=dict(filters), **pages, **options)
                    has_more = self.service.has_more
            except RefusedRequestError as error:
                if offset and _is_not_found(error):
                    # No such page: all are requested as one page instead.
                    return Page([], has_more=True)
                raise
            if not isinstance(found, list) or not all(isinstance(row, Mapping) for row in found):
                raise RefusedRequestError(
                    "the DICOMweb service answered a query by something else than a list of objects"
                )
            return Page(found, has_more)

        return all_entries(
            lambda limit, offset: self.service.retry.call(lambda: fetch_page(limit, offset)),
            lambda answer: _key_of(answer, tag),
            what=method.removeprefix("search_for_"),
        )


def _unreadable(what: str, error: Exception) -> ServiceError:
    return ServiceError(
        f"the DICOMweb service did not {what}: its answer is not of the requested form "
        f"({type(error).__name__}); is a proxy or a login page in between?"
    )


def _is_not_found(error: RefusedRequestError) -> bool:
    """Return whether a request was refused by HTTP 404."""
    response = getattr(error.__cause__, "response", None)
    return response is not None and response.status_code == NOT_FOUND


def _key_of(answer: Mapping[str, Any], tag: str) -> str:
    """Return the key of an answer: UID and patient, since two patients may have equal UIDs."""
    uid = text_of(answer, tag)
    return f"{uid} {text_of(answer, PATIENT_ID)}" if uid else ""


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

    def has(self, address: str) -> bool:
        """Return whether the PACS has an instance.

        Raises:
            ServiceError: The service does not answer.
        """
        with self.service.talking("answer a query") as client:
            found = client.search_for_instances(search_filters={"SOPInstanceUID": address})
        return any(text_of(answer, SOP_UID) == address for answer in found)


def text_of(answer: Mapping[str, Any], tag: str) -> str:
    """The first value of an attribute of a DICOM JSON object; empty where it has none."""
    element = answer.get(tag)
    values = element.get("Value") if isinstance(element, Mapping) else None
    first = values[0] if isinstance(values, list) and values else values
    return str(first) if isinstance(first, str | int | float) else ""
