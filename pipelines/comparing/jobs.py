"""Requests for a training or a comparison, validated before anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pipelines.comparing.progress import progress
from pipelines.comparing.resources import memory_for, remark_on_budget, size_for
from segmed.architectures import BUILT_IN, require_architecture
from segmed.errors import UsageError
from segmed.manifest import Manifest, read_manifest
from segmed.plan import read_plan
from segmed.plan.agreement import require_same_channels, require_same_labels
from segmed.plan.networks import size_of
from segmed.plan.resources import Resources
from segmed.quality.risk import DEFAULT_TARGET, RiskTarget
from segmed.training import Budget
from segmed.training.settings import Settings

CACHE = "cache"
"""Folder of a comparison with prepared cases and the facts that plans are made from."""

Dims = Literal[2, 3]
"""Dimensions of a network."""


@dataclass(frozen=True)
class TrainJob:
    """One architecture on one fold.

    Attributes:
        manifest_path: The manifest.
        plan_path: The plan.
        architecture: Model name.
        fold: Fold that is held out.
        budget: Time or epochs.
        out_dir: Folder of the comparison.
        settings: Device, seed, resume.
        number: Its number among the trainings of a comparison, from 1.
        of: How many trainings there are.
        spatial_dims: Dimensions of its plan, where a comparison has plans of several.
        promise: Promise about unreviewed results that the package makes.
    """

    manifest_path: Path
    plan_path: Path
    architecture: str
    fold: int
    budget: Budget
    out_dir: Path
    settings: Settings = field(default_factory=Settings)
    number: int = 1
    of: int = 1
    spatial_dims: Dims | None = None
    promise: RiskTarget = DEFAULT_TARGET

    @property
    def model(self) -> str:
        """Name of the model in tables and folders: `unet`, or `unet-2d` beside `unet-3d`."""
        suffix = "" if self.spatial_dims is None else f"-{self.spatial_dims}d"
        return f"{self.architecture}{suffix}"

    @property
    def run_dir(self) -> Path:
        """Folder of this job's results."""
        return self.out_dir / "runs" / self.model / f"fold{self.fold}"

    @property
    def fit_settings(self) -> Settings:
        """The settings, with prepared cases kept where all jobs of the comparison find them."""
        return replace(
            self.settings, cache_dir=cache_of(self.settings, self.out_dir), is_scored=True
        )


