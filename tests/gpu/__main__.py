"""Check segmed on a GPU: `python -m tests.gpu [PART ...]`, all parts unless some are named.

right: engines, steps and limits against a CPU. volume: 512x512x600. speed: steps and windows.
dice, atrium: trainings of `--seconds` on hippocampus and left atrium. nnunet: nnU-Net's trainer
beside ours on hippocampus, where its packages are installed.

Every finding is one line; all of them join a JSON file. Needs neither a registry nor a network, and
of the dependencies only those of training and inference, which `--wheels` prints for a machine that
has PyTorch, SciPy and pandas and reaches no registry. Exit status 1 if a part or a limit failed.
`--device cpu --tiny` tries the check itself.
"""

from __future__ import annotations

import argparse
import os
import platform
import sys
import tempfile
from pathlib import Path

import torch

from tests.gpu.wheels import missing_packages, wheels

REPOSITORY = Path(__file__).resolve().parents[2]
SHARED = REPOSITORY.parent / "shared" / "data"
PARTS = ("right", "volume", "speed", "dice", "nnunet", "atrium")


def refused(why: str) -> int:
    """Print in one line why nothing is checked; the exit status."""
    print(f"python -m tests.gpu: {why}", file=sys.stderr)
    return 2


def main() -> int:
    """Run the parts that are asked for."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.gpu",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(PARTS)}")
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--tiny", action="store_true", help="small patches, few steps")
    parser.add_argument("--compile", action="store_true", help="torch.compile as well: minutes")
    parser.add_argument(
        "--data", type=Path, default=SHARED / "hippocampus", help="hippocampus set (MSD)"
    )
    parser.add_argument(
        "--atrium",
        type=Path,
        default=SHARED / "left_atrium",
        help="left atrium set (MSD); its part is left out where it is absent",
    )
    parser.add_argument(
        "--seconds",
        type=float,
        default=100.0,
        help="length of each training to Dice; default: %(default)s",
    )
    parser.add_argument("--wheels", action="store_true", help="print what the check imports")
    parser.add_argument("--out", type=Path, default=Path("gpu-check.json"))
    options = parser.parse_args()
    if options.wheels:
        print(*wheels(), sep="\n")
        return 0
    if missing := missing_packages():
        return refused(
            f"not installed: {', '.join(missing)}; carry their wheels along "
            "(python -m tests.gpu --wheels prints all that are needed)"
        )
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        return refused(f"unknown part {unknown.pop()!r}: known are {', '.join(PARTS)}")
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        return refused(
            f"PyTorch {torch.__version__} sees no GPU: nothing was checked; "
            "--device cpu --tiny tries the check itself"
        )
    # Imported here: without its dependencies the check should say which are missing.
    from tests.gpu import dice, peer, right, speed, volume  # noqa: PLC0415 - see above
    from tests.gpu.findings import Check  # noqa: PLC0415 - see above

    scratch = Path(tempfile.mkdtemp(prefix="segmed-gpu-"))
    check = Check(device, options.tiny, options.data, options.atrium, scratch, options.seconds)
    check.note("GPU", torch.cuda.get_device_name() if device.type == "cuda" else "none")
    check.note("PyTorch", torch.__version__)
    check.note("Python", platform.python_version())
    check.note("CPU cores", os.cpu_count())
    runs = {
        "right": lambda: right.run(check),
        "volume": lambda: volume.run(check, compiles=options.compile),
        "dice": lambda: dice.run(check),
        "nnunet": lambda: peer.run(check),
        "atrium": lambda: dice.atrium(check),
        "speed": lambda: speed.run(check, compiles=options.compile),
    }
    for name in options.parts or PARTS:
        with check.part(name):
            runs[name]()
        check.write(options.out)
    print(f"{len(check.failed)} failed: {', '.join(check.failed)}" if check.failed else "all right")
    return 1 if check.failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
