"""Writes `reference.md` (commands), `api.md` (public names) and `prefect.yaml` (deployments).

python docs/make_reference.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from make_api import api

HERE = Path(__file__).resolve().parent
TARGET = HERE / "reference.md"
HEAD = """\
# Reference of the commands

Made by `python docs/make_reference.py` from the commands themselves; do not edit.
"""

CHALLENGER = "segmed model register segmed-comparison/runs/{}/fold0/package --name hippocampus"
NOTES = {
    "segmed": ["skip: trains for ten minutes; tests/pipelines/demo/test_demo.py runs it"],
    "segmed demo": ["skip: trains for ten minutes; tests/pipelines/demo/test_demo.py runs it"],
    "segmed plan": [
        "first: segmed manifest build Task04_Hippocampus -o hippocampus.json --format msd"
    ],
    "segmed preprocess": ["first: segmed plan hippocampus.json -o plan.yaml --budget 10m"],
    "segmed train": [
        "first: {short} plan.yaml",
        "with: --budget 10m = --epochs 1 --plan plan.yaml",
    ],
    "segmed compare": ["with: --budget 20m = --epochs 1 --plan plan.yaml"],
    "segmed evaluate": ["first: cp -r labels out"],
    "segmed predict": [
        "first: segmed model register segmed-runs/runs/unet3plus/fold0/package --name hippocampus "
        "--alias champion"
    ],
    "segmed review": [
        "first: segmed archive segment scans --model models:/hippocampus@champion -o segmentations",
        "until: serving this machine alone",
    ],
    "segmed deidentify": ["first: rm -r segmentations && cp -r dicom_cases segmentations"],
    "segmed accept": [
        f"first: {CHALLENGER.format('unetpp')} --alias challenger",
        "with: @challenger --cases local.json = @challenger --cases hippocampus.json --fold 0",
        "may-fail: a network of an epoch may be refused",
    ],
    "segmed serve": ["until: on-demand/on-demand"],
    "segmed watch": ["until: watching: SEGMED", "with: 0.0.0.0:11112 = 127.0.0.1:{node}"],
    "segmed metrics": [
        "first: segmed archive segment scans --model models:/hippocampus@champion -o segmentations",
        "until: http://127.0.0.1:{metrics}/metrics",
        "with: --port 9109 = --port {metrics}",
    ],
    "segmed model promote": [
        f"first: {CHALLENGER.format('unet')} --alias challenger",
        "may-fail: a network of two steps may be refused",
    ],
    "segmed model rollback": [
        f"first: {CHALLENGER.format('unetpp')} --alias challenger && "
        "segmed model promote hippocampus@challenger --force test"
    ],
    "segmed manifest add-corrections": ["first: cp hippocampus.json spleen.json"],
    "segmed archive find": ["may-fail: the sample has no such study"],
    "segmed archive list": ["may-fail: no study of the sample is refused"],
    "segmed model windows": ["may-fail: two held-out cases are too few"],
    "segmed model quantise": ["may-fail: two held-out cases are too few"],
    "segmed model calibrate": [
        "skip: needs cases that the model has not seen; docs/quality.md runs it"
    ],
    "segmed model import-nnunet": ["skip: needs results of nnU-Net; tests/nnunet has some"],
    "segmed model join": [
        "skip: needs two models; tests/pipelines/cli/test_joined_models.py runs it"
    ],
    "segmed model import": ["with: 4f1c... = $(sha256sum hippocampus.zip | cut -c -64)"],
}
"""Notes on how tests run the examples of the help texts, see tests/documentation.py."""


def reference() -> str:
    """The page as it should be."""
    sys.path.insert(0, str(HERE.parent))
    from pipelines.cli.app import app  # noqa: PLC0415 - the path is set just above

    return HEAD + "".join(_command(typer.main.get_command(app), "segmed"))


def _command(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", {})
    yield f"\n## {path}\n\n{_described(command, NOTES.get(path, []))}\n"
    rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", 0)]
    if rows:
        yield "\n| | | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    for name, child in children.items():
        yield from _command(child, f"{path} {name}")


def _described(command: Any, notes: list[str]) -> str:
    """The help text; its example in a block."""
    text = (command.help or "").strip()
    before, found, example = text.partition("Example:")
    said = " ".join(before.split())
    beside = "".join(f"<!-- {note} -->\n" for note in notes)
    return f"{said}\n\n{beside}```sh\n{' '.join(example.split())}\n```" if found else said


def _row(parameter: Any) -> str:
    is_argument = parameter.param_type_name == "argument"
    name = (
        (parameter.metavar or parameter.name).upper() if is_argument else ", ".join(parameter.opts)
    )
    default = parameter.default
    if parameter.required:
        shown = "required"
    else:
        shown = "" if default is None or default is False or callable(default) else f"`{default}`"
    return f"| `{name}` | {getattr(parameter, 'help', '') or ''} | {shown} |"


if __name__ == "__main__":
    TARGET.write_text(reference(), encoding="utf-8")
    (HERE / "api.md").write_text(api(), encoding="utf-8")
    from pipelines.flows.deployment_file import deployment_file

    (HERE.parent / "pipelines/prefect.yaml").write_text(deployment_file(), encoding="utf-8")
