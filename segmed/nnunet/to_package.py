"""A package of a model that nnU-Net trained, its folds as members."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from segmed.errors import PackageError, WeightsError
from segmed.models.nnunet import NAME
from segmed.nnunet.folder import NnUNetFolder, open_folder
from segmed.nnunet.to_plan import plan_of
from segmed.nnunet.zipped import as_folder
from segmed.package import ModelPackage
from segmed.package.ensemble import join_packages


def package_of(
    path: Path, *, folds: Sequence[str] = (), licence: str = "", postprocessing: bool = True
) -> ModelPackage:
    """The package of an nnU-Net results folder.

    Args:
        path: The folder, one above it, or a zip archive of it.
        folds: Folds wanted; none for all that are trained. Their logits are averaged.
        licence: Terms under which the weights may be used, as text for the card.
        postprocessing: Apply the postprocessing that nnU-Net found for these folds.

    Raises:
        PackageError: It is not such a folder, is damaged, or does something not reproduced here.
        UsageError: A fold that is asked for is not there, or the folder contains several models.
    """
    with as_folder(path) as folder:
        found = open_folder(folder, folds, postprocessing=postprocessing)
        packages = [_member(found, index, licence) for index in range(len(found.folds))]
    whole = packages[0] if len(packages) == 1 else join_packages(packages, _origin(found, licence))
    try:
        whole.build()
    except WeightsError as error:
        raise PackageError(
            f"the weights do not fit the network that plans.json describes: {error}"
        ) from error
    return whole


def _member(found: NnUNetFolder, index: int, licence: str) -> ModelPackage:
    checkpoint, fold = found.checkpoints[index], found.folds[index]
    provenance = {**_origin(found, licence), "fold": fold, "checkpoint_sha256": found.digests[fold]}
    if checkpoint.epoch is not None:
        provenance["epochs"] = checkpoint.epoch
    return ModelPackage(
        architecture=NAME,
        options=asdict(found.configuration.network),
        plan=plan_of(found),
        state=checkpoint.state,
        provenance=provenance,
    )


def _origin(found: NnUNetFolder, licence: str) -> dict[str, Any]:
    about = found.configuration
    origin = {
        "data": about.dataset,
        "trained_by": "nnU-Net v2",
        "trainer": found.checkpoints[0].trainer,
        "plans": about.plans_name,
        "configuration": about.name,
        "folds": list(found.folds),
        "fold_scores": dict(found.fold_scores),
        "dataset_fingerprint": found.fingerprint,
        "weights_licence": licence,
    }
    return {key: value for key, value in origin.items() if value}
