"""The command tree, and the one place where errors become lines and exit statuses."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Callable
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from pipelines.cli import (
    accept,
    archive,
    data,
    deidentify,
    demo,
    doctor,
    evaluate,
    metrics,
    models,
    predict,
    preprocess,
    review,
    serve,
    train,
    watch,
)
from pipelines.logs import FORMAT_VARIABLE, log_as_json
from pipelines.terminal.console import BAD_USAGE, note
from pipelines.terminal.termination import INTERRUPTED, is_caused_by_stop, stop_if_asked
from segmed import __version__
from segmed.errors import SegmedError, UsageError
from segmed.full_disk import REPAIR, is_full_disk

LogFormat = Literal["text", "json"]


class SegmedGroup(TyperGroup):
    """Turns our errors into one line and status 2, and Ctrl-C into status 130."""

    def invoke(self, ctx: Any) -> Any:
        """Run the command that the context names."""
        try:
            return _done_or_stopped(lambda: super(SegmedGroup, self).invoke(ctx))
        except SegmedError as error:
            full = f" ({REPAIR})" if is_full_disk(error) else ""
            note(f"segmed: {' '.join(str(error).split())}{full}")
        except BrokenPipeError:
            raise
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            note(f"segmed: {REPAIR if is_full_disk(error) else error.strerror or error}{where}")
        except KeyboardInterrupt as stop:
            advice = getattr(stop, "__notes__", ["run the same command again"])
            note(f"\nsegmed: interrupted; {advice[0]}")
            # threads of servers and trackers must not delay a person who stops the command
            raise typer.Exit(INTERRUPTED) from None
        except Exception as error:  # libraries report a full disk as errors of their own
            if not is_full_disk(error):
                raise
            note(f"segmed: {REPAIR}")
        raise typer.Exit(BAD_USAGE)


def _done_or_stopped(command: Callable[[], Any]) -> Any:
    """Run a command; a stop that waited for its last import takes effect when it is done."""
    try:
        result = command()
    except typer.Exit:
        stop_if_asked()
        raise
    except Exception as error:  # a library's form of an interrupt, or raised again
        if is_caused_by_stop(error):
            raise KeyboardInterrupt from error
        raise
    stop_if_asked()
    return result


app = typer.Typer(
    name="segmed",
    cls=SegmedGroup,
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"segmed {__version__}")
        raise typer.Exit


@app.callback()
def root(
    context: typer.Context,
    verbose: Annotated[
        bool, typer.Option("--verbose", "-v", help="Show the library's log.")
    ] = False,
    log_format: Annotated[
        LogFormat,
        typer.Option(
            envvar=FORMAT_VARIABLE,
            help="Form of the log lines: text for people, json for machines.",
        ),
    ] = "text",
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Medical-image segmentation: train, compare, keep the winner, segment whole archives.

    Exit status: 0 done, 1 done with failures listed, 2 bad usage or input, 130 interrupted.

    Example: segmed demo
    """
    _require_one_process(context.invoked_subcommand)
    level = logging.INFO if verbose else logging.WARNING
    logging.basicConfig(stream=sys.stderr, level=level, format="%(levelname)s %(message)s")
    if log_format == "json":
        log_as_json()
    os.environ.setdefault("PREFECT_LOGGING_LEVEL", "INFO" if verbose else "WARNING")


def _require_one_process(command: str | None) -> None:
    """Refuse commands of which `torchrun` would run several copies.

    Raises:
        UsageError: The command is not `train`.
    """
    is_copied = int(os.environ.get("WORLD_SIZE", "1")) > 1 and "TORCHELASTIC_RUN_ID" in os.environ
    if is_copied and command != "train":
        raise UsageError(
            f"torchrun starts `segmed train` alone, got {command!r}, which it would run several "
            "times: `segmed compare` has --side-by-side, `segmed archive segment` has --device"
        )


demo.add_to(app)
data.add_to(app)
preprocess.add_to(app)
train.add_to(app)
evaluate.add_to(app)
predict.add_to(app)
archive.add_to(app)
watch.add_to(app)
review.add_to(app)
deidentify.add_to(app)
accept.add_to(app)
models.add_to(app)
serve.add_to(app)
metrics.add_to(app)
doctor.add_to(app)
