"""Writes `plans.md`: plans of five public image sets by memory of the GPU, from published facts.

python docs/make_plans.py
"""

from __future__ import annotations

import json
import sys
from math import prod
from pathlib import Path

HERE = Path(__file__).resolve().parent
TARGET = HERE / "plans.md"
FACTS = HERE.parent / "tests" / "plan"
sys.path.append(str(FACTS))

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
takes 80 % of the memory of the GPU.

The last two columns are of nnU-Net 2.8.1's own planners (`ExperimentPlanner`, and `ResEncM` for
`residual`) from the same facts, by `tests/plan/nnunet_plans.py`: patch and patches a step, and the
voxels of our step as a share of theirs. Their features are ours: 32 to 320, of hippocampus 256. For
LiTS they plan 128x128x128 at 2, as nnU-Net publishes; for hippocampus it publishes 9 patches a
step, 5 % of all 260 cases.

- Our steps hold fewer voxels for the same figure of memory. nnU-Net states that 128x128x128 at 2
  take 7.7 GB; ours took 10.84 GB when measured: group norm is computed and kept in 32 bits. It was
  faster than PyTorch's instance norm on an H200 (67 and 73 ms forward and backward).
- Shapes differ: nnU-Net begins with a cube in mm, segmed with the proportions of the image.
- `ResEncM` does not bound the share of a set that a batch takes; here it is 5 %, as in nnU-Net's
  other plans. So they differ most for hippocampus.

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
    "step, GB", "nnU-Net's", "share",
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
        *beside_nnunet(name, size, memory_gb, prod(plan.patch_size) * batch_size),
    )
    return f"| {' | '.join(cells)} |"


def beside_nnunet(name: str, size: Size, memory_gb: float, voxels: int) -> tuple[str, str]:
    """Patch and patches a step of nnU-Net's planner, and our voxels of a step as a share of its."""
    record = json.loads((FACTS / "nnunet_plans.json").read_text(encoding="utf-8"))
    theirs = record["plans"][name][f"{size} {memory_gb:g}"]
    patch, batch_size = theirs["patch"], theirs["batch"]
    share = voxels / (prod(patch) * batch_size)
    return f"{'x'.join(map(str, patch))} at {batch_size}", f"{share:.2f}"


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
    head = [f"| {' | '.join(COLUMNS)} |", "|---|---|---:|---|---|---:|---:|---|---:|---|---:|"]
    others = [others_row(name, memory_gb) for name in SETS for memory_gb in OTHERS_GB]
    first = HEAD + "\n".join([*head, *rows]) + "\n"
    return first + OTHERS_HEAD + "\n".join(others) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
