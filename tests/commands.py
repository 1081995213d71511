"""Every command of `segmed`, found by walking its tree: no test keeps a list of its own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import typer


def root_command() -> Any:
    """The command `segmed`, with its groups below it."""
    from pipelines.cli.app import app  # noqa: PLC0415 - pages still parse where the CLI is broken

    return typer.main.get_command(app)


def walk(command: Any = None, words: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Groups and commands with their words, each group before its members; `()` is the root.

    Args:
        command: Command to begin with; the root by default.
        words: Words that name it.
    """
    found = command or root_command()
    yield words, found
    for name, child in getattr(found, "commands", {}).items():
        yield from walk(child, (*words, name))


def all_commands() -> dict[str, Any]:
    """Commands that do something, by their words, such as `archive segment`."""
    return {" ".join(words): one for words, one in walk() if not hasattr(one, "commands")}
