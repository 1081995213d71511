"""The bill of materials names what the lock pins, and how the parts hang together."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def made() -> bytes:
    command = [sys.executable, str(REPOSITORY / "docker" / "make_sbom.py")]
    return subprocess.run(command, capture_output=True, check=True).stdout


def test_bill_names_each_locked_version_once_and_is_the_same_each_time() -> None:
    content = made()
    bill = json.loads(content)
    lines = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8").splitlines()
    pinned = [line for line in lines if "==" in line]
    assert len(bill["components"]) == len(pinned)
    named = {entry["name"]: entry for entry in bill["components"]}
    assert named["torch"]["purl"].startswith("pkg:pypi/torch@2.")
    assert [entry["license"]["name"] for entry in named["pydicom"]["licenses"]] == ["MIT License"]
    references = {entry["bom-ref"] for entry in bill["components"]} | {"segmed"}
    graph = {entry["ref"]: entry["dependsOn"] for entry in bill["dependencies"]}
    assert graph.keys() == references
    assert references.issuperset(inner for inside in graph.values() for inner in inside)
    assert named["numpy"]["purl"] in graph[named["monai"]["purl"]]
    assert made() == content