@dataclass(frozen=True)
class Request:
    """Request for a comparison.

    Attributes:
        manifest_path: The manifest.
        architectures: Model names, in order.
        folds: Folds to hold out, in order.
        plan_path: The plan; made from the data if absent.
        budget: Budget of all trainings together (of each, where it is in epochs).
        out_dir: Folder of the comparison.
        register: Name to register the winner under.
        settings: Device, seed, resume.
        size: Size of the networks of a plan that is made; by the device if not given.
        folder: Working folder, with the embedded tracking database.
        side_by_side: Trainings at once, see `pipelines.comparing.device_pool`.
        postprocess: Try post-processing on the held-out cases of the winner.
        ensembles: Try the winner averaged with other architectures on the held-out cases.
        dims: Dimensions to compare, with a plan each; one plan, which decides, if empty.
        against: Existing models that the winner is held against.
        promise: Promise about unreviewed results that the packages make.
    """

    manifest_path: Path
    architectures: tuple[str, ...]
    folds: tuple[int, ...]
    plan_path: Path | None
    budget: Budget
    out_dir: Path
    register: str | None = None
    settings: Settings = field(default_factory=Settings)
    size: str | None = None
    folder: Path = Path()
    side_by_side: int = 1
    postprocess: bool = True
    ensembles: bool = True
    dims: tuple[Dims, ...] = ()
    against: tuple[str, ...] = ()
    promise: RiskTarget = DEFAULT_TARGET

    @staticmethod
    def parse(
        manifest_path: Path,
        *,
        models: str,
        folds: str,
        plan: Path | None,
        budget: Budget,
        out_dir: Path,
        register: str | None = None,
        settings: Settings = Settings(),
    ) -> Request:
        """A request from the texts of a command line.

        Raises:
            UsageError: A model or a fold is unknown.
        """
        manifest = read_manifest(manifest_path)
        return Request(
            manifest_path=manifest_path,
            architectures=_models_named(models),
            folds=_folds_named(folds, manifest),
            plan_path=plan,
            budget=budget,
            out_dir=out_dir,
            register=register,
            settings=settings,
        )

    def of_size(self, size: str | None) -> Request:
        """The same request with another size of networks, for a new plan.

        Raises:
            UsageError: There is no such size; or a plan is named, which has its own.
        """
        require_size(size, self.settings.device, self.plan_path)
        return replace(self, size=size)

    def of_dims(self, text: str | None) -> Request:
        """The same request with a plan for each of some dimensions, such as `2,3`.

        Raises:
            UsageError: Others than 2 and 3 are named, or a plan is named, which has its own.
        """
        if text is None:
            return self
        dims = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
        if not dims or not set(dims) <= {"2", "3"}:
            raise UsageError(f"--dims {text!r}: give 2, 3 or 2,3")
        if self.plan_path is not None:
            raise UsageError(
                f"--dims {text} is for plans to be made, and {self.plan_path} is used: leave out "
                "--dims or --plan"
            )
        return replace(self, dims=tuple(2 if name == "2" else 3 for name in dims))

    @property
    def num_models(self) -> int:
        """Models to compare: architectures, each in every dimension."""
        return len(self.architectures) * max(1, len(self.dims))

    def in_folder(self, folder: Path) -> Request:
        """The same request with another working folder."""
        return replace(self, folder=folder)

    def jobs(self, plan_path: Path, *, parallel: int = 1) -> list[TrainJob]:
        """One job a model and fold, the budget shared out evenly over `parallel` trainings.

        Args:
            plan_path: The plan; of several dimensions, those of `plan_of_dims` beside it.
            parallel: Trainings at once.
        """
        kinds: tuple[Dims | None, ...] = self.dims or (None,)
        pairs = [
            (name, fold, dims)
            for name in self.architectures
            for dims in kinds
            for fold in self.folds
        ]
        share = self.budget
        if self.budget.seconds is not None:
            rounds = math.ceil(len(pairs) / parallel)
            share = replace(share, seconds=self.budget.seconds / rounds)
        return [
            TrainJob(
                self.manifest_path,
                plan_of_dims(plan_path, dims),
                name,
                fold,
                share,
                self.out_dir,
                self.settings,
                number,
                len(pairs),
                dims,
                self.promise,
            )
            for number, (name, fold, dims) in enumerate(pairs, 1)
        ]


def plan_of_dims(plan_path: Path, dims: Dims | None) -> Path:
    """The plan of some dimensions beside the place of a comparison's one plan."""
    return plan_path if dims is None else plan_path.parent / f"plan-{dims}d.yaml"


SHORTEST_TRAINING_S = 5.0
"""A training of fewer seconds is not begun: its last validation and scoring take as long."""


def require_enough_time(request: Request, *, parallel: int = 1) -> None:
    """Refuse a budget that is too short for its trainings, before anything is begun.

    Args:
        request: The comparison.
        parallel: Trainings at once.

    Raises:
        UsageError: A training would have fewer than `SHORTEST_TRAINING_S` seconds.
    """
    seconds = request.budget.seconds
    trainings = request.num_models * len(request.folds)
    rounds = math.ceil(trainings / max(parallel, 1))
    if seconds is None or not rounds or seconds / rounds >= SHORTEST_TRAINING_S:
        return
    raise UsageError(
        f"a budget of {seconds:.0f} s is too short for {trainings} trainings "
        f"({request.num_models} models, {len(request.folds)} folds): "
        f"{seconds / rounds:.1f} s each; give at least --budget "
        f"{math.ceil(rounds * SHORTEST_TRAINING_S)}s, or fewer --models or --folds"
    )


def cache_of(settings: Settings, out_dir: Path) -> Path:
    """Return the folder of prepared cases that the trainings of a comparison share."""
    return settings.cache_dir or out_dir / CACHE


def require_size(size: str | None, device: str, plan_path: Path | None) -> None:
    """Check the size of networks that somebody asked for, before anything is made.

    Raises:
        UsageError: There is no such size; or a plan is named, which has its own.
    """
    if size is None:
        return
    size_for(size, device)
    if plan_path is not None:
        raise UsageError(
            f"--size {size} is for a plan to be made, and {plan_path} is used: leave out --size "
            "or --plan"
        )


