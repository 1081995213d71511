"""From a comparison to a model version: which package, which alias, which card."""

from __future__ import annotations

from pathlib import Path

from pipelines.registry import CHALLENGER, CHAMPION, Registry
from pipelines.tracking import RunLog
from segmed.comparison import Contest


def register_winner(contest: Contest, name: str, log: RunLog, *, folder: Path) -> str:
    """Register the winner's package.

    Args:
        contest: The comparison.
        name: Registered name.
        log: Run that the version belongs to.
        folder: Working folder, for the embedded registry.

    Returns:
        `models:/NAME/VERSION`; it is champion if the model had none, else challenger.
    """
    registry = Registry(folder)
    has_champion = any(CHAMPION in entry.aliases for entry in registry.versions(name))
    alias = CHALLENGER if has_champion else CHAMPION
    version = registry.register(contest.winning_package, name, log.run_id(), alias)
    return version.reference
