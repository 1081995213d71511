"""Whom the programs try to reach: the system's own list of attempts, of every process."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

CALL = re.compile(r"(?:connect|sendto|sendmsg)\(.*?sa_family=(AF_\w+)(.*)")
LOOPBACK = re.compile(r'inet_addr\("127\.|"::1"|"::ffff:127\.')
LOCAL_FAMILIES = {"AF_UNIX", "AF_NETLINK", "AF_UNSPEC"}


def attempts(trace: str) -> list[str]:
    """Attempts in a trace to reach anything beyond this machine, name servers included."""
    return [
        match[0]
        for match in CALL.finditer(trace)
        if match[1] not in LOCAL_FAMILIES and not LOOPBACK.search(match[2])
    ]


def traced(folder: Path, *words: str) -> list[str]:
    """Runs `segmed` under strace, without variables that could keep it quiet; the attempts."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt-get install strace")
    report = folder / "trace"
    quiet = ("MLFLOW", "PREFECT", "DO_NOT_TRACK", "OPENVINO")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(quiet)}
    environment["SEGMED_CACHE"] = str(folder / "cache")  # nobody else's packages
    done = subprocess.run(
        ["strace", "-f", "-qq", "-s", "200", "-e", "trace=connect,sendto,sendmsg", "-o", report,
         sys.executable, "-c", "from pipelines.cli import main; main()", *words],
        capture_output=True, text=True, check=False, env=environment, timeout=840, encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return attempts(report.read_text(encoding="utf-8"))


def test_predict_and_archive_reach_for_nobody(package_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "scans").mkdir()
    voxels = np.random.default_rng(1).integers(0, 900, (12, 12, 12)).astype(np.int16)
    nib.save(nib.Nifti1Image(voxels, np.eye(4)), tmp_path / "scans" / "a.nii.gz")
    asked = [str(tmp_path / "scans"), "--model", str(package_folder), "-o"]
    assert traced(tmp_path, "predict", *asked, str(tmp_path / "p"), "--engine", "torch") == []
    assert traced(tmp_path, "archive", "segment", *asked, str(tmp_path / "a")) == []
    assert list((tmp_path / "cache/converted").rglob("*.xml")), "OpenVINO was not asked"
    export = ["model", "export", str(package_folder), "--format", "openvino"]
    assert traced(tmp_path, *export, "-o", str(tmp_path / "exported")) == []


@pytest.mark.slow
def test_whole_demo_with_training_flows_tracking_and_registry_reaches_for_nobody(
    tmp_path: Path,
) -> None:
    assert traced(tmp_path, "demo", "--quick", "-o", str(tmp_path / "demo")) == []


def test_attempts_are_seen_where_there_are_some(tmp_path: Path) -> None:
    """The search itself works: a look-up of a name, and a connection to an address."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed: apt-get install strace")
    report = tmp_path / "trace"
    act = (
        "import socket\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "try: s.connect(('192.0.2.7', 53))\n"
        "except OSError: pass\n"
        "t = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
        "t.connect(('127.0.0.1', 9))\n"
    )
    subprocess.run(
        ["strace", "-f", "-qq", "-e", "trace=connect", "-o", report, sys.executable, "-c", act],
        check=True,
        timeout=60,
    )
    assert len(attempts(report.read_text(encoding="utf-8"))) == 1
