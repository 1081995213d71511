"""Identity of a source's studies, found elsewhere and ahead of the run that asks for it.

The content of a study is known after all its files were hashed, or after a PACS listed all its
instances. One machine that does so for many is their bottleneck.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from segmed.archive.study import NotImage, Study, StudySource
from segmed.errors import SegmedError, ServiceError
from segmed.io.digest import sha256_of_file

Digests = tuple[tuple[str, ...], ...]
"""For each channel, the digest of each of its files."""

PATIENCE_S = 0.1
"""Longest wait for an answer before results are looked after, in s."""


@dataclass(frozen=True)
class Files:
    """Question for the digests of files.

    Attributes:
        channels: The files of each channel.
    """

    channels: tuple[tuple[Path, ...], ...]


@dataclass(frozen=True)
class StudyListing:
    """Question for the series and instances of a study in a PACS.

    Attributes:
        study_uid: StudyInstanceUID.
        patient_id: PatientID.
    """

    study_uid: str
    patient_id: str


Question = Files | StudyListing
Answer = Digests | tuple[Study, ...]


@dataclass(frozen=True)
class Unidentified:
    """A study, or several of a PACS, before it is known what they contain.

    Attributes:
        question: Question whose answer says it.
        study: What is known already.
    """

    question: Question
    study: Study | None = None


@runtime_checkable
class PacsListing(Protocol):
    """A source that lists a study by its identifiers."""

    def units_of(self, study_uid: str, patient_id: str) -> list[Study]:
        """Units of work of one study."""
        ...


class Deferring(Protocol):
    """Lists studies that may be identified later, by someone else."""

    def unidentified(self) -> Iterator[Study | NotImage | Unidentified]:
        """Like `studies`, with questions in place of most studies."""
        ...

    def identified(self, item: Unidentified, answer: Answer | Exception) -> Iterable[Study]:
        """Studies of `unidentified`, from the answer or from the reason why there is none."""
        ...


@runtime_checkable
class DeferringSource(Deferring, StudySource, Protocol):
    """A source that can defer."""


class Identifier(Protocol):
    """Answers questions, several at once."""

    @property
    def ahead(self) -> int:
        """Questions worth asking at once."""
        ...

    def ask(self, question: Question, source: StudySource) -> Future[Answer]:
        """Begin to answer a question about a source."""
        ...


def answer_to(question: Question, source: object) -> Answer:
    """Answer a question on this machine.

    Args:
        question: The question.
        source: The source that a listing comes from.

    Raises:
        OSError: A file cannot be read.
        SegmedError: The PACS does not answer, or refuses.
    """
    if isinstance(question, Files):
        return tuple(
            tuple(sha256_of_file(path) for path in channel) for channel in question.channels
        )
    assert isinstance(source, PacsListing)  # it asked
    return tuple(source.units_of(question.study_uid, question.patient_id))


def answer_or_error(question: Question, source: object) -> Answer | Exception:
    """Answer a question, or return why it has no answer, in a form that can be sent."""
    try:
        return answer_to(question, source)
    except (OSError, SegmedError) as error:
        return error
    except Exception as error:  # noqa: BLE001 - the asker must get an answer
        return ServiceError(f"{type(error).__name__}: {error}")


class ThreadIdentifier:
    """Answers in threads of this process: SHA-256 and networks leave Python to the others.

    Args:
        threads: How many questions at once.
    """

    def __init__(self, threads: int) -> None:
        self.ahead = 2 * threads
        self._threads = ThreadPoolExecutor(threads, "segmed-identify")

    def ask(self, question: Question, source: StudySource) -> Future[Answer]:
        """Begin to answer a question."""
        return self._threads.submit(answer_to, question, source)

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown(cancel_futures=True)


def identified_here(source: Deferring) -> Iterator[Study | NotImage]:
    """Studies of a source, each identified when its turn comes."""
    for item in source.unidentified():
        if not isinstance(item, Unidentified):
            yield item
            continue
        try:
            answer: Answer | Exception = answer_to(item.question, source)
        except (OSError, SegmedError) as error:
            answer = error
        yield from source.identified(item, answer)


def studies_of(
    source: StudySource, identifier: Identifier | None
) -> Iterator[Study | NotImage | None]:
    """Studies in the order of the source, by any process that identifies them.

    Args:
        source: The source; one that cannot defer identifies its studies itself.
        identifier: Answers ahead; None: the source does, one study after the other.

    Yields:
        None while the next answer is waited for, so that the caller may do something else.
    """
    if identifier is None or not isinstance(source, DeferringSource):
        yield from source.studies()
        return
    ahead: deque[Study | NotImage | tuple[Unidentified, Future[Answer]]] = deque()
    for item in source.unidentified():
        is_open = isinstance(item, Unidentified)
        ahead.append((item, identifier.ask(item.question, source)) if is_open else item)  # type: ignore[union-attr, arg-type]  # it is
        if len(ahead) > identifier.ahead:
            yield from _first_of(ahead.popleft(), source)
    while ahead:
        yield from _first_of(ahead.popleft(), source)


def _first_of(
    first: Study | NotImage | tuple[Unidentified, Future[Answer]], source: DeferringSource
) -> Iterator[Study | NotImage | None]:
    if not isinstance(first, tuple):
        yield first
        return
    item, future = first
    while not wait([future], PATIENCE_S).done:
        yield None
    error = future.exception()
    if error is not None and not isinstance(error, Exception):
        raise error
    yield from source.identified(item, future.result() if error is None else error)
