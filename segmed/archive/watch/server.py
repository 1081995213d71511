"""A server that is watched: by Orthanc's changes, or by the studies that DICOMweb lists."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from segmed.archive.pacs.dicomweb import DicomWebSource
from segmed.archive.pacs.orthanc import OrthancServer
from segmed.archive.pacs.remote import Query, RemoteSeries, RemoteSource
from segmed.archive.study import NotImage, Study, StudySource
from segmed.archive.watch.arrival import Arrival, SeriesSeen
from segmed.errors import RefusedRequestError, ServiceError
from segmed.io.atomic import write_whole
from segmed.io.digest import sha256_of_text

log = logging.getLogger(__name__)

POLL_S = 10.0
CHANGES = 1000
"""Changes that are requested of Orthanc at once."""

SETTLED, CURSOR = "settled", "changes.json"


@dataclass(frozen=True)
class Candidate:
    """A study that may have changed.

    Attributes:
        study_uid: StudyInstanceUID.
        patient_id: PatientID.
        mark: Text that changes with the study, such as its number of instances; empty if unknown.
        is_stable: The server says that the study is stable.
        last: Time of its last change as the server states it, in s since 1970; None if it states
            none: the change is then as old as the question that found it.
    """

    study_uid: str = field(repr=False)
    patient_id: str = field(repr=False)
    mark: str
    is_stable: bool = False
    last: float | None = None

    @property
    def ref(self) -> str:
        """Reference of the study."""
        return f"{self.study_uid} {self.patient_id}"

    @property
    def name(self) -> str:
        """Short hash of the study."""
        return sha256_of_text(self.ref, "backslashreplace")[:16]


class Listing(Protocol):
    """Listing of the studies that may have changed on a server."""

    def candidates(self) -> Iterator[Candidate]:
        """The studies that may have changed, as the server lists them now.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        ...

    def note_settled(self, ref: str) -> None:
        """Note that nothing is left to do about a study for the moment."""
        ...


@dataclass(frozen=True)
class DatedListing:
    """Studies of the last days, by QIDO-RS.

    Attributes:
        source: The server.
        days: Days to list, by study date, today's included.
        today: The day.
    """

    source: DicomWebSource
    days: int = 2
    today: Callable[[], date] = date.today

    def candidates(self) -> Iterator[Candidate]:
        """Every study of these days, with its number of instances."""
        query = Query(since=self.today() - timedelta(days=self.days - 1))
        for study, patient, count in replace(self.source, query=query).listed_studies(counts=True):
            yield Candidate(study, patient, count)

    def note_settled(self, ref: str) -> None:
        """Nothing: each listing is whole."""


class OrthancListing:
    """Studies that Orthanc calls stable, by its `/changes`.

    The place in the list of changes is kept in a file. It is that of the first change whose study
    is not settled, so that a process which is killed loses none.

    Args:
        server: The Orthanc.
        folder: Folder of the file.
        days: Without the file, changes of the last days are taken up.
    """

    def __init__(self, server: OrthancServer, folder: Path, days: int) -> None:
        self._server, self._path = server, folder / CURSOR
        self._oldest = datetime.now(UTC) - timedelta(days=days)
        self._is_new = not self._path.is_file()
        self._next = 0 if self._is_new else int(json.loads(self._path.read_bytes())["since"])
        self._open: dict[str, tuple[int, Candidate]] = {}

    def candidates(self) -> Iterator[Candidate]:
        """Studies that became stable since, and earlier ones that are not settled."""
        while True:
            place = {"since": self._next, "limit": CHANGES}
            answer = self._server.ask("GET", "/changes", params=place)
            if answer is None:
                raise ServiceError(f"{self._server.root} has no /changes: it is no Orthanc")
            for change in answer["Changes"]:
                if change["ChangeType"] == "StableStudy" and self._is_recent(change):
                    self._add(int(change["Seq"]), str(change["ID"]))
            self._next = int(answer["Last"])
            if answer["Done"]:
                break
        self._keep()
        yield from [candidate for _, candidate in self._open.values()]

    def note_settled(self, ref: str) -> None:
        """Move on behind the changes of a study."""
        self._open.pop(ref, None)
        self._keep()

    def _add(self, number: int, name: str) -> None:
        found = self._server.ask("GET", f"/studies/{name}")
        if found is None:
            return  # removed since
        candidate = Candidate(
            str(found["MainDicomTags"].get("StudyInstanceUID", "")),
            str(found["PatientMainDicomTags"].get("PatientID", "")),
            str(number),
            is_stable=True,
            last=_moment(str(found.get("LastUpdate", ""))),
        )
        first = self._open.get(candidate.ref, (number, candidate))[0]
        self._open[candidate.ref] = (first, candidate)

    def _is_recent(self, change: dict[str, Any]) -> bool:
        if not self._is_new:
            return True
        made = _moment(str(change["Date"]))
        return made is None or made >= self._oldest.timestamp()

    def _keep(self) -> None:
        """Write the place from which a next process has to read."""
        since = min((number - 1 for number, _ in self._open.values()), default=self._next)
        content = json.dumps({"since": since})
        if not self._path.is_file() or self._path.read_text(encoding="utf-8") != content:
            write_whole(self._path, content)


