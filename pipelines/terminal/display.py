"""One display of all trainings under way, on a terminal; elsewhere their log lines are printed."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Column

from pipelines.comparing.progress import REPORT, STARTED, Report, duration, progress
from pipelines.logs import JsonLines
from pipelines.terminal.bars import is_terminal

BAR_COLUMNS = 12


@contextmanager
def shown_trainings() -> Iterator[None]:
    """Within the block, show the trainings that run: a row each on a terminal, else log lines.

    Other log records are printed above the rows. Logs that were requested as JSON stay lines.
    """
    root, level = logging.getLogger(), progress.level
    printing = [handler for handler in root.handlers if _prints(handler)]
    if not is_terminal() or any(isinstance(h.formatter, JsonLines) for h in printing):
        progress.setLevel(logging.INFO)
        try:
            yield
        finally:
            progress.setLevel(level)
        return
    rows = _TrainingRows(
        TextColumn("{task.description}", markup=False, table_column=Column(overflow="fold")),
        TextColumn("{task.fields[state]}", markup=False, table_column=Column(no_wrap=True)),
        BarColumn(bar_width=BAR_COLUMNS),
        TextColumn("{task.fields[left]}", markup=False, table_column=Column(no_wrap=True)),
        console=Console(stderr=True),
        redirect_stdout=False,  # standard output may be a file
        transient=True,
    )
    ours = _ToRows(rows)
    ours.setFormatter(printing[0].formatter if printing else None)
    kept = root.handlers[:]
    root.handlers = [ours, *(handler for handler in kept if handler not in printing)]
    progress.setLevel(logging.DEBUG)
    try:
        with rows:
            yield
    finally:
        root.handlers = kept
        progress.setLevel(level)


def _prints(handler: logging.Handler) -> bool:
    """True for a handler that writes to stderr."""
    stream = getattr(handler, "stream", None)
    return stream is not None and stream in {sys.stderr, sys.__stderr__}


class _TrainingRows(Progress):
    """Rows of trainings; between two reports each moves on with the time."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """The rows as of now."""
        for task in self.tasks:
            state: Report = task.fields["report"]
            share, left_s = as_of_now(state, time.monotonic() - task.fields["since"])
            task.completed = share or 0.0
            task.total = None if share is None else 1.0
            percent = "" if share is None else f"{100 * share:3.0f} %"
            task.fields["left"] = (
                percent if left_s is None else f"{percent}  {duration(left_s)} left"
            )
        yield from super().get_renderables()


def as_of_now(state: Report, seconds: float) -> tuple[float | None, float | None]:
    """Share and time left some seconds after a report, by the pace that the report implies."""
    if state.share is None or not state.left_s:
        return state.share, state.left_s
    left_s = max(0.0, state.left_s - seconds)
    return 1.0 - (1.0 - state.share) * left_s / state.left_s, left_s


class _ToRows(logging.Handler):
    """Shows reports of trainings as rows, and prints other records above them."""

    def __init__(self, rows: _TrainingRows) -> None:
        super().__init__()
        self._rows = rows
        self._tasks: dict[str, TaskID] = {}

    def emit(self, record: logging.LogRecord) -> None:
        """Show one record."""
        state = getattr(record, REPORT, None)
        if not isinstance(state, Report):
            self._print(self.format(record))
        elif state.is_over:
            if state.title in self._tasks:
                self._rows.remove_task(self._tasks.pop(state.title))
            if record.levelno >= logging.INFO:
                self._print(record.getMessage())
        else:
            self._show(state)
            if record.levelno >= logging.INFO and state.state == STARTED:
                self._print(record.getMessage())

    def _show(self, state: Report) -> None:
        fields: dict[str, Any] = {"report": state, "since": time.monotonic(), "state": state.state}
        if state.title in self._tasks:
            self._rows.update(self._tasks[state.title], **fields)
        else:
            task = self._rows.add_task(state.title, total=1.0, left="", **fields)
            self._tasks[state.title] = task
        self._rows.refresh()

    def _print(self, line: str) -> None:
        self._rows.console.print(line, markup=False, highlight=False, soft_wrap=True)
