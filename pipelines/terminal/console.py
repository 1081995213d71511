"""Output of commands: plain lines or JSON on stdout, progress and errors on stderr."""

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
from typing import TYPE_CHECKING, Annotated, Any, Generic, TypeVar

import typer

from pipelines.terminal.bars import counting_bar, is_terminal

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")

JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document, for machines.")]
"""The option that every command has."""

DONE, DONE_WITH_FAILURES, BAD_USAGE = 0, 1, 2
"""Exit statuses."""


def say(text: str) -> None:
    """Print a line."""
    typer.echo(text)


def note(text: str) -> None:
    """Print a line that is not a result, on stderr."""
    typer.echo(text, err=True)


def emit(payload: Any, lines: Iterable[str], *, as_json: bool) -> None:
    """Print a result: as JSON, or as lines."""
    if as_json:
        say(json.dumps(plain(payload), indent=2, default=str))
        return
    for line in lines:
        say(line)


def plain(value: Any) -> Any:
    """A value in which numbers that JSON cannot represent are null."""
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
        items: Items that take time to come.
        describe: Line about an item.
        total: Number of items.
        unit: Name of the items, for the rate.
    """
    with counting_up(describe, total=total, unit=unit) as show:
        for item in items:
            show(item)
            yield item


class Counter(Generic[T]):
    """Shows items as they come: on a terminal a bar, elsewhere a line each.

    Args:
        describe: Line about an item; empty for those that are only counted.
        total: Number of items, if known.
        unit: Name of the items, for the rate.
        bar: The bar on a terminal.
    """

    def __init__(
        self, describe: Callable[[T], str], total: int | None, unit: str, bar: Progress | None
    ) -> None:
        self._describe, self._total, self._unit, self._bar = describe, total, unit, bar
        self._begun, self._done = time.perf_counter(), 0
        self._task = bar.add_task("starting", total=total, count="") if bar else None
        self.expect(total)

    @property
    def is_bar(self) -> bool:
        """True on a terminal, where a total is of use."""
        return self._bar is not None

    def expect(self, total: int | None, is_estimate: bool = False) -> None:
        """Set the number of items, once it is known or estimated; any thread may call."""
        self._total, self._about = total, "about " if is_estimate else ""
        self._show()

    def __call__(self, item: T) -> None:
        """Count one item."""
        self._done += 1
        self._show()
        line = self._describe(item)
        if line and self._bar is not None:
            self._bar.console.print(line, markup=False, highlight=False, soft_wrap=True)
        elif line:
            note(f"{line} ({self._count}, {self._rate})")

    @property
    def _count(self) -> str:
        if self._total is None:
            return f"{self._done} met"
        return f"{self._done} of {self._about}{max(self._total, self._done)}"

    @property
    def _rate(self) -> str:
        rate = self._done / max(time.perf_counter() - self._begun, 1e-9)
        return f"{rate:.2f} {self._unit}/s"

    def _show(self) -> None:
        if self._bar is not None and self._task is not None:
            rate = self._rate if self._done else "starting"
            self._bar.update(
                self._task,
                completed=self._done,
                total=self._total,
                count=self._count,
                description=rate,
            )


@contextmanager
def counting_up(
    describe: Callable[[T], str], *, total: int | None = None, unit: str = "items"
) -> Iterator[Counter[T]]:
    """A `Counter` within the block; its arguments are the same."""
    if not is_terminal():
        yield Counter(describe, total, unit, None)
        return
    with counting_bar() as bar:
        yield Counter(describe, total, unit, bar)


@contextmanager
def counting(title: str) -> Iterator[Callable[[int, int], None]]:
    """A progress callback (done, total): a bar on a terminal, a line at each tenth elsewhere."""
    last = -1

    def report(done: int, total: int) -> None:
        nonlocal last
        tenth = 10 * done // max(total, 1)
        if tenth != last:
            note(f"{title}: {done} of {total}")
        last = tenth

    if not is_terminal():
        yield report
        return
    with counting_bar() as bar:
        task = bar.add_task(title, total=None, count="")
        yield lambda done, total: bar.update(
            task, completed=done, total=total, count=f"{done} of {total}"
        )


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
    """Within the block, Ctrl-C prints the command line that continues.

    Args:
        extra: Options to add to the present command line, such as `--resume`.
        without: Options to leave out of it.
    """
    try:
        yield
    except KeyboardInterrupt as stop:
        present = [word for word in sys.argv[1:] if word not in without]
        words = [*present, *(word for word in extra if word not in present)]
        stop.add_note(f"continue with: {program()} {shlex.join(words)}")
        raise
