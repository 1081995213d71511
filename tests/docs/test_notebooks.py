"""The notebooks of the examples run from top to bottom and store no outputs."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from documentation import REPOSITORY

EXAMPLES = REPOSITORY / "docs" / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))

RUNNER = """
import ast, json, sys
names = {"__name__": "__main__"}
for number, cell in enumerate(json.loads(open(sys.argv[1], encoding="utf-8").read())["cells"]):
    if cell["cell_type"] != "code":
        continue
    body = ast.parse("".join(cell["source"])).body
    last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
    exec(compile(ast.Module(body, []), f"cell {number}", "exec"), names)
    if last is not None:
        value = eval(compile(ast.Expression(last.value), f"cell {number}", "eval"), names)
        draw = getattr(value, "_repr_png_", None)
        print(repr(value), "" if draw is None else f"[PNG of {len(draw())} bytes]", flush=True)
"""
"""Runs the code cells as a kernel does, where no kernel is installed."""


def cells_of(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return [cell for cell in cells if cell["cell_type"] == "code"]


def test_there_are_three() -> None:
    assert len(NOTEBOOKS) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_cells_are_python_that_imports_what_exists_and_outputs_are_cleared(path: Path) -> None:
    for cell in cells_of(path):
        assert cell["outputs"] == []
        for node in ast.walk(ast.parse("".join(cell["source"]))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("segmed"):
                module = importlib.import_module(str(node.module))
                assert all(hasattr(module, alias.name) for alias in node.names)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebook_runs_from_top_to_bottom(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if importlib.util.find_spec("nbclient") and importlib.util.find_spec("ipykernel"):
        _run_in_kernel(path, monkeypatch)
        return
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(EXAMPLES), str(REPOSITORY)])}
    done = subprocess.run(
        [sys.executable, "-c", RUNNER, str(path)],
        cwd=EXAMPLES, env=env, capture_output=True, text=True, check=False, timeout=1500,
        encoding="utf-8",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]


def _run_in_kernel(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run the notebook by nbclient; pictures are drawn for what has one."""
    import nbclient  # noqa: PLC0415 - may be absent
    import nbformat  # noqa: PLC0415 - likewise

    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPOSITORY), *sys.path]))
    notebook = nbformat.read(path, as_version=4)
    client = nbclient.NotebookClient(
        notebook, timeout=1500, kernel_name="python3", resources={"metadata": {"path": EXAMPLES}}
    )
    client.execute()
    kinds = {
        kind
        for cell in notebook.cells
        if cell.cell_type == "code"
        for output in cell.outputs
        for kind in output.get("data", {})
    }
    assert "image/png" in kinds
