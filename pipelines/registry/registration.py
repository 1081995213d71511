"""From a comparison or a file to a model version: package, alias and card."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipelines.registry.card import card_of
from pipelines.registry.reference import CHALLENGER, CHAMPION, Version, resolve_path
from pipelines.registry.versions import Registry
from pipelines.tracking.held_out import held_out_scores, score_tags
from pipelines.tracking.runs import RunLog
from pipelines.tracking.tags import HELD_OUT
from segmed.package.predicted_quality import with_promise
from segmed.quality.risk import RiskTarget
from segmed.report.model_comparison import ModelComparison


def register_winner(
    compared: ModelComparison, package_dir: Path, name: str, log: RunLog, *, folder: Path = Path()
) -> Version:
    """Register the winner's package with its card.

    Args:
        compared: The comparison.
        package_dir: The winner's package, or the ensemble of its folds.
        name: Registered name.
        log: Run of the comparison; the version belongs to the run that trained the package, or to
            this one where the server does not have that.
        folder: Working folder, for the embedded registry.

    Returns:
        The version; it is champion if the model had none, else challenger. Where nothing was
        learned it has no alias, and its tags say why.
    """
    registry = Registry(folder)
    package = resolve_path(package_dir).load()
    folds = [entry.fold for entry in compared.fold_results if entry.architecture == compared.winner]
    scores = package.provenance.get(HELD_OUT) or held_out_scores(
        compared.tables[compared.winner], folds, unit=compared.unit
    )
    return registry.register(
        package_dir,
        name,
        log.run_id(),
        None if compared.doubt else _alias_for(registry, name, package.hash),
        tags=score_tags(scores),
        description=card_of(package, scores),
    )


def register_package(
    path: Path, name: str, alias: str | None = None, *, folder: Path = Path()
) -> Version:
    """Register a package folder or zip that no run of this server has trained."""
    resolved = resolve_path(path)
    return Registry(folder).register(resolved.path, name, None, alias)


@contextmanager
def promising(path: Path, target: RiskTarget | None) -> Iterator[Path]:
    """A package with another promise about unreviewed results; itself if none is given.

    Args:
        path: Folder or zip of the package, which stays as it is.
        target: The promise.

    Raises:
        UsageError: The package predicts no quality.
    """
    if target is None:
        yield path
        return
    made = with_promise(resolve_path(path).load(), target)
    with tempfile.TemporaryDirectory(prefix="segmed-promise-") as scratch:
        yield made.save(Path(scratch) / "package")


def _alias_for(registry: Registry, name: str, package_hash: str) -> str | None:
    """Champion where there is none, else challenger; none for what is champion already."""
    champions = [entry for entry in registry.versions(name) if CHAMPION in entry.aliases]
    if not champions:
        return CHAMPION
    return None if champions[0].hash == package_hash else CHALLENGER
