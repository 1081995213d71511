"""The `segmed` command: parse, call, print. Heavy imports wait inside the commands."""


def main() -> None:
    """Run the command line."""
    from pipelines.cli.app import app
    from pipelines.terminal.console import INTERRUPTED
    from pipelines.terminal.termination import end_at_once, stop_on_sigterm

    stop_on_sigterm()
    try:
        app()
    except SystemExit as end:
        if end.code == INTERRUPTED:
            end_at_once(INTERRUPTED)
        raise
