"""Deliver finished segmentations; retry when a service does not answer, and only then."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from segmed.errors import AccessDeniedError, RefusedRequestError, ServiceError

T = TypeVar("T")


class Delivery(Protocol):
    """A place beyond the output folder that takes segmentations."""

    def deliver(self, path: Path) -> str:
        """Send a file; a second delivery of it replaces the first.

        Returns:
            The address to find it by.

        Raises:
            ServiceError: The place does not answer, or refuses the file.
        """
        ...

    def has(self, address: str) -> bool:
        """Return whether the place still has what was delivered under an address.

        Raises:
            ServiceError: The place does not answer.
        """
        ...


@runtime_checkable
class RevocableDelivery(Delivery, Protocol):
    """A place that takes back what was delivered to it."""

    def withdraw(self, address: str) -> None:
        """Remove what was delivered under an address; nothing if it is gone.

        Raises:
            ServiceError: The place does not answer, or refuses.
        """
        ...


@dataclass(frozen=True)
class RetryPolicy:
    """Attempts and waits for a service that does not answer.

    Attributes:
        attempts: Tries in all.
        first_wait_s: Wait after the first failure, in s; it doubles each time.
        longest_wait_s: Longest wait, in s.
    """

    attempts: int = 8
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0

    def call(self, act: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
        """Return the result of an action, repeated while a service fails it.

        Args:
            act: What to do; it must bear repetition.
            sleep: How to wait.

        Raises:
            ServiceError: The last attempt failed too.
            RefusedRequestError: The service gave a final answer; it is not queried again.
            AccessDeniedError: The service refuses this caller; it is not queried again.
        """
        wait_s = self.first_wait_s
        for _ in range(self.attempts - 1):
            try:
                return act()
            except (RefusedRequestError, AccessDeniedError):
                raise
            except ServiceError:
                sleep(wait_s)
                wait_s = min(2 * wait_s, self.longest_wait_s)
        return act()
