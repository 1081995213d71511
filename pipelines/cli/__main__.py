"""`python -m pipelines.cli`: the command where no script is installed, as `torchrun` starts it."""

from pipelines.cli import main

main()
