"""One process of a process group, for `torchrun`: trains and writes what it saw to `rank<N>.json`.

Arguments: the working folder, which holds `plan.yaml`; the sample's manifest; the budget as
`epochs=N` or `seconds=N`, perhaps with a signal that process R sends itself after an epoch E:
`epochs=N SIGKILL R E`.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import torch
from narrow_training import few_cases, start

from segmed.plan import read_plan
from segmed.training import Budget

written: list[str] = []
"""Files of the run that this process opened for writing."""


def note_writing(folder: Path) -> None:
    """Note files below a folder that are opened for writing from now on."""

    def note(event: str, arguments: tuple[object, ...]) -> None:
        if event == "open" and str(arguments[0]).startswith(str(folder)):
            flags = arguments[2]
            if isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                written.append(str(arguments[0]))

    sys.addaudithook(note)


def main() -> None:
    folder, manifest = Path(sys.argv[1]), few_cases(Path(sys.argv[2]))
    amount_of, *ending = sys.argv[3].split()
    unit, amount = amount_of.split("=")
    budget = Budget(epochs=int(amount)) if unit == "epochs" else Budget(seconds=float(amount))
    torch.set_num_threads(1)
    rank = os.environ.get("RANK", "0")
    note_writing(folder / "run")
    stopped, results, prepared = "", [], []
    try:
        for result in start(
            manifest,
            read_plan(folder / "plan.yaml"),
            folder / "run",
            folder / "cache",
            budget=budget,
            resume=True,
            on_prepared=lambda done, total: prepared.append((done, total)),
        ):
            results.append(result.as_record())
            if ending and ending[1:] == [rank, str(result.epoch)]:
                os.kill(os.getpid(), signal.Signals[ending[0]])
    except KeyboardInterrupt as error:
        stopped = str(error)
    has_package = (folder / "run" / "package").is_dir()
    record = {
        "results": results,
        "stopped": stopped,
        "has_package": has_package,
        "written": written,
        "prepared": prepared[-1][0],
    }
    (folder / f"rank{rank}.json").write_text(json.dumps(record), encoding="utf-8")


if __name__ == "__main__":
    main()
