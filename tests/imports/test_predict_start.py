"""`segmed predict` of one image imports little beside PyTorch and OpenVINO.

Counts of modules, not seconds: a machine under load must not fail a test.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tiny_data import hippocampus_package, write_case

PREDICT = """
import atexit, json, sys
atexit.register(lambda: open("modules.json", "w").write(json.dumps(sorted(sys.modules))))
from pipelines.cli import main
main()
"""
BARE = """
import json, sys
sys.modules["openvino_telemetry"] = None
import torch, openvino
print(json.dumps(sorted(sys.modules)))
"""

UNUSED = {"pandas", "pyarrow", "matplotlib", "ignite", "mlflow", "prefect", "sklearn", "sympy"}
UNUSED |= {"nncf", "SimpleITK", "highdicom", "scipy.ndimage", "scipy.spatial", "rich"}
"""Packages that a prediction of a NIfTI file on the plan's own grid has no use for."""

MOST_TIMES = 1.6
"""Modules of a prediction by those of the bare imports."""


def run(code: str, folder: Path, *words: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**os.environ, "SEGMED_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_prediction_with_a_cached_conversion_imports_what_it_uses(tmp_path: Path) -> None:
    pytest.importorskip("openvino", reason="the conversion is OpenVINO's")
    write_case(tmp_path, "one", 1)
    hippocampus_package().save(tmp_path / "package")
    words = ["predict", "one_image.nii", "--model", "package", "--device", "cpu", "-o"]
    run(PREDICT, tmp_path, *words, "first")
    said = run(PREDICT, tmp_path, *words, "again", "--json")
    assert json.loads(said)["engines"] == ["openvino on cpu"]
    loaded = set(json.loads((tmp_path / "modules.json").read_text(encoding="utf-8")))
    bare = set(json.loads(run(BARE, tmp_path)))
    assert not UNUSED & (loaded - bare)
    # The cached conversion is the network: none is built.
    assert not {"segmed.models.unet", "segmed.models.blocks"} & loaded
    assert len(loaded) <= MOST_TIMES * len(bare)


def test_monai_notices_later_what_was_hidden_from_it(tmp_path: Path) -> None:
    """MONAI's own modules find ignite and pandas once MONAI is used as a whole."""
    pytest.importorskip("ignite", reason="MONAI's trainers need it")
    code = """
import segmed.metatensor, sys
assert "pandas" not in sys.modules and "ignite" not in sys.modules
import monai.engines
from monai.utils import AdversarialIterationEvents, dist, profiling
from ignite.engine import EventEnum, Events
assert issubclass(AdversarialIterationEvents, EventEnum)
assert monai.utils.enums.AdversarialIterationEvents is AdversarialIterationEvents
assert dist.has_ignite and profiling.has_pandas
assert monai.utils.jupyter_utils.Events is Events
assert monai.engines.AdversarialTrainer is not None
"""
    run(code, tmp_path)
