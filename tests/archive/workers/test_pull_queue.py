"""The queue from which workers pull: fair, each item with one worker, lost ones back in front."""

from __future__ import annotations

import random

import pytest

from segmed.archive.workers.pull_queue import MOST_LOSSES, PullQueue


def queue_of(items: str, **workers: int) -> PullQueue[str]:
    queue: PullQueue[str] = PullQueue()
    for name, places in workers.items():
        queue.join(name, places)
    for item in items:
        queue.add(item, item)
    return queue


def test_workers_get_items_in_turn_until_their_hands_are_full() -> None:
    queue = queue_of("abcdefg", one=2, two=2)
    assert queue.hand_out() == [("one", "a"), ("two", "b"), ("one", "c"), ("two", "d")]
    assert (queue.num_waiting, queue.num_in_hand) == (3, 4)
    assert queue.hand_out() == []
    assert queue.settle("two", "b")
    assert queue.hand_out() == [("two", "e")]


def test_a_worker_that_joins_late_gets_items_before_those_that_have_some() -> None:
    queue = queue_of("abc", one=3)
    assert [worker for worker, _ in queue.hand_out()] == ["one"] * 3
    for item in "def":
        queue.add(item, item)
    queue.join("two", 3)
    assert queue.settle("one", "a")
    assert queue.hand_out() == [("two", "d"), ("two", "e"), ("one", "f")]


def test_items_of_a_lost_worker_go_to_the_front_in_their_order() -> None:
    queue = queue_of("abcd", one=2)
    queue.hand_out()
    assert queue.leave("one") == []
    queue.join("two", 3)
    assert queue.hand_out() == [("two", "a"), ("two", "b"), ("two", "c")]


def test_a_lost_worker_that_answers_late_settles_nothing() -> None:
    queue = queue_of("a", one=1)
    queue.hand_out()
    queue.leave("one")
    assert queue.leave("one") == []
    assert not queue.settle("one", "a")
    queue.join("two", 1)
    assert queue.hand_out() == [("two", "a")]
    assert not queue.settle("one", "a"), "it is with another worker now"
    assert queue.settle("two", "a")
    assert not queue.settle("two", "a"), "it was done already"


def test_an_item_whose_workers_are_lost_again_and_again_is_given_up() -> None:
    queue = queue_of("a")
    for number in range(MOST_LOSSES):
        queue.join(f"{number}", 2)
        if number == MOST_LOSSES - 1:
            queue.add("b", "b")
        queue.hand_out()
        assert queue.leave(f"{number}") == (["a"] if number == MOST_LOSSES - 1 else [])
    assert queue.num_waiting == 1, "the other one was lost once only"


def test_the_worker_that_is_near_an_item_gets_it_but_nobody_waits_for_a_neighbour() -> None:
    queue = queue_of("ab", one=2, two=2)
    queue.add("c", "c", near="two")
    assert queue.hand_out() == [("one", "a"), ("two", "c"), ("one", "b")]
    queue.add("d", "d", near="one")
    assert queue.hand_out() == [("two", "d")], "the one that is near has its hands full"


def test_who_pulls_gets_its_fair_share_of_what_there_is() -> None:
    queue = queue_of("abc", one=5, two=5)
    assert [queue.pull("one"), queue.pull("one"), queue.pull("one")] == ["a", "b", None]
    assert [queue.pull("two"), queue.pull("two")] == ["c", None]
    for number in range(20):
        queue.add(f"{number}", f"{number}")
    pulled = [queue.pull("one") for _ in range(6)]
    assert sum(item is not None for item in pulled) == 3, "its hands are full"


@pytest.mark.parametrize("seed", range(20))
def test_every_item_is_settled_once_however_workers_come_and_go(seed: int) -> None:
    chance = random.Random(seed)
    items = [f"{number}" for number in range(200)]
    queue: PullQueue[str] = PullQueue()
    held: dict[str, list[str]] = {}
    settled: list[str] = []
    given_up: list[str] = []
    waiting = list(items)
    born = 0
    while len(settled) + len(given_up) < len(items):
        act = chance.random()
        if waiting and act < 0.4:
            item = waiting.pop()
            queue.add(item, item)
        elif act < 0.5 or not held:
            born += 1
            queue.join(f"w{born}", chance.randint(1, 4))
            held[f"w{born}"] = []
        elif act < 0.53:
            name = chance.choice(list(held))
            given_up += queue.leave(name)
            del held[name]
        else:
            name = chance.choice(list(held))
            if held[name]:
                item = held[name].pop(chance.randrange(len(held[name])))
                assert queue.settle(name, item)
                settled.append(item)
        for name, item in queue.hand_out():
            held[name].append(item)
    assert sorted(settled + given_up) == sorted(items)
    assert (queue.num_waiting, queue.num_in_hand) == (0, 0)
