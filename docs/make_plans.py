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
COLUMNS = (
    "set", "size", "memory, GB", "spacing, mm", "patch", "patches a step", "levels", "features",
    "step, GB",
)  # fmt: skip


def row(name: str, size: Size, memory_gb: float) -> str:
    """One row of the table."""
    from segmed.plan.step_memory import TrainedNetwork, step_bytes  # noqa: PLC0415 - loads torch

    title, manifest, facts = published_facts(name)
    plan = decide_plan(manifest, facts, size=size, memory_gb=memory_gb)
    unet, batch_size = plan.networks["unet"], plan.recipe.batch_size
    widths = unet.options["widths"]
    trained = TrainedNetwork(
        "unet", unet.options, unet.loss, plan.in_channels, plan.num_classes, plan.patch_size
    )
    need = step_bytes(trained, batch_size=batch_size, device="cuda", is_half=True)
    cells = (
        title,
        f"`{size}`",
        f"{memory_gb:g}",
        "x".join(f"{edge:.3g}" for edge in plan.preprocessing.spacing_mm),
        "x".join(map(str, plan.patch_size)),
        str(batch_size),
        str(len(widths)),
        f"{widths[0]} to {widths[-1]}",
        f"{need / 1e9:.1f}",
    )
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
    return HEAD + "\n".join([*head, *rows]) + "\n"


if __name__ == "__main__":
    TARGET.write_text(page(), encoding="utf-8")
