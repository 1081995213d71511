"""The `segmed` command: parse, call, print. Heavy imports wait inside the commands."""

import sys


def main() -> None:
    """Run the command line."""
    from pipelines.terminal.termination import (
        INTERRUPTED,
        end_at_once,
        forget_stop,
        stop_on_signals,
    )

    stop_on_signals()
    try:
        from pipelines.cli.app import app

        app()
    except KeyboardInterrupt:  # before the command began
        sys.stderr.write("segmed: interrupted; run the same command again\n")
        end_at_once(INTERRUPTED)
    except SystemExit as end:
        if end.code == INTERRUPTED:
            end_at_once(INTERRUPTED)
        raise
    finally:
        forget_stop()  # its timer would end the process while the interpreter closes
