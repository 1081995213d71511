"""Commands that look up load nothing heavy; wrong arguments are answered before it loads."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import shlex
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from commands import all_commands
from import_graph import imported_by, imports_in

from pipelines.cli.models import EXPORT_FORMATS
from segmed.models import list_models
from segmed.models.registry import ARCHITECTURES

HEAVY = {"torch", "monai", "mlflow", "prefect", "matplotlib", "pandas", "scipy", "SimpleITK"}
HEAVY |= {"openvino", "highdicom", "pydicom", "nibabel", "sklearn", "dask"}
"""What costs a tenth of a CPU second and more to import."""

ANSWERS = {"status", "retry", "find", "list", "show"}
"""Last words of commands that only look something up."""

EXCUSED = {
    "doctor": "examines the installation, and imports all of it for that",
    "metrics": "serves a folder that a run may only make later",
}
"""Commands that may load anything whatever they are given."""


COMMANDS: dict[str, Callable[..., object]] = {
    words: inspect.unwrap(command.callback) for words, command in all_commands().items()
}
LOOK_UPS = sorted(words for words in COMMANDS if words.split()[-1] in ANSWERS)


def _body(function: Callable[..., object]) -> ast.AST:
    return ast.parse(textwrap.dedent(inspect.getsource(function))).body[0]


def test_all_look_ups_are_found() -> None:
    assert {"archive status", "archive retry", "model list", "model show"} <= set(LOOK_UPS)
    assert len(COMMANDS) > 20


@pytest.mark.parametrize("module", sorted({f.__module__ for f in COMMANDS.values()}))
def test_module_of_a_command_imports_nothing_heavy(module: str) -> None:
    ways = imported_by(module)
    assert not {name: ways[name] for name in (HEAVY | {"numpy"}) & set(ways)}


@pytest.mark.parametrize("words", LOOK_UPS)
def test_look_up_imports_nothing_heavy(words: str) -> None:
    function = COMMANDS[words]
    needed = [
        name
        for name in imports_in(_body(function), function.__module__)
        if name.partition(".")[0] in {"segmed", "pipelines"}
    ]
    ways = imported_by(*needed)
    assert not {name: ways[name] for name in HEAVY & set(ways)}


WRONG = {
    "manifest scan": "manifest scan absent",
    "manifest build": "manifest build absent -o M.json",
    "manifest check": "manifest check absent.json",
    "manifest export": "manifest export absent.json -o out",
    "manifest add-corrections": "manifest add-corrections absent absent.json",
    "plan": "plan absent.json",
    "preprocess": "preprocess absent.json --plan absent.yaml",
    "train": "train absent.json --model unet --budget 1m",
    "compare": "compare absent.json --budget 1m",
    "evaluate": "evaluate --predictions absent --references absent -o out",
    "predict": "predict absent.nii.gz --model absent -o out",
    "archive segment": "archive segment absent --model absent -o out",
    "archive status": "archive status absent",
    "archive retry": "archive retry absent",
    "archive corrections": "archive corrections dicomweb://localhost:1/x -o absent",
    "archive find": "archive find absent -o absent",
    "archive list": "archive list absent",
    "watch": "watch dimse://T@127.0.0.1 --model absent -o out",
    "review": "review absent",
    "accept": "accept absent --cases absent.json",
    "deidentify": "deidentify absent -o out",
    "model show": "model show absent",
    "model card": "model card absent",
    "model register": "model register absent --name x",
    "model quantise": "model quantise absent --cases absent.json",
    "model windows": "model windows absent --cases absent.json",
    "model calibrate": "model calibrate absent --cases absent.json",
    "model export": "model export absent -o x.zip",
    "model import": "model import absent.zip --name x",
    "model import-nnunet": "model import-nnunet absent --name x",
    "model join": "model join absent other --name x",
    "model promote": "model promote x@challenger --manifest absent.json",
    "model rollback": "model rollback absent",
    "model describe": "model describe absent",
    "serve": "serve --archive absent --model absent -o out",
    "demo": "demo --budget soon",
}
"""For each command a call that must fail at once."""

MORE_WRONG = [
    "preprocess {manifest} --plan absent.yaml",
    "preprocess {manifest} --plan {manifest} --cache {manifest}",
    "train {manifest} --model vnet --budget 1m",
    "train {manifest} --model unet --fold 9 --budget 1m",
    "train {manifest} --model unet --budget soon",
    "train {manifest} --model unet --budget 1m --device gpu",
    "train {manifest} --model unet --budget 1m --plan absent.yaml",
    "compare {manifest} --models unet,vnet --budget 1m",
    "compare {manifest} --folds 9 --budget 1m",
    "compare {manifest} --budget 20s",
    "compare {manifest} --budget 1m --fresh --resume",
    "compare {manifest} --budget 1m -o {manifest}",
    "predict {manifest} --model models:/absent@champion -o out",
    "predict absent.nii --model {package} -o out",
    "predict {manifest} --model {package} --format jpeg -o out",
    "predict {manifest} --model {package} --engine quantum -o out",
    "archive segment absent --model {package} -o out",
    "archive segment . --model {package} --rules absent.yaml -o out",
    "evaluate --predictions . --references absent -o out",
    "model export {package} -o x --format pickle",
    "model register {package} --name x --promise dice=2",
    "train {manifest} --model unet --budget 1m --promise dice=2",
    "model show models:/absent@champion",
]

GUARD = """
import sys
class Guard:
    def find_spec(self, name, path=None, target=None):
        if name in {heavy}:
            print("loads", name, file=sys.stderr)
            sys.exit(3)
