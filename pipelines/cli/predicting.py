"""Segment images, or forecast time and memory, as the command line requests."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

from pipelines.cli.quality_words import write_quality
from pipelines.registry.cache import converted_folder
from pipelines.registry.loading import load_models
from pipelines.registry.reference import Resolved
from segmed.errors import UsageError
from segmed.formats import BINARY_SEG, SegForm, output_named, require_seg_form
from segmed.inference import (
    Forecast,
    Outcome,
    Predictor,
    foresee_files,
    predict_files,
)
from segmed.inference.inputs import expected_by, find_all
from segmed.inference.vocabulary import engine_named
from segmed.io.atomic import write_whole
from segmed.io.channel_files import CaseFiles
from segmed.io.output_names import check_names
from segmed.io.output_names import shown as printable
from segmed.io.results import RUN_RECORD
from segmed.package import ModelPackage
from segmed.package.series_rules import read_rules
from segmed.quality.risk import RiskBound

T = TypeVar("T")

Shown = Callable[[Iterator[T], int], Iterable[T]]
"""Passes items on and shows their progress, given their number."""


@dataclass(frozen=True)
class PredictJob:
    """Request: inputs, model and output folder.

    Attributes:
        inputs: Files, series folders, and folders of these.
        models: Model references; several are averaged.
        out_dir: Folder of the segmentations.
        format: One of `segmed.formats.OUTPUT_SUFFIXES`.
        engine: One of `segmed.inference.vocabulary.ENGINES`.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        tta: Average over mirror images; None: as the model has it.
        memory_gb: Memory that must not be exceeded, in GB of 2^30 bytes.
        cache_dir: Folder that keeps converted models; None is the one in the user's cache.
        trust: Decode everything in this process, also what may crash it.
        names: `source` or `hash`; None: image files by source, DICOM series by hash.
        rules: YAML that says which series of a DICOM study is which channel.
        any_modality: Take DICOM images of another modality or body part than the model's, too.
        seg: Form of DICOM segmentations.
    """

    inputs: tuple[Path, ...]
    models: tuple[str, ...]
    out_dir: Path
    format: str = "nifti"
    engine: str = "auto"
    device: str = "auto"
    tta: bool | None = None
    memory_gb: float | None = None
    cache_dir: Path | None = None
    trust: bool = False
    names: str | None = None
    rules: Path | None = None
    any_modality: bool = False
    seg: SegForm = BINARY_SEG

    @property
    def roots(self) -> list[Path]:
        """The folders among the inputs, whose trees the results mirror."""
        return [path for path in self.inputs if path.is_dir()]

    def search(self, package: ModelPackage) -> tuple[list[CaseFiles], list[dict[str, str]]]:
        """Go through the inputs, folders searched, for the model of a package.

        Returns:
            The cases, and the files beside them that are not images, with the reasons.
        """
        rules = read_rules(self.rules) if self.rules else None
        found = find_all(self.inputs, expected_by(package, rules))
        passed_over = [
            {"file": printable(path), "why": why} for path, why in found.passed_over.items()
        ]
        return list(found.cases), passed_over


def check_job(job: PredictJob) -> None:
    """Refuse unknown names before models are loaded.

    Raises:
        UsageError: The format or the engine is unknown, or the memory is not positive.
    """
    output_named(job.format)
    require_seg_form(job.seg, job.format)
    engine_named(job.engine)
    check_names(job.names)
    if job.memory_gb is not None and job.memory_gb <= 0:
        raise UsageError(f"--memory-gb must be positive, got {job.memory_gb:g}")


def foresee(job: PredictJob, shown: Shown[Forecast]) -> dict[str, Any]:
    """Forecast `predict`; images are read, nothing is written.

    Args:
        job: What is asked.
        shown: Shows progress.

    Returns:
        `models`, `engines`, `forecasts` and `passed_over`, as plain values.
    """
    resolved, predictor = _open(job)
    images, passed_over = job.search(predictor.packages[0])
    forecasts = foresee_files(
        predictor,
        images,
        output_named(job.format),
        trusted=job.trust,
    )
    found = [_plain(asdict(forecast)) for forecast in shown(forecasts, len(images))]
    circumstances = _circumstances(resolved, predictor)
    return {**circumstances, "forecasts": found, "passed_over": passed_over}


def predict(job: PredictJob, shown: Shown[Outcome]) -> dict[str, Any]:
    """Segment all inputs; writes `predictions.json` and `quality.csv` beside the results.

    Args:
        job: What is asked.
        shown: Shows progress.

    Returns:
        `models`, `engines`, `seconds`, `images_per_second`, `outcomes`, `passed_over` and the
        `promise` of predicted quality, as plain values.
    """
    resolved, predictor = _open(job)
    images, passed_over = job.search(predictor.packages[0])
    begun = time.perf_counter()
    outcomes = predict_files(
        predictor,
        images,
        job.out_dir,
        format=job.seg if job.format == "dicom-seg" else output_named(job.format),
        trusted=job.trust,
        roots=job.roots,
        names=check_names(job.names),
    )
    bound = None if predictor.observer.model is None else predictor.observer.model.bound()
    done = [_judged(_plain(asdict(outcome)), bound) for outcome in shown(outcomes, len(images))]
    seconds = time.perf_counter() - begun
    record = {
        **_circumstances(resolved, predictor),
        "seconds": round(seconds, 3),
        "images_per_second": round(len(done) / seconds, 4),
        "outcomes": done,
        "passed_over": passed_over,
        "promise": None if bound is None else bound.sentence,
    }
    write_quality(job.out_dir, done)
    write_whole(job.out_dir / RUN_RECORD, json.dumps(record, indent=2, default=str))
    return record


def _plain(entry: dict[str, Any]) -> dict[str, Any]:
    """An outcome or forecast with its paths as text."""
    return {k: printable(v) if isinstance(v, Path) else v for k, v in entry.items()}


def _judged(entry: dict[str, Any], bound: RiskBound | None) -> dict[str, Any]:
    """An outcome with its predicted quality, by which a result is to be reviewed or not."""
    quality = entry["quality"]
    if quality is None or bound is None:
        return entry
    return {**entry, "quality": {**quality, "to_review": quality["score"] < bound.threshold}}


def _open(job: PredictJob) -> tuple[list[Resolved], Predictor]:
    check_job(job)
    resolved, packages = load_models(job.models)
    predictor = Predictor(
        packages,
        device=job.device,
        engine=engine_named(job.engine),
        tta=job.tta,
        cache_dir=job.cache_dir or converted_folder(),
        memory_gb=job.memory_gb,
        any_modality=job.any_modality,
    )
    return resolved, predictor


def _circumstances(resolved: list[Resolved], predictor: Predictor) -> dict[str, Any]:
    return {
        "models": [entry.record() for entry in resolved],
        "engines": predictor.describe_engines(),
    }
