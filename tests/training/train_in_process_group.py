"""One process of a process group, for `torchrun`: trains and writes what it saw to `rank<N>.json`.

Arguments: the working folder, which holds `plan.yaml`; the sample's manifest; the budget as
`epochs=N` or `seconds=N`.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import torch
from narrow_training import few_cases, start

from segmed.plan import read_plan
from segmed.training import Budget


def main() -> None:
    folder, manifest = Path(sys.argv[1]), few_cases(Path(sys.argv[2]))
    unit, amount = sys.argv[3].split("=")
    budget = Budget(epochs=int(amount)) if unit == "epochs" else Budget(seconds=float(amount))
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    stopped = ""
    results = []
    try:
        for result in start(
            manifest,
            read_plan(folder / "plan.yaml"),
            folder / "run",
            folder / "cache",
            budget=budget,
            resume=True,
        ):
            results.append(result.as_record())
            (folder / f"epoch{result.epoch}.rank{rank}").touch()
    except KeyboardInterrupt as error:
        stopped = str(error)
    has_package = (folder / "run" / "package").is_dir()
    record = {"results": results, "stopped": stopped, "has_package": has_package}
    (folder / f"rank{rank}.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
