"""The driver's decisions, driven by simulated workers with recorded times."""

from __future__ import annotations

from pathlib import Path

import pytest

from segmed.archive.identifying import Files
from segmed.archive.job import Job, Result
from segmed.archive.study import Study, content_hash
from segmed.archive.workers.dispatcher import LOST, QUESTIONS, Dispatcher
from segmed.archive.workers.messages import Answered, Gone, Hello, Ticketed
from segmed.archive.workers.pull_queue import MOST_LOSSES

FILES = Files(((Path("a"),),))


def job(number: int, content: str = "") -> Job:
    return Job(f"key{number}", Study(content or f"{number:064x}", "nifti", ""), Path("out"))


def test_worker_that_hashed_a_study_gets_it() -> None:
    hashed: list[Answered] = []
    dispatcher = Dispatcher(2, hashed.append)
    for worker in ("one", "two"):
        dispatcher.receive(worker, Hello())
    for ticket in range(2):
        dispatcher.ask(ticket, FILES)
    assert dispatcher.hand_out() == [("one", Ticketed(0, FILES)), ("two", Ticketed(1, FILES))]
    for ticket, worker in enumerate(["one", "two"]):
        dispatcher.receive(worker, Answered(ticket, ((f"digest{ticket}",),)))
    assert [message.ticket for message in hashed] == [0, 1]
    second, first = (job(n, content_hash(((f"digest{n}",),))) for n in (1, 0))
    dispatcher.submit(second)
    dispatcher.submit(first)
    assert sorted(dispatcher.hand_out()) == [("one", first), ("two", second)]


def test_hashing_does_not_wait_behind_segmenting() -> None:
    dispatcher = Dispatcher(1, lambda _: None)
    dispatcher.receive("one", Hello())
    for number in range(3):
        dispatcher.submit(job(number))
    for ticket in range(5):
        dispatcher.ask(ticket, FILES)
    orders = [order for _, order in dispatcher.hand_out()]
    assert sum(isinstance(order, Ticketed) for order in orders) == QUESTIONS
    assert sum(isinstance(order, Job) for order in orders) == 1


def test_studies_and_digests_of_lost_workers_go_to_others_and_end_badly_at_last() -> None:
    hashed: list[Answered] = []
    dispatcher = Dispatcher(2, hashed.append)
    dispatcher.submit(job(0))
    dispatcher.ask(7, FILES)
    for number in range(MOST_LOSSES):
        dispatcher.receive(f"{number}", Hello())
        assert [worker for worker, _ in dispatcher.hand_out()] == [f"{number}"] * 2
        ends = dispatcher.receive(f"{number}", Gone())
        assert dispatcher.receive(f"{number}", Result("key0")) == ()
        dispatcher.receive(f"{number}", Answered(7, (("late",),)))
    assert [(end.key, end.reason, end.refused) for end in ends] == [("key0", LOST, False)]
    [answer] = hashed
    assert isinstance(answer.answer, OSError)
    dispatcher.receive("last", Hello())
    assert dispatcher.hand_out() == []


@pytest.mark.parametrize("workers", [2, 64])
def test_no_worker_is_without_a_study_while_one_waits(workers: int) -> None:
    dispatcher = Dispatcher(4, lambda _: None)
    held: dict[str, list[str]] = {}
    for number in range(10 * workers):
        dispatcher.submit(job(number))
    for number in range(workers):
        dispatcher.receive(f"w{number}", Hello())
        held[f"w{number}"] = []
    ended = 0
    while ended < 10 * workers:
        for worker, order in dispatcher.hand_out():
            assert isinstance(order, Job)
            held[worker].append(order.key)
        sizes = [len(keys) for keys in held.values()]
        left = 10 * workers - ended
        assert min(sizes) > 0 or left < workers * max(sizes), "unfair"
        slowest = max(held, key=lambda name: len(held[name]))
        assert dispatcher.receive(slowest, Result(held[slowest].pop(0)))
        ended += 1
    dispatcher.receive("last", Hello())
    assert dispatcher.hand_out() == []
