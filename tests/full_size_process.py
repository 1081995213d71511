"""Work on a large set in a process with few open files; prints what it took as JSON.

The limit of open files and the largest memory are those of a whole process, so each piece of work
is one.

Usage: full_size_process.py train MANIFEST PLAN OUT
       full_size_process.py build FOLDER MANIFEST
"""

from __future__ import annotations

import json
import resource
import sys
from pathlib import Path

import torch

import segmed
from segmed.io.fork_server import end_servers
from segmed.manifest import build_manifest, census_lines, read_manifest, write_manifest
from segmed.training import Budget

MOST_OPEN = 256
"""Open files that the process may have, as many systems allow by default."""


def train_one_epoch(manifest: str, plan: str, out: str) -> dict[str, int]:
    """Train for one epoch; gives the number of its steps."""
    package = segmed.train(
        manifest, plan, architecture="unet", fold=0, budget=Budget(epochs=1), out=out, device="cpu"
    )
    return {"steps": package.provenance["steps"]}


def build(folder: str, manifest: str) -> dict[str, int]:
    """Build a manifest, write it and read it again; gives the number of its cases."""
    built = build_manifest(folder)
    census_lines(built)
    write_manifest(built, manifest)
    return {"cases": len(read_manifest(manifest).training)}


def usage() -> dict[str, float]:
    """Largest resident memory in MB, and CPU seconds with those of processes that ended."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    times = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return {"peak_mb": peak / 1024, "cpu_s": sum(used.ru_utime + used.ru_stime for used in times)}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_OPEN, MOST_OPEN))
    torch.set_num_threads(1)
    work = {"train": train_one_epoch, "build": build}[sys.argv[1]]
    done = work(*sys.argv[2:])
    if sys.argv[1] == "build":
        end_servers()  # their CPU time counts once they have ended
    print(json.dumps({**done, **usage()}))
