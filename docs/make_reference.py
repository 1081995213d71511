"""Writes `reference.md`: every command with its arguments and options, from the code itself.

python docs/make_reference.py
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

HERE = Path(__file__).resolve().parent
TARGET = HERE / "reference.md"
HEAD = """\
# Reference of the commands

Made by `python docs/make_reference.py` from the commands themselves; do not edit.
"""


def reference() -> str:
    """The page as it should be."""
    sys.path.insert(0, str(HERE.parent))
    from pipelines.cli.app import app  # noqa: PLC0415 - the path is set just above

    return HEAD + "".join(_command(typer.main.get_command(app), "segmed"))


def _command(command: Any, path: str) -> Iterator[str]:
    children = getattr(command, "commands", {})
    yield f"\n## {path}\n\n{_described(command)}\n"
    rows = [_row(parameter) for parameter in command.params if not getattr(parameter, "hidden", 0)]
    if rows:
        yield "\n| | | default |\n|---|---|---|\n" + "\n".join(rows) + "\n"
    for name, child in children.items():
        yield from _command(child, f"{path} {name}")


def _described(command: Any) -> str:
    """The help text; its example in a block."""
    text = (command.help or "").strip()
    before, found, example = text.partition("Example:")
    said = " ".join(before.split())
    return f"{said}\n\n```sh\n{' '.join(example.split())}\n```" if found else said


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
