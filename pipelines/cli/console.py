"""How commands speak: plain lines or JSON on stdout, progress and errors on stderr."""

from __future__ import annotations

import json
import math
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

T = TypeVar("T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
"""The option that every command has."""

BAR_COLUMNS = 30

DONE, DONE_WITH_FAILURES, BAD_USAGE, INTERRUPTED = 0, 1, 2, 130
"""Exit statuses."""


def say(text: str) -> None:
    """Print a line."""
    typer.echo(text)


def note(text: str) -> None:
    """Print a line that is no result, on stderr."""
    typer.echo(text, err=True)


def emit(payload: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result: as JSON, or as lines."""
    if as_json:
        say(json.dumps(plain(payload), indent=2, default=str))
        return
    for line in lines:
        say(line)


def plain(value: Any) -> Any:
    """A value in which numbers that JSON cannot hold are null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    return value


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> list[str]:
    """Rows as aligned text, a heading first."""
    cells = [list(columns), *[[_cell(row.get(name, "")) for name in columns] for row in rows]]
    widths = [max(len(row[i]) for row in cells) for i in range(len(columns))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def _cell(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4f}"
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def tracked(
    items: Iterable[T], describe: Callable[[T], str], *, total: int, unit: str = "items"
) -> Iterator[T]:
    """Pass items on, with a bar on a terminal and a line each elsewhere, both on stderr.

    Args:
        items: What is waited for.
        describe: What is said of each.
        total: How many there will be.
        unit: What they are, for the rate.
    """
    begun = time.perf_counter()

    def standing(done: int) -> str:
        rate = done / max(time.perf_counter() - begun, 1e-9)
        return f"{done} of {total}, {rate:.2f} {unit}/s"

    if not sys.stderr.isatty():
        for done, item in enumerate(items, 1):
            note(f"{describe(item)} ({standing(done)})")
            yield item
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=total)
        for done, item in enumerate(items, 1):
            bar.update(task, advance=1, description=standing(done))
            bar.console.print(describe(item), markup=False, highlight=False)
            yield item


@contextmanager
def counting_up(describe: Callable[[Any], str]) -> Iterator[Callable[[Any], None]]:
    """What shows items whose number nobody knows: a count on a terminal, a line each elsewhere.

    Args:
        describe: What is said of an item; empty for those that are only counted.
    """
    begun, met = time.perf_counter(), 0
    if not sys.stderr.isatty():

        def tell(item: Any) -> None:
            nonlocal met
            met += 1
            if line := describe(item):
                note(f"{line} ({met} met, {met / (time.perf_counter() - begun):.2f} a second)")

        yield tell
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task("starting", total=None)

        def show(item: Any) -> None:
            nonlocal met
            met += 1
            rate = met / (time.perf_counter() - begun)
            bar.update(task, description=f"{met} met, {rate:.2f} a second")
            if line := describe(item):
                bar.console.print(line, markup=False, highlight=False)

        yield show


def counting(title: str) -> Callable[[int, int], None]:
    """A progress callback (done, total): a bar on a terminal, a line at each tenth elsewhere."""
    last = -1

    def show(done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // max(total, 1)
        if sys.stderr.isatty():
            end = done >= total
            bar = "#" * (BAR_COLUMNS * done // max(total, 1))
            typer.echo(f"\r{title}: [{bar:<{BAR_COLUMNS}}] {done} of {total}", err=True, nl=end)
        elif tenth != last:
            note(f"{title}: {done} of {total}")
        last = tenth

    return show


def program(name: str = "segmed") -> str:
    """The word that starts a program of this installation from the present shell.

    Its name where the PATH leads to this installation, else its path, quoted for a shell.
    """
    own = Path(sys.executable).parent / name
    found = shutil.which(name)
    if not own.is_file() or (found is not None and Path(found).resolve() == own.resolve()):
        return name
    return shlex.quote(str(own))


@contextmanager
def continued_by(*extra: str, without: Sequence[str] = ()) -> Iterator[None]:
    """Within the block, Ctrl-C tells with which command line to continue.

    Args:
        extra: Options to add to the present command line, such as `--resume`.
        without: Options to leave out of it.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        present = [word for word in sys.argv[1:] if word not in without]
        words = [program(), *present, *(word for word in extra if word not in present)]
        stop.add_note(f"continue with: {shlex.join(words)}")
        raise
