"""One process of a process group, for `torchrun`: one step and one validation, to be compared.

Arguments: the working folder, which holds `plan.yaml`; the sample's manifest; `eager` or `graph`,
whose body runs without a graph on a CPU. Writes `rank<N>.pt`.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from narrow_training import few_cases

from segmed.plan import read_plan
from segmed.training.data import load_shared
from segmed.training.device import choose_device
from segmed.training.distributed import join_process_group
from segmed.training.stepping import EagerSteps, GraphSteps
from segmed.training.trainer import Trainer
from segmed.training.validation import validate

sums: list[int] = []
"""Numbers in each tensor that was added up so far."""


def count_sums() -> None:
    add_up = dist.all_reduce

    def counted(tensor: torch.Tensor, *args: Any, **options: Any) -> Any:
        sums.append(tensor.numel())
        return add_up(tensor, *args, **options)

    dist.all_reduce = counted


def main() -> None:
    folder, manifest, kind = Path(sys.argv[1]), few_cases(Path(sys.argv[2])), sys.argv[3]
    plan, device = read_plan(folder / "plan.yaml"), choose_device("cpu")
    torch.set_num_threads(1)
    count_sums()
    with join_process_group(device) as group:
        inside, held_out = manifest.split(0)
        cache = folder / f"cache{os.environ.get('RANK', '0')}"
        cases = load_shared(manifest, [*inside, *held_out], plan, cache, process_group=group)
        torch.manual_seed(0)
        trainer = Trainer("unet", plan, device=device, process_group=group)
        make = GraphSteps if kind == "graph" else EagerSteps
        steps = make(trainer, cases[: len(inside)], process_group=group, seed=3)
        works = steps.works(0)
        work = next(works)
        if trainer.shared is not None:
            trainer.shared.say(progress=0.25 + group.rank, stops=group.rank == 1)
        before = len(sums)
        loss = steps.take(work, step=0, progress=0.1)
        record = {
            "loss": loss,
            "gradients": {n: p.grad.clone() for n, p in trainer.network.named_parameters()},
            "weights": {n: t.clone() for n, t in trainer.network.state_dict().items()},
            "case_ids": work.case_ids,
            "sums": sums[before:],
            "heard": trainer.shared.heard() if trainer.shared else None,
            "seed": group.seed(3, 0),
        }
        network, seen = trainer.evaluation_network(), []
        network.register_forward_hook(lambda *_: seen.append(1))
        held_out = cases[len(inside) :]
        record["scores"] = vars(validate(network, held_out, plan, device, process_group=group))
        shared = len(seen)
        record["scores_alone"] = vars(validate(network, held_out, plan, device))
        record["share_of_windows"] = shared / (len(seen) - shared)
        works.close()
        torch.save(record, folder / f"rank{group.rank}.pt")


if __name__ == "__main__":
    main()
