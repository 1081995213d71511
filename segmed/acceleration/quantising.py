"""Quantise a package: calibrate on training cases, accept by paired scores on held-out ones.

The first try leaves the first and the last layers as they are, and all norms; they compute in
bfloat16 where the processor has units for it, else in float32, which is tried next. If a limit is
not kept, the quarter of the other layers that adds the largest error stays in float32, too, then
half of them. A package of which all are refused has no int8 network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import ceil
from pathlib import Path
from typing import Any

from segmed.acceleration.acceptance import effects_of, faults_of, labels_changed
from segmed.acceleration.calibration import calibration_windows
from segmed.acceleration.held_out import chosen_cases
from segmed.acceleration.network import QuantisedNetwork, Quantiser, require_nncf
from segmed.errors import UsageError
from segmed.evaluation import Evaluated, score_cases
from segmed.inference import Predictor
from segmed.inference.engine import activation_of
from segmed.inference.int8_units import has_bf16_units
from segmed.inference.openvino_engine import complete_network
from segmed.io.digest import sha256_of_bytes
from segmed.io.scratch import scratch_space
from segmed.manifest import Case, Manifest
from segmed.package import ModelPackage
from segmed.package.int8 import (
    ChangeLimits,
    Int8Network,
    Int8Record,
    StructureEffect,
    other_precision,
)

WINDOWS = 32
"""Calibration windows unless the caller decides otherwise."""

TRIES = ((0.0, True), (0.0, False), (0.25, False), (0.5, False))
"""Share of the inner layers that stays as it is, and whether what is not int8 is bfloat16."""

Report = Callable[[str], None]


@dataclass(frozen=True)
class QuantisationRequest:
    """Request for a quantisation.

    Attributes:
        fold: Fold whose cases are held out; the one of the training, if left out.
        cases: Held-out cases or ids instead, such as `manifest.test`.
        windows: Calibration windows.
        seed: Seed of all draws.
        limits: Limits of acceptance.
    """

    fold: int | None = None
    cases: Sequence[Case | str] | None = None
    windows: int = WINDOWS
    seed: int = 0
    limits: ChangeLimits = field(default_factory=ChangeLimits)


@dataclass(frozen=True)
class Attempt:
    """One int8 network and its effect on the held-out cases.

    Attributes:
        float32_layers: Layers that are not int8.
        bf16: They compute in bfloat16.
        cases: Held-out cases.
        structures: Effect on each structure.
        labels_changed: Share of changed labels, of the voxels that either gives to a structure.
        faults: Limits that were not kept; none if the network is accepted.
    """

    float32_layers: tuple[str, ...]
    bf16: bool
    cases: int
    structures: tuple[StructureEffect, ...]
    labels_changed: float
    faults: tuple[str, ...]

    def record(self) -> dict[str, Any]:
        """The attempt as JSON values."""
        return {
            "accepted": not self.faults,
            "faults": list(self.faults),
            "cases": self.cases,
            "labels_changed": self.labels_changed,
            "structures": [effect.model_dump() for effect in self.structures],
            "float32_layers": list(self.float32_layers),
            "bf16": self.bf16,
        }


@dataclass(frozen=True)
class Quantised:
    """Result of a quantisation.

    Attributes:
        package: The package with its int8 network; without one if none was accepted.
        attempts: The networks that were tried; the last one is accepted or all are refused.
    """

    package: ModelPackage
    attempts: tuple[Attempt, ...]

    @property
    def is_accepted(self) -> bool:
        """Return whether the package has an int8 network."""
        return self.package.int8 is not None


def quantise(
    package: ModelPackage,
    manifest: Manifest,
    request: QuantisationRequest = QuantisationRequest(),
    *,
    cache_dir: Path | None = None,
    report: Report | None = None,
) -> Quantised:
    """Quantise a package and measure the result on cases that it was not trained on.

    Args:
        package: The package; an int8 network that it has is replaced.
        manifest: The image set, of training cases and held-out ones.
        request: Cases, windows and limits.
        cache_dir: Folder that keeps converted models.
        report: Called with a sentence at each step.

    Raises:
        UsageError: NNCF is not installed, a held-out case was trained on, there is none, or the
            networks have several plans.
        ManifestError: A case has no label or cannot be read; the message names it.
        ModelError: The network cannot be converted or quantised.
    """
    package.require_one_plan("quantisation")
    require_nncf()
    say = report or (lambda _: None)
    plain = replace(package, int8=None)
    held_out = chosen_cases(
        plain, manifest, fold=request.fold, cases=request.cases, seed=request.seed
    )
    names, folds = {case.id for case in held_out}, {case.fold for case in held_out}
    training = [
        case for case in manifest.training if case.id not in names and case.fold not in folds
    ]
    if not training:
        raise UsageError(
            f"manifest {manifest.name!r} has no training case to calibrate on beside the held-out "
            "ones: give the manifest of the training"
        )
    predictor = Predictor(plain, device="cpu", engine="openvino", cache_dir=cache_dir)
    windows, sources = calibration_windows(
        predictor, manifest, training, count=request.windows, seed=request.seed
    )
    say(f"calibrating on {len(windows)} windows of {sources} training cases")
    with scratch_space() as scratch:
        (scratch / "network").mkdir()
        network = complete_network(plain.build(), activation_of(plain.plan))
        quantiser = Quantiser(network, windows, scratch / "network")
        say(f"scoring {len(held_out)} held-out cases in float32")
        before = score_cases(predictor, manifest, held_out, out_dir=scratch / "float32")
        attempts: list[Attempt] = []
        for share, bf16 in TRIES:
            if bf16 and not has_bf16_units():
                continue
            layers = _float32_layers(quantiser, share)
            made = quantiser.quantise(layers, bf16=bf16)
            say(f"scoring them in int8, {len(layers)} layers in {other_precision(bf16)}")
            draft = _record(plain, made, request, sources)
            int8 = Int8Network(draft, made.content)
            measured = Predictor(replace(plain, int8=int8), device="cpu", engine="int8")
            after = score_cases(
                measured, manifest, held_out, out_dir=scratch / f"int8-{len(attempts)}"
            )
            attempt = _attempt(before, after, made, request.limits)
            attempts.append(attempt)
            for fault in attempt.faults:
                say(f"not accepted: {fault}")
            if not attempt.faults:
                record = _with_measures(draft, attempt)
                whole = replace(plain, int8=replace(int8, record=record))
                return Quantised(whole, tuple(attempts))
            if attempt.cases < request.limits.min_cases:
                break  # other layers change nothing about that
    return Quantised(plain, tuple(attempts))


def _float32_layers(quantiser: Quantiser, share: float) -> list[str]:
    """Layers of a try that stay in float32: the outer ones, and those of the largest error."""
    if share == 0.0:
        return list(quantiser.outer_layers)
    ranked = quantiser.by_error()
    return [*quantiser.outer_layers, *ranked[: ceil(share * len(ranked))]]


def _attempt(
    before: Evaluated, after: Evaluated, made: QuantisedNetwork, limits: ChangeLimits
) -> Attempt:
    effects = effects_of(before.table, after.table, limits)
    changed = labels_changed(before.predictions, after.predictions)
    cases = len(before.predictions)
    faults = faults_of(effects, changed, limits, cases=cases)
    return Attempt(made.float32_layers, made.bf16, cases, effects, changed, tuple(faults))


def _record(
    package: ModelPackage, made: QuantisedNetwork, request: QuantisationRequest, sources: int
) -> Int8Record:
    """The record of a network that is yet to be measured."""
    return Int8Record(
        made_from=package.float32_hash,
        sha256=sha256_of_bytes(made.content),
        cases=1,
        structures=(),
        labels_changed=0.0,
        limits=request.limits,
        float32_layers=made.float32_layers,
        calibration_cases=sources,
        calibration_windows=request.windows,
        seed=request.seed,
        noise_difference=made.noise_difference,
        generated_kernels=made.generated_kernels,
        bf16=made.bf16,
        versions=made.versions,
    )


def _with_measures(record: Int8Record, attempt: Attempt) -> Int8Record:
    return record.model_copy(
        update={
            "cases": attempt.cases,
            "structures": attempt.structures,
            "labels_changed": attempt.labels_changed,
        }
    )