def settle_plan(
    manifest_path: Path,
    plan_path: Path | None,
    out_dir: Path,
    *,
    size: str | None = None,
    resources: Resources | None = None,
    device: str = "cpu",
    is_fresh: bool = False,
    spatial_dims: Dims | None = None,
) -> Path:
    """The plan to use: the one that was named, the one in `out_dir`, or a new one there.

    Args:
        manifest_path: The manifest.
        plan_path: The plan that was named, if one was.
        out_dir: Folder of the comparison.
        size: Size of the networks of a plan that is made; a plan of another size in `out_dir` is
            used with a remark.
        resources: Time and device of one training, for a plan that is made; a plan that was made
            for another time is used with a remark.
        device: Device of the trainings; decides size and memory of a plan that is made.
        is_fresh: All is trained anew: a plan of another size in `out_dir` is replaced.
        spatial_dims: Dimensions of a plan that is made, in a file of its own; decided if not given.

    Raises:
        ManifestError: The manifest cannot be read.
        UsageError: The plan cannot be read, or was made for another image set.
    """
    manifest = read_manifest(manifest_path)
    place = plan_path or plan_of_dims(out_dir / "plan.yaml", spatial_dims)
    remark = "" if plan_path else _remark_on_size(place, size)
    if plan_path is None and (not place.exists() or (is_fresh and remark)):
        from pipelines.comparing.planning import write_made_plan  # noqa: PLC0415 - reads images

        write_made_plan(
            manifest,
            place,
            out_dir / CACHE,
            spatial_dims=spatial_dims,
            size=size_for(size, device),
            memory_gb=memory_for(device),
            resources=resources,
        )
    elif remark:
        progress.warning("%s", remark)
    plan = read_plan(place)
    require_same_labels(plan, manifest)
    require_same_channels(plan, manifest)
    if remark := remark_on_budget(plan, resources):
        progress.warning("%s: %s", place, remark)
    return place


def _remark_on_size(place: Path, size: str | None) -> str:
    """A sentence for a plan whose networks have another size than was requested."""
    if size is None or not place.exists():
        return ""
    planned = size_of(read_plan(place).networks)
    if planned == size:
        return ""
    return (
        f"--size {size} is not used: {place} was made with {planned or 'other'} networks and is "
        "kept for the trainings in this folder; give another --out, or with `segmed compare` "
        "--fresh to train all anew"
    )


def check_job(job: TrainJob) -> None:
    """Refuse an unknown architecture or fold, or missing weights, before anything is made.

    Raises:
        UsageError: The architecture or the fold is unknown, or the weights are not there or are for
            another architecture.
    """
    require_architecture(job.architecture)
    weights = job.settings.weights
    if weights is not None and not weights.exists():
        raise UsageError(
            f"--weights {weights}: no such file; give a .pth or .safetensors file, or a folder or "
            "zip of nnU-Net results"
        )
    if weights is not None:
        from segmed.training.weights import check_weights  # noqa: PLC0415 - loads PyTorch

        check_weights(weights, job.architecture)
    _folds_named(str(job.fold), read_manifest(job.manifest_path))


def check_start(job: TrainJob) -> None:
    """Refuse weights that do not fit the network of the plan, before anything is prepared.

    Their report is logged.

    Raises:
        WeightsError: The weights cannot be read safely, or too little of them fits.
        PackageError: A folder is no trained nnU-Net model, or is damaged.
    """
    if job.settings.weights is None:
        return
    from segmed.training.weights import check_start as start_once  # noqa: PLC0415 - as above

    report = start_once(job.settings.weights, job.architecture, read_plan(job.plan_path))
    progress.info("start: %s", report)


def _models_named(text: str) -> tuple[str, ...]:
    if text == "all":
        return BUILT_IN
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        require_architecture(name)
    if not names:
        raise UsageError("no model is named: write --models unet,unetpp or --models all")
    return names


def _folds_named(text: str, manifest: Manifest) -> tuple[int, ...]:
    if text == "all":
        return manifest.folds
    known = [str(fold) for fold in manifest.folds]
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        if name not in known:
            raise UsageError(
                f"fold {name!r} is not in the manifest: it has {', '.join(known) or 'none'}"
            )
    return tuple(int(name) for name in names)
