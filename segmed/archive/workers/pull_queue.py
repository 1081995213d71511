"""Queue of a driver from which workers pull single items, each with a few in hand."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Generic, TypeVar

T = TypeVar("T")

MOST_LOSSES = 3
"""Workers that may be lost with an item in hand before it is given up."""


@dataclass
class _Item(Generic[T]):
    key: str
    content: T
    near: str = ""
    losses: int = 0


@dataclass
class _Hands(Generic[T]):
    places: int
    items: dict[str, _Item[T]] = field(default_factory=dict)

    @property
    def has_room(self) -> bool:
        return len(self.items) < self.places


class PullQueue(Generic[T]):
    """Items in the order of their arrival, and the items that each worker has in hand.

    Without threads, clock or network: a driver calls it, and a simulation calls the same code.
    An item is with one worker at a time. What a lost worker had in hand goes back to the front.
    """

    def __init__(self) -> None:
        self._waiting: deque[_Item[T]] = deque()
        self._workers: dict[str, _Hands[T]] = {}

    @property
    def num_waiting(self) -> int:
        """Items that no worker has."""
        return len(self._waiting)

    @property
    def num_in_hand(self) -> int:
        """Items that workers have."""
        return sum(len(hands.items) for hands in self._workers.values())

    def join(self, worker: str, places: int) -> None:
        """Let a worker take part.

        Args:
            worker: Its name, used once: a worker that comes again has another.
            places: Items that it may have in hand.
        """
        self._workers[worker] = _Hands(places)

    def leave(self, worker: str) -> list[T]:
        """Take a worker out, and its items back; nothing for one that is out already.

        Returns:
            Items that are given up: too many workers were lost with them in hand.
        """
        hands = self._workers.pop(worker, None)
        given_up = []
        for item in reversed(hands.items.values() if hands else ()):
            item.losses += 1
            if item.losses >= MOST_LOSSES:
                given_up.append(item.content)
            else:
                item.near = ""
                self._waiting.appendleft(item)
        return given_up[::-1]

    def add(self, key: str, content: T, *, near: str = "") -> None:
        """Add an item.

        Args:
            key: Its name among all that wait or are in hand.
            content: What the worker receives.
            near: The worker that best takes it, since it has its files in memory.
        """
        self._waiting.append(_Item(key, content, near))

    def settle(self, worker: str, key: str) -> bool:
        """End an item that a worker has done; its place is free.

        Returns:
            Whether the worker had it: False for one that was taken for lost and answers late.
        """
        hands = self._workers.get(worker)
        return hands is not None and hands.items.pop(key, None) is not None

    def pull(self, worker: str) -> T | None:
        """Give a worker an item if one waits, it has room, and its fair share is not in hand yet.

        The share is equal parts of all that waits or is in hand: near the end of a run no worker
        keeps studies for later while another has none.
        """
        hands = self._workers[worker]
        share = -(-(self.num_waiting + self.num_in_hand) // len(self._workers))
        if not self._waiting or not hands.has_room or len(hands.items) >= share:
            return None
        return self._give(worker)

    def hand_out(self) -> list[tuple[str, T]]:
        """Give waiting items to workers with room, those with the fewest in hand first."""
        given = []
        while self._waiting:
            free = [name for name, hands in self._workers.items() if hands.has_room]
            if not free:
                break
            worker = min(free, key=lambda name: len(self._workers[name].items))
            given.append((worker, self._give(worker)))
        return given

    def _give(self, worker: str) -> T:
        item = self._best_for(worker)
        self._workers[worker].items[item.key] = item
        return item.content

    def _best_for(self, worker: str) -> _Item[T]:
        """Take out the first item that is near a worker, or else the first of all."""
        place = next((n for n, item in enumerate(self._waiting) if item.near == worker), 0)
        item = self._waiting[place]
        del self._waiting[place]
        return item