sys.meta_path.insert(0, Guard())
from pipelines.cli import main
main()
"""


def _guarded(command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a command that ends with status 3 as soon as it imports something heavy."""
    code = GUARD.format(heavy=HEAVY)
    return subprocess.run(
        [sys.executable, "-c", code, *shlex.split(command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=folder,
        timeout=360,
        encoding="utf-8",
    )


@pytest.fixture
def place(tmp_path: Path) -> dict[str, str]:
    """A manifest, and a folder that looks like a package from outside."""
    rows = [{"id": f"c{i}", "image": f"{i}.nii", "label": f"{i}.nii", "fold": i} for i in (0, 1)]
    content = {"schema_version": 1, "name": "x", "training": rows, "test": []}
    content |= {"channels": [{"name": "T1"}], "labels": [{"name": "a", "value": 1}]}
    manifest = tmp_path / "M.json"
    manifest.write_text(json.dumps(content), encoding="utf-8")
    package = tmp_path / "package.zip"
    package.write_bytes(b"PK")
    return {"manifest": str(manifest), "package": str(package)}


@pytest.mark.parametrize("words", sorted(set(COMMANDS) - set(EXCUSED)))
def test_wrong_path_is_answered_before_anything_heavy_loads(words: str, tmp_path: Path) -> None:
    if words not in WRONG:
        needs = [p for p in inspect.signature(COMMANDS[words]).parameters if p != "as_json"]
        assert not needs, f"name a wrong call of `segmed {words}` in WRONG"
        return
    done = _guarded(WRONG[words], tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("segmed: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("command", MORE_WRONG)
def test_wrong_argument_is_answered_before_anything_heavy_loads(
    command: str, place: dict[str, str], tmp_path: Path
) -> None:
    done = _guarded(command.format(**place), tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stderr.startswith("segmed: ")
    assert {path.name for path in tmp_path.iterdir()} == {"M.json", "package.zip"}


def test_guard_notices_what_is_heavy(tmp_path: Path) -> None:
    assert _guarded("doctor", tmp_path).returncode == 3


def test_names_that_arguments_are_checked_by_are_those_that_are_built() -> None:
    assert list_models() == tuple(ARCHITECTURES)
    exports = importlib.import_module("pipelines.registry.exports")
    assert set(EXPORT_FORMATS) == set(exports.WRITERS)


def test_prediction_imports_no_library_that_it_does_not_need() -> None:
    ways = imported_by("pipelines.cli.predicting")
    needless = {"monai", "mlflow", "matplotlib", "prefect", "pandas", "sklearn", "highdicom"}
    assert not {name: ways[name] for name in needless & set(ways)}
