"""Time and device of one training, from a budget: a plan is made for these."""

from __future__ import annotations

from segmed.errors import unknown_name
from segmed.plan import Plan
from segmed.plan.networks import BASE_WIDTH, Size
from segmed.plan.resources import Resources
from segmed.training import Budget

MEMORY_SHARE = 0.8
"""Share of a GPU's memory that a plan may use; the rest is the driver's, cases and graphs."""

ALIKE = 3.0
"""Budgets within this ratio of each other share a plan without a remark."""


def resources_for(
    budget: Budget | None, device: str, *, cores: int | None = None
) -> Resources | None:
    """Time and device of one training.

    Args:
        budget: Budget of one training.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        cores: Cores of the training; the threads of this process if not given.

    Returns:
        The resources; None where the budget states no time.

    Raises:
        UsageError: The device is unknown, or absent.
    """
    if budget is None or budget.seconds is None:
        return None
    import torch  # noqa: PLC0415 - takes a second, and names are checked before

    from segmed.training import choose_device  # noqa: PLC0415 - likewise

    return Resources(
        round(budget.seconds, 1),
        clock=budget.clock,
        device="cuda" if choose_device(device).is_cuda else "cpu",
        cores=cores or torch.get_num_threads(),
    )


def size_for(size: str | None, device: str) -> Size:
    """The size of networks by name; where none is given, what suits the device.

    Args:
        size: `small`, `full` or `residual`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.

    Returns:
        The named size; else `full` for a GPU and `small` for a CPU.

    Raises:
        UsageError: There is no such size or device.
    """
    return require_known_size(size) or ("full" if _is_gpu(device) else "small")


def require_known_size(size: str | None) -> Size | None:
    """The named size, or None for none.

    Raises:
        UsageError: There is no such size.
    """
    for known in BASE_WIDTH:
        if size == known:
            return known
    if size is not None:
        raise unknown_name("size", size, list(BASE_WIDTH))
    return None


def memory_for(device: str) -> float | None:
    """Memory of a training step on a GPU, in GB; None leaves the plan's own default.

    Args:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
    """
    if not _is_gpu(device):
        return None
    import torch  # noqa: PLC0415 - takes a second

    from segmed.training import choose_device  # noqa: PLC0415 - likewise

    properties = torch.cuda.get_device_properties(choose_device(device).torch_device)
    return round(MEMORY_SHARE * properties.total_memory / 1e9, 1)


def _is_gpu(device: str) -> bool:
    if device == "cpu":
        return False
    from segmed.training import choose_device  # noqa: PLC0415 - loads torch

    return choose_device(device).is_cuda


def remark_on_budget(plan: Plan, resources: Resources | None) -> str:
    """A sentence for a plan that was made for another time; empty where it fits.

    Args:
        plan: The plan that is going to be used.
        resources: Time and device of one training.
    """
    if resources is None or not plan.planned_for:
        return ""
    planned = Resources(**plan.planned_for)
    ratio = resources.gmac / planned.gmac
    if 1 / ALIKE <= ratio <= ALIKE:
        return ""
    finer = "a finer spacing" if ratio > 1 else "a coarser spacing, with more steps,"
    return (
        f"the plan was made for {planned.described}, this training has {resources.described}: "
        f"{finer} may do better; leave out --plan and give another --out, or use "
        "`segmed plan --budget`"
    )
