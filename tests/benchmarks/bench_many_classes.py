"""Cost of the loss and of validation against the number of classes, beside MONAI's.

Run: `python -m tests.benchmarks.bench_many_classes`. Labels are crops of `brain_many_labels`, whose
structures are taken modulo the number of classes. CPU seconds of one thread, medians; the cost a
class is set against that of the fewest classes, so that 1 is linear.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.losses import DiceCELoss as MonaiDiceCELoss
from monai.metrics import DiceMetric
from monai.networks.utils import one_hot

from segmed.encoding import LabelEncoding
from segmed.losses import DiceCELoss
from segmed.metrics import DiceScore
from segmed.structures import LabelClass

RESULTS = Path(__file__).parent / "results" / "many_classes.json"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
CLASSES = (3, 21, 41, 105, 149)
SIDE, BATCH, ROUNDS = 40, 2, 5


def labels(num_classes: int) -> torch.Tensor:
    """Class indices `[B, *spatial]` of real heads."""
    files = sorted((DATA / "brain_many_labels" / "labelsTr").glob("*.nii.gz"))[:BATCH]
    crop = tuple(slice(20, 20 + SIDE) for _ in range(3))
    found = [np.asarray(nib.load(path).dataobj)[crop].astype(np.int64) for path in files]
    return torch.from_numpy(np.stack(found)) % num_classes


def seconds(work: Callable[[], Any]) -> float:
    """Median of CPU seconds."""
    work()
    spent = []
    for _ in range(ROUNDS):
        begun = time.process_time()
        work()
        spent.append(time.process_time() - begun)
    return statistics.median(spent)


def steps(loss: torch.nn.Module, logits: torch.Tensor, target: torch.Tensor) -> dict[str, float]:
    """Seconds of the loss, and of its gradient."""
    forward = seconds(lambda: loss(logits, target))
    both = seconds(lambda: loss(logits, target).backward())
    return {"forward_s": forward, "backward_s": both - forward}


def measured(num_classes: int) -> dict[str, Any]:
    """All figures for a number of classes."""
    target = labels(num_classes)
    logits = torch.randn((BATCH, num_classes, *(SIDE,) * 3), requires_grad=True)
    ours = DiceCELoss(num_classes)
    monai = MonaiDiceCELoss(include_background=False, softmax=True, to_onehot_y=True, batch=True)
    predicted = logits.detach().argmax(1, keepdim=True)
    encoding = LabelEncoding(
        tuple(LabelClass(name=f"s{n}", value=n) for n in range(1, num_classes))
    )
    dice, peer = DiceScore(num_classes, encoding=encoding), DiceMetric(include_background=False)

    def one_hot_dice() -> None:
        peer(one_hot(predicted, num_classes), one_hot(target[:, None], num_classes))

    return {
        "classes": num_classes,
        "loss": steps(ours, logits, target),
        "loss_monai": steps(monai, logits, target[:, None]),
        "validation_s": seconds(lambda: dice(predicted, target[:, None])),
        "validation_monai_s": seconds(one_hot_dice),
    }


def main() -> None:
    """Measure, print and record."""
    torch.set_num_threads(1)
    rows = [measured(number) for number in CLASSES]
    first = sum(rows[0]["loss"].values()) / rows[0]["classes"]
    for row in rows:
        cost, peer = sum(row["loss"].values()), sum(row["loss_monai"].values())
        row["growth_of_cost_a_class"] = round(cost / row["classes"] / first, 3)
        row["monai_over_ours"] = round(peer / cost, 2)
        row["validation_monai_over_ours"] = round(
            row["validation_monai_s"] / row["validation_s"], 2
        )
        print(
            f"{row['classes']:4d} classes: loss {1e3 * cost:7.1f} ms (MONAI {1e3 * peer:7.1f}), "
            f"a class {row['growth_of_cost_a_class']:.2f} times that of {CLASSES[0]} classes; "
            f"validation {1e3 * row['validation_s']:6.1f} ms "
            f"(MONAI {1e3 * row['validation_monai_s']:7.1f})"
        )
    record = {"side": SIDE, "batch": BATCH, "torch": torch.__version__, "rows": rows}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
