"""A PACS by the classic DICOM network: C-FIND lists, C-GET or C-MOVE fetches, C-STORE delivers.

Every status is checked: a PACS without an entry for the calling AE title answers with an empty
status, not with an error.

Source:
    DICOM PS3.4, annexes B (Storage) and C (Query/Retrieve).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import (
    StudyRootQueryRetrieveInformationModelFind,
    StudyRootQueryRetrieveInformationModelGet,
    StudyRootQueryRetrieveInformationModelMove,
)

from segmed.archive.pacs.delivery import RetryPolicy
from segmed.archive.pacs.dimse_inbox import IMAGE_CLASSES, SUCCESS, SYNTAXES, keep, receiver_at
from segmed.archive.pacs.remote import (
    RemoteSeries,
    RemoteSource,
    empty_folder,
)
from segmed.errors import AccessDeniedError, RefusedRequestError, ServiceError

PENDING = frozenset({0xFF00, 0xFF01})
STORED = frozenset({0x0000, 0xB000, 0xB006, 0xB007})
"""Kept, possibly with a remark (DICOM PS3.4, B.2.3)."""

UID_OF = {"STUDY": "StudyInstanceUID", "SERIES": "SeriesInstanceUID", "IMAGE": "SOPInstanceUID"}
"""Attribute that identifies the answers of a level."""

NOT_AUTHORISED = 0x0124
REFUSED = frozenset({0x0112, 0x0117, 0x0122, 0xA801})
"""No such object or SOP class; unknown destination of a move."""

UNSENT = frozenset({0xA702, 0xB000})
"""Some or all objects of a retrieval could not be sent (DICOM PS3.4, C.4.3.1.4)."""

IDENTIFIER_MISMATCH = 0xA9
TRANSIENT = 2
"""Result of a rejected association that may be accepted later."""

TIMEOUT_S = 60.0


@dataclass(frozen=True)
class Dimse:
    """A DICOM node.

    Attributes:
        host: Its address.
        port: Its port.
        called: Its AE title.
        calling: Our AE title, which it must list.
        retry: How long it is waited for when it does not answer.
        listen: Host and port that it has on file for our AE title. Images are then fetched by
            C-MOVE, and taken in there; without it by C-GET.
    """

    host: str
    port: int
    called: str
    calling: str = "SEGMED"
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    listen: tuple[str, int] | None = None

    @contextmanager
    def association(
        self, contexts: Sequence[tuple[str, Sequence[str]]], *, inbox: Path | None = None
    ) -> Iterator[Association]:
        """A connection to the node.

        Args:
            contexts: SOP classes that are talked about, with the encodings that will do.
            inbox: Folder for the images that the node sends back, for C-GET.

        Raises:
            ServiceError: The node does not answer, or is busy.
            AccessDeniedError: It does not accept our AE title, or answers to another than called.
        """
        entity = AE(ae_title=self.calling)
        entity.acse_timeout = entity.dimse_timeout = entity.network_timeout = TIMEOUT_S
        entity.connection_timeout = TIMEOUT_S
        for sop_class, syntaxes in contexts:
            entity.add_requested_context(sop_class, list(syntaxes))
        roles, handlers = [], []
        if inbox is not None:
            for sop_class in IMAGE_CLASSES:
                entity.add_requested_context(sop_class, list(SYNTAXES))
                roles.append(build_role(sop_class, scp_role=True))
            handlers.append((evt.EVT_C_STORE, keep, [inbox]))
        found = entity.associate(
            self.host,
            self.port,
            ae_title=self.called,
            ext_neg=roles or None,
            evt_handlers=handlers,
        )
        if not found.is_established:
            node = f"the DICOM node {self.called} at port {self.port}"
            if found.is_rejected and _is_permanent(found):
                raise AccessDeniedError(
                    f"{node} refuses our AE title {self.calling} or is called otherwise; "
                    "it is not queried again"
                )
            why = "is busy" if found.is_rejected else "does not answer"
            raise ServiceError(f"{node} {why}")
        try:
            yield found
        finally:
            if found.is_established:
                found.release()


@dataclass(frozen=True)
class DimseSource(RemoteSource[Dimse]):
    """Studies of a PACS, by C-FIND and C-GET or C-MOVE."""

    def fetch_series(self, study_uid: str, series_uid: str, folder: Path) -> None:
        """Fetch all objects of a series; see `RemoteSource`."""
        identifier = _dataset(
            QueryRetrieveLevel="SERIES", StudyInstanceUID=study_uid, SeriesInstanceUID=series_uid
        )
        place = empty_folder(folder)
        if self.service.listen is not None:
            require_success(self._move(identifier, place, self.service.listen), "send a series")
            return
        status = self._get(identifier, place)
        if status.get("Status") in UNSENT:
            raise ServiceError(
                f"the DICOM node did not send all of a series: {_described(status)}; by C-GET it "
                "sends only the SOP classes that it supports, and older ones lack label maps: "
                "write ?move=PORT behind the address for C-MOVE, or use DICOMweb"
            )
        require_success(status, "send a series")

    def _get(self, identifier: Dataset, place: Path) -> Dataset:
        """Request a series over the same connection (C-GET); the last status."""
        model = StudyRootQueryRetrieveInformationModelGet
        with self.service.association([(model, SYNTAXES[:2])], inbox=place) as association:
            return _last(association.send_c_get(identifier, model))

    def _move(self, identifier: Dataset, place: Path, listen: tuple[str, int]) -> Dataset:
        """Have a series sent to where we listen; the last status."""
        model = StudyRootQueryRetrieveInformationModelMove
        title = self.service.calling
        receiver = receiver_at(*listen, title)
        with (
            receiver.expecting(identifier.SeriesInstanceUID, place),
            self.service.association([(model, SYNTAXES[:2])]) as association,
        ):
            return _last(association.send_c_move(identifier, title, model))

    def _studies(self) -> Iterator[tuple[str, str]]:
        for answer in self._find("STUDY", StudyDate=self.query.study_dates or "", PatientID=""):
            yield _text(answer, "StudyInstanceUID"), _text(answer, "PatientID")

    def _series(self, study_uid: str, patient_id: str) -> list[RemoteSeries]:
        answers = self._find(
            "SERIES",
            StudyInstanceUID=study_uid,
            SeriesInstanceUID="",
            Modality="",
            SeriesDescription="",
            BodyPartExamined="",
        )
        found = [
            RemoteSeries(
                study_uid=study_uid,
                series_uid=_text(answer, "SeriesInstanceUID"),
                modality=_text(answer, "Modality"),
                description=_text(answer, "SeriesDescription"),
                body_part=_text(answer, "BodyPartExamined"),
                patient_id=patient_id,
            )
            for answer in answers
        ]
        return sorted(found, key=lambda series: series.series_uid)

    def _instances(self, series: RemoteSeries) -> tuple[str, ...]:
        answers = self._find(
            "IMAGE",
            StudyInstanceUID=series.study_uid,
            SeriesInstanceUID=series.series_uid,
            SOPInstanceUID="",
        )
        return tuple(_text(answer, "SOPInstanceUID") for answer in answers)

    def _find(self, level: str, **keys: str) -> list[Dataset]:
        if level == "STUDY":
            keys = {"StudyInstanceUID": "", **keys}
        answers = self.service.retry.call(lambda: find(self.service, level, **keys))
        return unlike(answers, UID_OF[level], "PatientID")


@dataclass(frozen=True)
class StoreDelivery:
    """Delivers DICOM segmentations to a PACS by C-STORE.

    Attributes:
        node: The PACS.
    """

    node: Dimse

    def deliver(self, path: Path) -> str:
        """Store one DICOM file; the address is its study, series and instance UID.

        Raises:
            ServiceError: The node does not answer, or refuses the object.
        """
        dataset = pydicom.dcmread(path)
        contexts = [(UID(dataset.SOPClassUID), [dataset.file_meta.TransferSyntaxUID])]
        with self.node.association(contexts) as association:
            if not association.accepted_contexts:
                raise ServiceError(
                    f"the DICOM node {self.node.called} takes no {UID(dataset.SOPClassUID).name}"
                )
            status = association.send_c_store(dataset)
        if status.get("Status") not in STORED:
            raise ServiceError(
                f"the DICOM node did not keep the segmentation: {_described(status)}"
            )
        return f"{dataset.StudyInstanceUID}/{dataset.SeriesInstanceUID}/{dataset.SOPInstanceUID}"

    def has(self, address: str) -> bool:
        """Return whether the PACS has an instance.

        Raises:
            ServiceError: The node does not answer.
        """
        study, series, instance = address.split("/")
        found = find(
            self.node,
            "IMAGE",
            StudyInstanceUID=study,
            SeriesInstanceUID=series,
            SOPInstanceUID=instance,
        )
        return any(answer.get("SOPInstanceUID") == instance for answer in found)


def find(node: Dimse, level: str, **keys: str) -> list[Dataset]:
    """All answers to a C-FIND.

    Args:
        node: The PACS.
        level: `STUDY`, `SERIES` or `IMAGE`.
        keys: What to match, and with an empty value what to return.

    Raises:
        ServiceError: The node does not answer, or refuses.
    """
    model = StudyRootQueryRetrieveInformationModelFind
    answers = []
    with node.association([(model, SYNTAXES[:2])]) as association:
        status: Dataset = Dataset()
        for status, answer in association.send_c_find(
            _dataset(QueryRetrieveLevel=level, **keys), model
        ):
            if status.get("Status") in PENDING and answer is not None:
                answers.append(answer)
    require_success(status, "answer a query")
    return answers


def unlike(answers: Iterable[Dataset], *keywords: str) -> list[Dataset]:
    """The answers of a listing, each once, however often the node sends it.

    Args:
        answers: As the node sent them.
        keywords: Attributes that distinguish answers; none may lack the first.

    Raises:
        RefusedRequestError: An answer has no identifier.
    """
    found: dict[tuple[str, ...], Dataset] = {}
    for answer in answers:
        key = tuple(_text(answer, keyword) for keyword in keywords)
        if not key[0]:
            raise RefusedRequestError(f"the DICOM node lists objects without {keywords[0]}")
        found.setdefault(key, answer)
    return list(found.values())


def require_success(status: Dataset, what: str) -> None:
    """Require that an exchange ended with success.

    Args:
        status: Its last status; empty where the connection broke.
        what: What was asked of the node, for the message.

    Raises:
        ServiceError: The connection broke, or the node is out of resources: waiting may help.
        RefusedRequestError: The node refuses this request for good.
        AccessDeniedError: The node does not authorise us.

    Source:
        DICOM PS3.4, C.4.1.1.4 and C.4.2.1.5; PS3.7, annex C.
    """
    value = status.get("Status")
    if value == SUCCESS:
        return
    message = f"the DICOM node did not {what}: {_described(status)}"
    if value == NOT_AUTHORISED:
        raise AccessDeniedError(f"{message}; it does not authorise us and is not queried again")
    if value is not None and (value in REFUSED or value >> 8 == IDENTIFIER_MISMATCH):
        raise RefusedRequestError(message)
    raise ServiceError(message)


def _is_permanent(found: Association) -> bool:
    """Return whether a rejection is called permanent by the node (PS3.8, 9.3.4)."""
    primitive = found.acceptor.primitive
    return primitive is None or primitive.result != TRANSIENT


def _last(answers: Iterable[tuple[Dataset, Dataset | None]]) -> Dataset:
    """The status that ends a retrieval; empty where the connection broke."""
    status = Dataset()
    for status, _ in answers:
        if status.get("Status") not in PENDING:
            break
    return status


def _dataset(**values: str) -> Dataset:
    dataset = Dataset()
    for name, value in values.items():
        setattr(dataset, name, value)
    return dataset


def _text(answer: Dataset, keyword: str) -> str:
    """An attribute of an answer as text; empty where it has none."""
    value = answer.get(keyword)
    return "" if value is None else str(value)


def _described(status: Dataset) -> str:
    """A status in words; an empty one means a broken or refused connection."""
    if "Status" not in status:
        return "no status: the connection broke, or our AE title is not known there"
    return f"status 0x{int(status.Status):04X}"
