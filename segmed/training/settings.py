"""Settings of one training and the result of each epoch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from itertools import count
from pathlib import Path
from typing import Any, TypedDict

from segmed.training.budget import Budget


@dataclass(frozen=True)
class FirstStage:
    """First stage of a cascade, whose label maps a training refines.

    Attributes:
        package: Package of the networks that have not seen the cases of the fold that is held out;
            it becomes a part of the trained package.
        label_maps: File with the label map of each training case, by case id, each made by networks
            that had not seen the case: so the second stage learns from errors as they will be.
    """

    package: Path
    label_maps: Mapping[str, Path]


@dataclass(frozen=True)
class Settings:
    """Run settings of one training, beside its plan.

    Attributes:
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        seed: Seed of weights, patches and augmentation.
        resume: Continue from `last.ckpt` where there is one.
        weights: Pretrained weights to start from: a file, or nnU-Net results for a U-Net.
        cache_dir: Where prepared cases are kept; `cache` beside the output folder by default.
        checkpoint_minutes: Longest time between two checkpoints.
        deterministic: Only algorithms that give the same bits each time.
        compile: Compile the network with `torch.compile`; None: on a GPU where it saves time.
        validation_share: Share of a time budget that one validation may take, on fewer cases where
            need be, and that those between the first and the last one may take together.
        is_scored: The caller scores all held-out cases afterwards, within the same time budget.
        patience: Epochs without a better validation Dice after which to stop; 0 never stops early.
        first_stage: First stage of a cascade, for a plan that refines one.
    """

    device: str = "auto"
    seed: int = 0
    resume: bool = False
    weights: Path | None = None
    cache_dir: Path | None = None
    checkpoint_minutes: float = 5.0
    deterministic: bool = False
    compile: bool | None = None
    validation_share: float = 0.1
    is_scored: bool = False
    patience: int = 0
    first_stage: FirstStage | None = None

    @property
    def label_maps(self) -> Mapping[str, Path] | None:
        """Label maps of the training cases by the first stage, where there is one."""
        return None if self.first_stage is None else self.first_stage.label_maps


class TrainingOptions(TypedDict, total=False):
    """The fields of `Settings` as keyword arguments."""

    device: str
    seed: int
    resume: bool
    weights: Path | None
    cache_dir: Path | None
    checkpoint_minutes: float
    deterministic: bool
    compile: bool | None
    validation_share: float
    is_scored: bool
    patience: int
    first_stage: FirstStage | None


@dataclass(frozen=True)
class FitRequest:
    """Arguments of one call of `fit`.

    Attributes:
        architecture: Model name.
        fold: Fold that is held out.
        budget: Time or epochs.
        out_dir: Folder of the run.
        settings: Device, seed, resume and the like.
        on_prepared: Called with cases prepared and cases in all.
    """

    architecture: str
    fold: int
    budget: Budget
    out_dir: Path
    settings: Settings
    on_prepared: Callable[[int, int], None] | None = None

    def preparation_of(self, total: int) -> Callable[[], None]:
        """Callback that reports one more of so many cases as prepared."""
        report, done = self.on_prepared, count(1)
        if report is None:
            return lambda: None
        report(0, total)
        return lambda: report(next(done), total)


@dataclass(frozen=True)
class EpochResult:
    """Result of one epoch.

    Attributes:
        epoch: Number of the epoch, from 1.
        step: Steps done since the start.
        train_loss: Mean loss over the epoch's steps.
        val_loss: Mean cross-entropy over the held-out cases; `None` where none was measured: a
            time budget leaves out validations that would take too much of it.
        val_dice: Mean Dice of each label over the cases that were validated; empty where not
            measured.
        learning_rate: Learning rate of the epoch's last step.
        seconds: Seconds of the budget spent so far.
        phases_s: Wall seconds of this epoch by phase, see `segmed.training.phases.PHASES`;
            `checkpoint` are those written since the last result.
        peak_memory_mb: Largest memory of the process (on a GPU: of the device) so far, in MB.
        val_cases: Held-out cases that were validated: all that the time affords in the first and
            the last validation, a sample of them between.
        sample_dice: Mean Dice over this sample alone, by which epochs are compared.
    """

    epoch: int
    step: int
    train_loss: float
    val_loss: float | None
    val_dice: dict[str, float]
    learning_rate: float
    seconds: float
    phases_s: dict[str, float] = field(default_factory=dict)
    peak_memory_mb: float = 0.0
    val_cases: int = 0
    sample_dice: float | None = None

    @property
    def mean_dice(self) -> float:
        """Mean of the labels' Dice; 0 where there is none."""
        return sum(self.val_dice.values()) / len(self.val_dice) if self.val_dice else 0.0

    @property
    def compared_dice(self) -> float:
        """Mean Dice over the cases that every validation scores; 0 where there is none."""
        return self.mean_dice if self.sample_dice is None else self.sample_dice

    def as_record(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return asdict(self)
