"""`segmed predict`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from pipelines.cli.arguments import (
    MaxVoxelsOption,
    allow_voxels,
    require_any,
    require_device,
    require_known,
    require_models,
    require_out,
)
from pipelines.cli.segmenting_options import (
    AllFramesOption,
    DeviceOption,
    EngineOption,
    ModelOption,
    ReportOption,
    SegOption,
    TtaOption,
)
from pipelines.terminal.console import (
    DONE_WITH_FAILURES,
    JsonOption,
    continued_by,
    emit,
    tracked,
)
from segmed.formats import (
    OUTPUT_HELP,
    OUTPUT_SUFFIXES,
    SegForm,
    require_seg_form,
)
from segmed.inference.vocabulary import engine_named

T = TypeVar("T")

SHOWN_FILES = 3
"""Files that a line names."""


def add_to(app: typer.Typer) -> None:
    """Register the command."""
    app.command()(predict)


def predict(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT...",
            help="Images, DICOM series, folders of these, or a manifest.",
        ),
    ],
    model: ModelOption,
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder of the segmentations.")],
    output_format: Annotated[
        str, typer.Option("--format", help=f"{OUTPUT_HELP}; or probabilities.")
    ] = "nifti",
    seg: SegOption = "binary",
    all_frames: AllFramesOption = False,
    report: ReportOption = None,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    tta: TtaOption = None,
    memory_gb: Annotated[
        float | None, typer.Option(help="Memory limit; images that need more are refused.")
    ] = None,
    cache_dir: Annotated[
        Path | None,
        typer.Option(help="Folder of models converted for OpenVINO. Default: the user's cache."),
    ] = None,
    trust: Annotated[
        bool,
        typer.Option(
            "--trust",
            help="Decode compressed DICOM and raster images in this process: faster, but a bad "
            "file can end the run.",
        ),
    ] = False,
    names: Annotated[
        str | None,
        typer.Option(
            help="Names of the results: source (folder and name of the image) or hash. "
            "Default: source for image files, hash for DICOM series."
        ),
    ] = None,
    rules: Annotated[
        Path | None,
        typer.Option(
            help="YAML rules that assign DICOM series to channels, instead of the rules that "
            "the model keeps."
        ),
    ] = None,
    any_modality: Annotated[
        bool,
        typer.Option(
            "--any-modality",
            help="Also take DICOM series of another modality or body part than the model's.",
        ),
    ] = False,
    max_voxels: MaxVoxelsOption = None,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Read all images, print engine and memory, segment nothing."
        ),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Segment images, each on its own grid; status 1 where one was refused or failed.

    Of a model that predicts quality also Dice and volume of each structure with their intervals,
    here and in quality.csv: they hold for patients like those that the model was calibrated on.

    Example: segmed predict scan.nii.gz --model models:/hippocampus@champion -o out
    """
    allow_voxels(max_voxels)
    require_models(model)
    require_any(inputs, "images, DICOM series folders, or folders of these")
    require_known("output format", output_format, tuple(OUTPUT_SUFFIXES))
    seg_form = SegForm(seg, all_frames, tuple(report or ()))  # type: ignore[arg-type]  # checked by the next line
    require_seg_form(seg_form, output_format)
    engine = engine_named(engine)
    require_device(device)
    require_out(out)
    from pipelines.cli import predicting

    job = predicting.PredictJob(
        inputs=tuple(inputs),
        models=tuple(model),
        out_dir=out,
        format=output_format,
        engine=engine,
        device=device,
        tta=tta,
        memory_gb=memory_gb,
        cache_dir=cache_dir,
        trust=trust,
        names=names,
        rules=rules,
        any_modality=any_modality,
        seg=seg_form,
    )
    with continued_by():
        if dry_run:
            record = predicting.foresee(job, _progress)
        else:
            record = predicting.predict(job, _progress)
    bad = [entry for entry in _entries(record) if entry["status"] in {"refused", "failed"}]
    lines = _forecast_lines(record) if dry_run else _outcome_lines(record, len(bad), out)
    lines += _passed_over_lines(record)
    lines += [
        f"note: {entry['input']}: {note}" for entry in _entries(record) for note in entry["notes"]
    ]
    lines += [f"{entry['status']}: {entry['input']}: {entry['reason']}" for entry in bad]
    emit(record, lines, as_json=as_json)
    if bad:
        raise typer.Exit(DONE_WITH_FAILURES)


def _progress(items: Iterator[T], total: int) -> Iterator[T]:
    """Outcomes or forecasts, each shown as it comes."""
    return tracked(items, _line, total=total, unit="images")


def _line(item: Any) -> str:
    from segmed.io.output_names import shown

    return f"{item.status}: {shown(item.input)} {item.reason or ''}".rstrip()


def _entries(record: dict[str, Any]) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = record.get("forecasts", record.get("outcomes", []))
    return entries


def _outcome_lines(record: dict[str, Any], bad: int, out: Path) -> list[str]:
    done = len(record["outcomes"]) - bad
    lines = [f"engine: {engine}" for engine in record["engines"]]
    rate = f"{record['seconds']:.1f} s, {record['images_per_second']:.2f} images/s"
    from pipelines.cli.quality_words import quality_lines

    lines += quality_lines(record)
    return [*lines, f"{done} segmented, {bad} not, in {out} ({rate})"]


def _passed_over_lines(record: dict[str, Any]) -> list[str]:
    """A line for each reason why files were passed over."""
    by_reason: dict[str, list[str]] = {}
    for entry in record["passed_over"]:
        by_reason.setdefault(entry["why"], []).append(entry["file"])
    return [
        f"passed over: {len(files)} ({why}): {', '.join(files[:SHOWN_FILES])}"
        + (", ..." if len(files) > SHOWN_FILES else "")
        for why, files in by_reason.items()
    ]


def _forecast_lines(record: dict[str, Any]) -> list[str]:
    lines = [f"engine: {engine}" for engine in record["engines"]]
    for entry in record["forecasts"]:
        if entry["status"] == "ready":
            shape = "x".join(map(str, entry["shape"]))
            spacing = "x".join(f"{edge:.3g}" for edge in entry["spacing_mm"])
            lines.append(
                f"ready: {entry['input']}: {entry['form']}, {shape} voxels of {spacing} mm, "
                f"memory {entry['memory']}"
            )
    return lines