@dataclass
class _Listed:
    """A study as it was listed last."""

    candidate: Candidate
    series: tuple[SeriesSeen, ...]
    state: str
    first: float
    last: float


class ServerFeed:
    """A server as a feed of a watch.

    Args:
        source: The server.
        listing: Listing of the studies that may have changed.
        folder: Folder for what is settled.
        poll_s: Time between two questions to the server, in s.
        clock: Time in s since 1970.
    """

    def __init__(
        self,
        source: DicomWebSource,
        listing: Listing,
        folder: Path,
        *,
        poll_s: float = POLL_S,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._source, self._listing, self._clock = source, listing, clock
        self._settled = folder / SETTLED
        self._settled.mkdir(parents=True, exist_ok=True)
        self._poll_s, self._asked = poll_s, float("-inf")
        self._open: dict[str, _Listed] = {}
        self._refused: set[str] = set()

    def arrivals(self) -> list[Arrival]:
        """Studies that were not settled in their present state; the server is asked in turns."""
        if self._clock() - self._asked >= self._poll_s:
            self._asked = self._clock()
            for candidate in self._listing.candidates():
                self._look_at(candidate)
        return [
            Arrival(
                ref,
                one.candidate.name,
                one.series,
                one.first,
                one.last,
                one.candidate.is_stable,
            )
            for ref, one in self._open.items()
        ]

    def state_of(self, ref: str) -> str:
        """Hash of the instances of a study when it was listed last, results left out."""
        return self._open[ref].state

    def units(self, ref: str, source: StudySource) -> Iterator[Study | NotImage]:
        """Units of work of a study.

        Raises:
            ServiceError: The server does not answer, or refuses.
        """
        assert isinstance(source, RemoteSource)  # a run on a server has no other
        candidate = self._open[ref].candidate
        yield from source.units_of(candidate.study_uid, candidate.patient_id)

    def settle(self, ref: str, state: str) -> None:
        """Note that all is done about a state of a study, also for the next start."""
        listed = self._open.get(ref)
        if listed is not None and listed.state == state:
            self._keep(listed.candidate, state)
            del self._open[ref]

    def remove_settled(self, older_than_s: float) -> int:
        """Nothing: images are not kept here."""
        return 0

    def _look_at(self, candidate: Candidate) -> None:
        """Compare a study with what is known of it."""
        listed = self._open.get(candidate.ref)
        mark, state = self._known(candidate)
        known = listed.candidate.mark if listed is not None else mark
        if candidate.mark and candidate.mark == known:
            return
        try:
            series = self._source.listed_series(candidate.study_uid, candidate.patient_id)
        except RefusedRequestError as error:  # one study must not keep all others waiting
            if candidate.ref not in self._refused:
                log.warning("study %s is left alone until it changes: %s", candidate.name, error)
            self._refused.add(candidate.ref)
            self._keep(candidate, "")
            return
        found = _state_of(series)
        if listed is None and found == state:
            self._keep(candidate, found)  # a result came back, or nothing changed
            return
        now = self._clock()
        has_changed = listed is None or listed.state != found
        last = min(now, now if candidate.last is None else candidate.last)
        self._open[candidate.ref] = _Listed(
            candidate,
            tuple(_seen(one) for one in series),
            found,
            now if listed is None else listed.first,
            last if has_changed or listed is None else listed.last,
        )

    def _known(self, candidate: Candidate) -> tuple[str, str]:
        """Mark and state of a study when it was settled last."""
        try:
            mark, _, state = (
                (self._settled / candidate.name).read_text(encoding="utf-8").partition("\n")
            )
        except FileNotFoundError:
            return "", ""
        return mark, state

    def _keep(self, candidate: Candidate, state: str) -> None:
        write_whole(self._settled / candidate.name, f"{candidate.mark}\n{state}")
        self._listing.note_settled(candidate.ref)


def _moment(text: str) -> float | None:
    """A moment as Orthanc writes it, in UTC, in s since 1970; None if it is none."""
    try:
        return datetime.strptime(text, "%Y%m%dT%H%M%S").replace(tzinfo=UTC).timestamp()
    except ValueError:
        return None


def _state_of(series: list[RemoteSeries]) -> str:
    uids = sorted(uid for one in series for uid in one.instances)
    return sha256_of_text("\n".join(uids), "backslashreplace")


def _seen(series: RemoteSeries) -> SeriesSeen:
    return SeriesSeen(series.modality, series.description, series.body_part, len(series.instances))
