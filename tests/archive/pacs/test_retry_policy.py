"""Retries of a service that does not answer, and of nothing else."""

from __future__ import annotations

import pytest

from segmed.archive import RetryPolicy
from segmed.errors import ImageError, ServiceError


def failing(times: int, error: Exception) -> object:
    left = [error] * times

    def act() -> str:
        if left:
            raise left.pop()
        return "done"

    return act


def test_waits_double_up_to_the_longest_and_success_ends_them() -> None:
    waits: list[float] = []
    retry = RetryPolicy(attempts=6, first_wait_s=1.0, longest_wait_s=5.0)
    assert retry.call(failing(5, ServiceError("gone")), sleep=waits.append) == "done"
    assert waits == [1.0, 2.0, 4.0, 5.0, 5.0]


def test_last_failure_is_raised() -> None:
    waits: list[float] = []
    with pytest.raises(ServiceError, match="gone"):
        RetryPolicy(attempts=3).call(failing(3, ServiceError("gone")), sleep=waits.append)
    assert len(waits) == 2


def test_bad_data_is_not_waited_for() -> None:
    waits: list[float] = []
    bad = ImageError("no image", reason="not_image")
    with pytest.raises(ImageError):
        RetryPolicy().call(failing(1, bad), sleep=waits.append)
    assert waits == []
