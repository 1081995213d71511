"""Requests for a training or a comparison, validated before anything is written."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path

from pipelines.comparing.kinds import (
    STAGES,
    Kind,
    kinds_of_dims,
    plan_of_kind,
    planned_stages,
)
from pipelines.comparing.progress import progress
from pipelines.comparing.resources import size_for
from segmed.architectures import BUILT_IN, require_architecture
from segmed.errors import UsageError
from segmed.manifest import Manifest, read_manifest
from segmed.plan import read_plan
from segmed.quality.risk import DEFAULT_TARGET, RiskTarget
from segmed.training import Budget
from segmed.training.settings import Settings

CACHE = "cache"
"""Folder of a comparison with prepared cases and the facts that plans are made from."""


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
        kind: Kind of its plan, where a comparison has several.
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
    kind: Kind | None = None
    promise: RiskTarget = DEFAULT_TARGET

    @property
    def model(self) -> str:
        """Name of the model in tables and folders: `unet`, or `unet-2d` beside `unet-3d`."""
        return self.architecture if self.kind is None else f"{self.architecture}-{self.kind}"

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
        kinds: Kinds of plans to compare; one plan of no kind, which decides, by default.
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
    kinds: tuple[Kind | None, ...] = (None,)
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
        kinds = kinds_of_dims(text)
        self._require_no_plan(f"--dims {text}")
        return replace(self, kinds=kinds)

    def of_cascade(self, wanted: bool) -> Request:
        """The same request with a cascade of each architecture, beside its stages alone.

        Raises:
            UsageError: A plan or dimensions are named, or not all folds are held out.
        """
        if not wanted:
            return self
        self._require_no_plan("--cascade")
        if self.kinds != (None,):
            raise UsageError("--cascade makes 3D plans of its own: leave out --dims")
        folds = read_manifest(self.manifest_path).folds
        if set(self.folds) != set(folds) or len(folds) < 2:
            raise UsageError(
                "--cascade needs all folds, and two or more: its second stage learns from label "
                "maps of cases that the first stage has not seen; leave out --folds"
            )
        return replace(self, kinds=planned_stages(self.out_dir / "plan.yaml") or STAGES[1:])

    def _require_no_plan(self, option: str) -> None:
        if self.plan_path is not None:
            name = option.split(maxsplit=1)[0]
            raise UsageError(
                f"{option} is for plans to be made, and {self.plan_path} is used: leave out "
                f"{name} or --plan"
            )

    @property
    def has_cascade(self) -> bool:
        """Return whether a cascade is among the models."""
        return "cascade" in self.kinds

    @property
    def num_models(self) -> int:
        """Models to compare: architectures, each by every kind of plan."""
        return len(self.architectures) * len(self.kinds)

    def in_folder(self, folder: Path) -> Request:
        """The same request with another working folder."""
        return replace(self, folder=folder)

    def jobs(self, plan_path: Path, *, parallel: int = 1) -> list[TrainJob]:
        """One job a model and fold, the budget shared out evenly over `parallel` trainings.

        Args:
            plan_path: The plan; of several kinds, those of `plan_of_kind` beside it.
            parallel: Trainings at once.
        """
        pairs = [
            (name, fold, kind)
            for name in self.architectures
            for kind in self.kinds
            for fold in self.folds
        ]
        share = self.budget
        if self.budget.seconds is not None:
            rounds = math.ceil(len(pairs) / parallel)
            share = replace(share, seconds=self.budget.seconds / rounds)
        return [
            TrainJob(
                self.manifest_path,
                plan_of_kind(plan_path, kind),
                name,
                fold,
                share,
                self.out_dir,
                self.settings,
                number,
                len(pairs),
                kind,
                self.promise,
            )
            for number, (name, fold, kind) in enumerate(pairs, 1)
        ]


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
