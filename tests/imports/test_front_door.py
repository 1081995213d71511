"""`import segmed` gives nine names, loads nothing heavy, and is typed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from import_graph import imported_by

import segmed

NAMES = {
    "ModelPackage", "Predictor", "build_manifest", "build_model", "evaluate", "make_plan",
    "read_image", "register_architecture", "train",
}  # fmt: skip

SCRIPT = """
from pathlib import Path

import numpy as np

import segmed

manifest = segmed.build_manifest("images")
plan = segmed.make_plan(manifest)
package: segmed.ModelPackage = segmed.train(
    manifest, plan, architecture="unet", fold=0, budget="2h", out="runs", device="cpu", seed=1
)
image, label = manifest.read(manifest.training[0])
predictor = segmed.Predictor.load(Path("runs/package"))
found = predictor.predict(np.zeros((1, 2, 3, 4)), affine=np.eye(4))
print(segmed.evaluate(package, manifest).table, found.seconds)
"""

WRONG = {
    'segmed.train(manifest, plan, architecture="unet", fold="0", budget="2h", out="o")': "fold",
    'segmed.train(manifest, plan, architecture="unet", fold=0, budget="2h", out="o", s=1)': '"s"',
    'segmed.Predictor.load("m", tta="yes")': "tta",
    "segmed.absent": "absent",
}
"""Calls that mypy must refuse, each with a word of its message."""


def test_import_loads_neither_pytorch_nor_monai() -> None:
    ways = imported_by("segmed")
    heavy = {"torch", "monai", "numpy", "pandas", "matplotlib", "mlflow", "prefect", "pydantic"}
    assert not {name: ways[name] for name in heavy & set(ways)}


def test_names_are_pinned_listed_and_found() -> None:
    assert set(segmed.__all__) == NAMES
    assert set(dir(segmed)) >= NAMES | {"__version__"}
    for name in NAMES:
        assert getattr(segmed, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'absent'"):
        _ = segmed.absent


def test_names_stay_functions_whatever_is_imported_first() -> None:
    code = "import segmed.training.calls, segmed.evaluation, segmed; print(segmed.train.__name__)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        encoding="utf-8",
    )
    assert done.stdout.strip() == "train"


@pytest.mark.slow
def test_script_passes_mypy_strict_and_its_errors_do_not(tmp_path: Path) -> None:
    def errors(text: str) -> str:
        script = tmp_path / "script.py"
        script.write_text(text, encoding="utf-8")
        done = subprocess.run(
            [
                sys.executable, "-m", "mypy", "--strict", "--config-file=", "--cache-dir",
                str(tmp_path / "cache"), "--follow-imports=silent", "--ignore-missing-imports",
                str(script),
            ],
            capture_output=True, text=True, check=False, timeout=900, encoding="utf-8",
        )  # fmt: skip
        return done.stdout

    assert "Success" in errors(SCRIPT)
    found = errors(SCRIPT + "\n".join(WRONG))
    for call, word in WRONG.items():
        line = len(SCRIPT.splitlines()) + 1 + list(WRONG).index(call)
        assert any(word in text for text in found.splitlines() if f":{line}:" in text), found
