"""Fewer windows for a package: less overlap, no empty windows, accepted by paired scores.

Windows that overlap by a quarter are fewer than half of those that overlap by a half. Windows
without a body need no network. Each is tried on held-out cases, and kept in the plan, with what was
measured as its reason, if it spares windows and keeps the limits.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segmed.acceleration.acceptance import effects_of, faults_of, labels_changed
from segmed.acceleration.held_out import chosen_cases
from segmed.evaluation import Evaluated, score_cases
from segmed.inference import Predictor
from segmed.inference.engine import Engine
from segmed.io.scratch import scratch_space
from segmed.manifest import Case, Manifest
from segmed.package import ModelPackage
from segmed.package.int8 import ChangeLimits, StructureEffect
from segmed.plan import Inference, Plan

SMALL_OVERLAP = 0.25
"""Overlap that is tried instead of a larger one."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class WindowTrial:
    """One change of the windows and its effect on the held-out cases.

    Attributes:
        setting: Field of the plan's `inference`.
        value: Value that was tried.
        windows_before: Windows that went through the network before the change.
        windows: Windows that went through it with the change.
        cases: Held-out cases.
        structures: Effect on each structure, against the windows that the plan had at first.
        labels_changed: Share of changed labels, of the voxels that either gives to a structure.
        faults: Reasons against the change; none if it is kept.
    """

    setting: str
    value: float | bool
    windows_before: int
    windows: int
    cases: int
    structures: tuple[StructureEffect, ...]
    labels_changed: float
    faults: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The trial as JSON values."""
        return {
            "setting": self.setting,
            "value": self.value,
            "accepted": not self.faults,
            "faults": list(self.faults),
            "windows_before": self.windows_before,
            "windows": self.windows,
            "cases": self.cases,
            "labels_changed": self.labels_changed,
            "structures": [effect.model_dump() for effect in self.structures],
        }

    def reason(self) -> str:
        """The evidence, as a reason in a plan."""
        effects = ", ".join(
            f"{one.label} {one.difference:+.4f} (lower bound {one.bound:+.4f})"
            for one in self.structures
        )
        return (
            f"measured on {self.cases} held-out cases: {self.windows} windows instead of "
            f"{self.windows_before}; Dice {effects}; {self.labels_changed:.2%} of labels changed"
        )


@dataclass(frozen=True)
class FewerWindows:
    """Result of the trials.

    Attributes:
        package: The package, with the accepted settings in its plan.
        trials: What was tried.
    """

    package: ModelPackage
    trials: tuple[WindowTrial, ...]

    @property
    def is_changed(self) -> bool:
        """Return whether a setting was accepted."""
        return any(not trial.faults for trial in self.trials)


@dataclass(frozen=True)
class _Scored:
    evaluated: Evaluated
    windows: int


def fewer_windows(
    package: ModelPackage,
    manifest: Manifest,
    *,
    fold: int | None = None,
    cases: Sequence[Case | str] | None = None,
    limits: ChangeLimits | None = None,
    cache_dir: Path | None = None,
    report: Report | None = None,
) -> FewerWindows:
    """Try fewer windows on cases that a package was not trained on.

    Args:
        package: The package. An int8 network that it has is lost if its plan changes: quantise
            the result.
        manifest: The image set of the held-out cases.
        fold: Fold whose cases are held out; the one of the training, if left out.
        cases: Held-out cases or ids instead, such as `manifest.test`.
        limits: Limits of acceptance.
        cache_dir: Folder that keeps converted models.
        report: Called with a sentence at each step.

    Raises:
        UsageError: A held-out case was trained on, there is none, or the networks have several
            plans.
        ManifestError: A case has no label or cannot be read; the message names it.
    """
    package.require_one_plan("the search for fewer windows")
    say, allowed = report or (lambda _: None), limits or ChangeLimits()
    held_out = chosen_cases(package, manifest, fold=fold, cases=cases)
    plain = replace(package, int8=None)
    with scratch_space() as scratch:

        def score(tried: ModelPackage, out: str) -> _Scored:
            predictor = Predictor(tried, cache_dir=cache_dir)
            counts = [_Counting(engine) for engine in predictor.engines]
            predictor.engines = [*counts]
            found = score_cases(predictor, manifest, held_out, out_dir=scratch / out)
            return _Scored(found, counts[0].windows)

        settings = settings_to_try(plain.plan.inference)
        if not settings:
            return FewerWindows(package, ())
        say(f"scoring {len(held_out)} held-out cases with the windows of the plan")
        first = score(plain, "before")
        spent, trials = first.windows, []
        for setting, value in settings:
            tried = replace(plain, plan=_with(plain.plan, setting, value))
            say(f"scoring them with {setting} {value}")
            found = score(tried, setting)
            trial = _trial(setting, value, first, found, spent, allowed)
            trials.append(trial)
            for fault in trial.faults:
                say(f"not accepted: {fault}")
            if not trial.faults:
                reasons = {**tried.plan.reasons, f"inference.{setting}": trial.reason()}
                plan = tried.plan.model_copy(update={"reasons": reasons})
                plain, spent = replace(tried, plan=plan), found.windows
    changed = FewerWindows(plain, tuple(trials))
    return changed if changed.is_changed else replace(changed, package=package)


def settings_to_try(rules: Inference) -> list[tuple[str, float | bool]]:
    """Settings that may spare windows, in the order in which they are tried."""
    found: list[tuple[str, float | bool]] = []
    if rules.overlap > SMALL_OVERLAP:
        found.append(("overlap", SMALL_OVERLAP))
    if not rules.skip_empty_windows and rules.average == "probabilities":
        found.append(("skip_empty_windows", True))
    return found


def _with(plan: Plan, setting: str, value: float | bool) -> Plan:
    rules = plan.inference.model_copy(update={setting: value})
    return plan.model_copy(update={"inference": rules})


def _trial(
    setting: str,
    value: float | bool,
    before: _Scored,
    after: _Scored,
    spent: int,
    limits: ChangeLimits,
) -> WindowTrial:
    effects = effects_of(before.evaluated.table, after.evaluated.table, limits)
    changed = labels_changed(before.evaluated.predictions, after.evaluated.predictions)
    cases = len(before.evaluated.predictions)
    faults = faults_of(effects, changed, limits, cases=cases)
    if after.windows >= spent:
        faults.insert(0, f"{setting} {value} spares no window of the held-out cases")
    return WindowTrial(setting, value, spent, after.windows, cases, effects, changed, tuple(faults))


class _Counting:
    """An engine that counts its windows."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.name = engine.name
        self.device: torch.device = engine.device
        self.streams = engine.streams
        self.windows = 0
        self._lock = threading.Lock()

    def __call__(self, windows: Tensor) -> Tensor:
        """Maps of windows, as the engine gives them."""
        with self._lock:
            self.windows += len(windows)
        return self._engine(windows)
