"""Time, device and memory that one training has, and the work that they allow."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Literal

from segmed.errors import UsageError

DeviceKind = Literal["cpu", "cuda"]

GMAC_PER_SECOND: dict[DeviceKind, float] = {"cpu": 40.0, "cuda": 20_000.0}
"""Multiply-accumulates of a small network's training that a device does in a second, in 1e9: one
core of a CPU (measured: 60 alone, 20 where the core is shared), and a whole GPU (half of what an
H200 does in captured steps: 35,000 at 40x56x40, 40,000 at 128 cubed)."""

CORE_EFFICIENCY = 0.7
"""Gain of each further core over the first."""

TRAINING_SHARE = {"wall": 0.85, "cpu": 1.0}
"""Share of a budget that is training: by the wall, cases are validated within it."""

DEFAULT_MEMORY_GB = 8.0
"""Memory a plan is made for when none is stated, in GB."""


@dataclass(frozen=True)
class Resources:
    """Resources of one training: time, memory and device.

    Attributes:
        seconds: Time of one training.
        clock: `wall`, or `cpu` for CPU seconds of all threads together.
        device: Kind of the device.
        cores: Cores that work at once, on a CPU.
        is_default: Whether the time is the default.

    Raises:
        UsageError: A value is not positive.
    """

    seconds: float
    clock: Literal["wall", "cpu"] = "wall"
    device: DeviceKind = "cpu"
    cores: int = 1
    is_default: bool = False

    def __post_init__(self) -> None:
        if self.seconds <= 0 or self.cores < 1:
            raise UsageError(
                f"a plan needs a positive time and at least one core, got {self.seconds:g} s and "
                f"{self.cores} cores"
            )

    def as_record(self) -> dict[str, float | int | str | bool]:
        """Plain values, as stored in a plan."""
        return asdict(self)

    @property
    def gmac(self) -> float:
        """Multiply-accumulates of training within the time, in 1e9."""
        cores = 1.0
        if self.device == "cpu" and self.clock == "wall":
            cores += CORE_EFFICIENCY * (self.cores - 1)
        share = TRAINING_SHARE[self.clock]
        return self.seconds * share * cores * GMAC_PER_SECOND[self.device]

    @property
    def described(self) -> str:
        """The time and the device in words."""
        unit = "CPU s" if self.clock == "cpu" else "s"
        device = "a GPU" if self.device == "cuda" else f"{self.cores} CPU core"
        device += "s" if self.device == "cpu" and self.cores > 1 else ""
        stated = " (none was stated)" if self.is_default else ""
        return f"{self.seconds:g} {unit}{stated} on {device}"


def default_resources(size: str) -> Resources:
    """The training that a plan is made for where no budget is stated.

    Args:
        size: Size of the networks: `small` ones are trained on a CPU for minutes, others on a GPU
            for hours.
    """
    if size == "small":
        return Resources(600.0, clock="cpu", is_default=True)
    return Resources(8 * 3600.0, device="cuda", is_default=True)
