"""The `segmed` command: parse, call, print. Heavy imports wait inside the commands."""


def main() -> None:
    """Run the command line."""
    from pipelines.cli.app import app
    from pipelines.cli.termination import stop_on_sigterm

    stop_on_sigterm()
    app()
