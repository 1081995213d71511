"""The `segmed` command: parse, call, print. Heavy imports wait inside the commands."""


def main() -> None:
    """Run the command line."""
    from pipelines.cli.app import app

    app()
