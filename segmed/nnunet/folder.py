"""A folder of nnU-Net results: which model it is, and which folds it has."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from segmed.errors import PackageError, UsageError
from segmed.io.digest import sha256_of_file
from segmed.nnunet.checkpoint import FoldWeights, read_checkpoint
from segmed.nnunet.plans import Configuration, read_configuration
from segmed.nnunet.postprocessing import Groups, folder_of, read_steps
from segmed.nnunet.trainers import BATCH_NORM, require_known_trainer

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
"""Checkpoints of a fold, the preferred one first."""

MAX_JSON_BYTES = 64 * 2**20


@dataclass(frozen=True)
class NnUNetFolder:
    """A trained nnU-Net model.

    Attributes:
        path: Folder `Dataset.../Trainer__Plans__configuration`.
        configuration: Its configuration.
        folds: Names of the folds taken (`0` to `4`, or `all`), in order.
        checkpoints: One a fold.
        fold_scores: Mean foreground Dice of each fold's validation, where it is recorded.
        digests: sha256 of each checkpoint.
        fingerprint: sha256 of `dataset_fingerprint.json`; empty where it is missing.
        postprocessing: Steps found for these folds, see `segmed.nnunet.postprocessing`.
    """

    path: Path
    configuration: Configuration
    folds: tuple[str, ...]
    checkpoints: tuple[FoldWeights, ...]
    fold_scores: dict[str, float]
    digests: dict[str, str]
    fingerprint: str = ""
    postprocessing: Groups = ()


def open_folder(
    path: Path,
    folds: Sequence[str] = (),
    *,
    postprocessing: bool = True,
    limit: int | None = None,
) -> NnUNetFolder:
    """Read a folder of nnU-Net results.

    Args:
        path: `Dataset.../Trainer__Plans__configuration`, or a folder that contains one such.
        folds: Folds wanted; none for all that are trained.
        postprocessing: Read the postprocessing found for these folds, where there is one.
        limit: Read at most so many folds.

    Raises:
        PackageError: It is not such a folder, is damaged, or is not reproduced here.
        UsageError: A fold that is asked for is not there, or the folder contains several models.
    """
    found = find_model(path)
    plans, dataset = (_json(found / name) for name in ("plans.json", "dataset.json"))
    chosen = chosen_folds(found, folds)[:limit]
    files = {fold: checkpoint_file(found, fold) for fold in chosen}
    checkpoints = tuple(read_checkpoint(file) for file in files.values())
    first = checkpoints[0]
    for fold, other in zip(chosen, checkpoints, strict=True):
        if (other.configuration, other.trainer) != (first.configuration, first.trainer):
            raise PackageError(
                f"fold {fold} was trained as {other.trainer} {other.configuration}, fold "
                f"{chosen[0]} as {first.trainer} {first.configuration}: they are different models"
            )
    require_known_trainer(first.trainer)
    configuration = read_configuration(plans, dataset, first.configuration)
    if first.trainer == BATCH_NORM:
        network = replace(configuration.network, norm="batch", norm_eps=1e-5, norm_affine=True)
        configuration = replace(configuration, network=network)
    return NnUNetFolder(
        path=found,
        configuration=configuration,
        folds=tuple(chosen),
        checkpoints=checkpoints,
        fold_scores=_fold_scores(found, chosen),
        digests={fold: sha256_of_file(file) for fold, file in files.items()},
        fingerprint=_digest_if_there(found / "dataset_fingerprint.json"),
        postprocessing=_postprocessing(found, chosen) if postprocessing else (),
    )


def find_model(path: Path) -> Path:
    """The one folder at or below a path that has a `plans.json` and trained folds.

    Raises:
        PackageError: There is none.
        UsageError: There are several.
    """
    if not path.is_dir():
        raise PackageError(f"{path} is not a folder of nnU-Net results")
    depths = ("plans.json", "*/plans.json", "*/*/plans.json")
    found = sorted({file.parent for depth in depths for file in path.glob(depth)})
    found = [folder for folder in found if any(folder.glob("fold_*"))]
    if not found:
        raise PackageError(
            f"{path} contains no trained nnU-Net v2 model: a folder with plans.json, dataset.json "
            "and fold_0 to fold_4 or fold_all"
        )
    if len(found) > 1:
        names = ", ".join(str(folder.relative_to(path)) for folder in found[:6])
        raise UsageError(f"{path} contains {len(found)} models, name one: {names}")
    return found[0]


def chosen_folds(folder: Path, wanted: Sequence[str] = ()) -> list[str]:
    """Folds to take of a model's folder.

    Args:
        folder: From `find_model`.
        wanted: Names of folds; none for all that are trained.

    Raises:
        PackageError: No fold is trained.
        UsageError: A fold that is asked for is not there.
    """
    trained = sorted(
        child.name.removeprefix("fold_")
        for child in folder.glob("fold_*")
        if any((child / name).is_file() for name in CHECKPOINTS)
    )
    if not trained:
        raise PackageError(f"{folder} contains no {' or '.join(CHECKPOINTS)} in its folds")
    if not wanted:
        numbered = [fold for fold in trained if fold != "all"]
        return numbered or trained
    missing = [fold for fold in wanted if fold not in trained]
    if missing:
        raise UsageError(f"fold {missing[0]} is not trained: {', '.join(trained)} are")
    return list(dict.fromkeys(wanted))


def checkpoint_file(folder: Path, fold: str) -> Path:
    """The checkpoint of a trained fold."""
    return next(
        folder / f"fold_{fold}" / name
        for name in CHECKPOINTS
        if (folder / f"fold_{fold}" / name).is_file()
    )


def _digest_if_there(file: Path) -> str:
    return sha256_of_file(file) if file.is_file() else ""


def _postprocessing(folder: Path, folds: Sequence[str]) -> Groups:
    """Steps found on the cross-validation of exactly these folds."""
    file = folder / folder_of(folds) / "postprocessing.json"
    if not file.is_file():
        return ()
    return read_steps(_json(file), f"{file.parent.name}/{file.name}")


def _fold_scores(folder: Path, folds: Sequence[str]) -> dict[str, float]:
    """Mean foreground Dice of each fold, from nnU-Net's own `summary.json`."""
    scores = {}
    for fold in folds:
        file = folder / f"fold_{fold}" / "validation" / "summary.json"
        if not file.is_file():
            continue
        mean = _json(file).get("foreground_mean", {})
        if isinstance(mean, dict) and isinstance(mean.get("Dice"), int | float):
            scores[fold] = float(mean["Dice"])
    return scores


def _json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise PackageError(f"{path.parent} has no {path.name}")
    if path.stat().st_size > MAX_JSON_BYTES:
        raise PackageError(f"{path} is larger than {MAX_JSON_BYTES >> 20} MiB")
    try:
        found = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise PackageError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise PackageError(f"{path} contains no JSON object, but a {type(found).__name__}")
    return found
