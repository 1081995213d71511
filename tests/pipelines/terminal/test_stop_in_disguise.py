"""An interrupt that a library turns into an error of its own ends a command as an interrupt."""

from __future__ import annotations

import pytest
import typer
from typer.testing import CliRunner

from pipelines.cli.app import SegmedGroup
from pipelines.terminal.termination import INTERRUPTED
from segmed.errors import PackageError, SegmedError


def raised(error: Exception, *causes: BaseException) -> None:
    """Raise an error with a chain of causes."""
    last: BaseException = error
    for cause in causes:
        last.__cause__ = cause
        last = cause
    raise error


def status_of(act: object) -> tuple[int, str]:
    """Exit status and output of a command that does something."""
    app = typer.Typer(cls=SegmedGroup)
    app.callback()(lambda: None)
    app.command("act")(act)
    done = CliRunner().invoke(app, ["act"])
    return done.exit_code, done.output


@pytest.mark.parametrize(
    ("error", "causes"),
    [
        (ImportError("initialization failed"), (KeyboardInterrupt(),)),
        (PackageError("no engine"), (ImportError("initialization failed"), KeyboardInterrupt())),
        (RuntimeError("conversion failed"), (KeyboardInterrupt("stopped by SIGTERM"),)),
    ],
)
def test_error_that_an_interrupt_caused_is_an_interrupt(
    error: Exception, causes: tuple[BaseException, ...]
) -> None:
    status, output = status_of(lambda: raised(error, *causes))
    assert status == INTERRUPTED
    assert "segmed: interrupted; run the same command again" in output


def test_error_while_a_stop_was_handled_is_an_error() -> None:
    def act() -> None:
        error = SegmedError("the checkpoint cannot be written")
        error.__context__ = KeyboardInterrupt()
        raise error

    status, output = status_of(act)
    assert status == 2
    assert "segmed: the checkpoint cannot be written" in output
