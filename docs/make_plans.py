"""Writes `plans.md`: plans of five public image sets by memory of the GPU, from published facts.

python docs/make_plans.py
"""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE / "plans.md"
sys.path.append(str(HERE.parent / "tests" / "plan"))

from published_facts import PUBLISHED, published_facts  # noqa: E402 - beside its tests

from segmed.plan.make import decide_plan  # noqa: E402 - likewise
from segmed.plan.networks import Size  # noqa: E402 - likewise
from segmed.plan.schema import Plan  # noqa: E402 - likewise

SETS = (*PUBLISHED, "hippocampus")
MEMORIES_GB: dict[Size, tuple[float, ...]] = {"full": (8, 11, 24, 80), "residual": (8, 11, 24, 80)}
HEAD = """\
# Plans by the memory of the GPU

Made by `python docs/make_plans.py`; a test compares the rows. Each row is the plan of the U-Net for
a public image set, with the memory that a step of training is foreseen to take
(`segmed.plan.step_memory`; measured for two patches of 128x128x128, `full`, 16 bits: 10.84 GB).

The plans are made from published facts of the sets, not from their files
(`tests/plan/published_facts.py`); those of hippocampus from its files. Without `--memory-gb` a plan
takes 80 % of the memory of the GPU. nnU-Net publishes 128x128x128 at 2 patches a step for LiTS and
40x56x40 at 9 for hippocampus, with 6 levels of 32 to 320 and 4 of 32 to 256 features. Patches of
other sets differ in shape: nnU-Net begins with a cube in mm, segmed with the proportions of the
image.

"""
OTHERS = ("fcn8s", "unetpp", "unet3plus", "deeplabv3plus")
OTHERS_GB = (11, 24)
OTHERS_HEAD = """
## Other architectures

Patch and batch are those of the U-Net; here for `full` networks. Each cell is the number of
features at the finest level and the memory of a step, in GB; of the U-Net the number is 32. U-Net++
and UNet 3+ need two to four times the memory of a U-Net of the same widths. Where it is not there,
the maps of their decoders are computed again in the backward pass (marked *again*), which costs one
more forward pass of the decoder; where that is not enough, they are narrower.

| set | memory, GB | FCN-8s | U-Net++ | UNet 3+ | DeepLabv3+ |
|---|---:|---|---|---|---|
"""
COLUMNS = (
    "set", "size", "memory, GB", "spacing, mm", "patch", "patches a step", "levels", "features",
    "step, GB",
)  # fmt: skip


def row(name: str, size: Size, memory_gb: float) -> str:
    """One row of the table."""
    title, manifest, facts = published_facts(name)
    plan = decide_plan(manifest, facts, size=size, memory_gb=memory_gb)
    batch_size, widths = plan.recipe.batch_size, plan.networks["unet"].options["widths"]
    cells = (
        title,
        f"`{size}`",
        f"{memory_gb:g}",
        "x".join(f"{edge:.3g}" for edge in plan.preprocessing.spacing_mm),
        "x".join(map(str, plan.patch_size)),
        str(batch_size),
        str(len(widths)),
        f"{widths[0]} to {widths[-1]}",
        f"{need_gb(plan, 'unet'):.1f}",
    )
    return f"| {' | '.join(cells)} |"


def need_gb(plan: Plan, name: str) -> float:
    """Memory of a step of one architecture, in GB."""
    from segmed.plan.step_memory import TrainedNetwork, step_bytes  # noqa: PLC0415 - loads torch

    network = plan.networks[name]
    trained = TrainedNetwork(
        name, network.options, network.loss, plan.in_channels, plan.num_classes, plan.patch_size
    )
    batch_size = plan.recipe.batch_size
    return step_bytes(trained, batch_size=batch_size, device="cuda", is_half=True) / 1e9


def others_row(name: str, memory_gb: float) -> str:
    """One row of the table of the other architectures."""
    title, manifest, facts = published_facts(name)
    plan = decide_plan(manifest, facts, size="full", memory_gb=memory_gb)
    cells = [title, f"{memory_gb:g}"]
    for other in OTHERS:
        options = plan.networks[other].options
        again = ", again" if options.get("recompute") else ""
        cells.append(f"{options['widths'][0]}{again}: {need_gb(plan, other):.1f}")
    return f"| {' | '.join(cells)} |"


def page() -> str:
    """The page."""
    rows = [
        row(name, size, memory_gb)
        for size, memories in MEMORIES_GB.items()
        for name in SETS
        for memory_gb in memories
    ]
    head = [f"| {' | '.join(COLUMNS)} |", "|---|---|---:|---|---|---:|---:|---|---:|"]
    others = [others_row(name, memory_gb) for name in SETS for memory_gb in OTHERS_GB]
    first = HEAD + "\n".join([*head, *rows]) + "\n"
    return first + OTHERS_HEAD + "\n".join(others) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
