"""Live objects, such as an open run of MLflow, as arguments of a subflow in this process."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Passed(Generic[T]):
    """An object that a subflow gets by reference.

    Prefect sends the arguments of a flow run to its server as JSON, and takes objects apart for
    that. One without a `__dict__` it leaves alone: its page shows the name of the type.
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value
