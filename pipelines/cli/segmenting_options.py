"""Options that several commands share: model, engine, device, form and delivery of the results."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from segmed.formats import ALL_FRAMES_HELP, OUTPUT_HELP, REPORT_HELP, SEG_HELP
from segmed.inference.vocabulary import ENGINE_HELP

ModelOption = Annotated[
    list[str],
    typer.Option(
        "--model",
        help="Package folder or zip, models:/NAME@champion or models:/NAME/3; repeat to average.",
    ),
]
SeveralOption = Annotated[
    str,
    typer.Option(
        metavar="ensemble|each|joined",
        help="Several models: average their outputs, give an output of each in a folder of its "
        "own, or one joined label map, in which the model named first wins.",
    ),
]
SameNamesOption = Annotated[
    str | None,
    typer.Option(
        metavar="refuse|prefix",
        help="With --several joined, structures that have one name in two models: refuse them, or "
        "put the name of the model in front.",
    ),
]
SeriesRulesOption = Annotated[
    Path | None, typer.Option(help="YAML rules that assign series to channels.")
]
EngineOption = Annotated[str, typer.Option(help=ENGINE_HELP)]
TtaOption = Annotated[
    bool | None,
    typer.Option(
        "--tta/--no-tta",
        help="Average over mirror images. Default: as the model's plan states.",
    ),
]
DeviceOption = Annotated[str, typer.Option(help="Device: auto, cpu, cuda or cuda:N.")]
DevicesOption = Annotated[
    list[str] | None,
    typer.Option(help="Devices of the worker processes, such as cuda:0,cuda:1; repeatable."),
]
ClusterOption = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://HOST:8786",
        help="Dask scheduler whose workers segment the studies; they must share the folders.",
    ),
]
OutputFormatOption = Annotated[str, typer.Option("--format", help=f"{OUTPUT_HELP}.")]
SegOption = Annotated[str, typer.Option(help=SEG_HELP)]
AllFramesOption = Annotated[bool, typer.Option("--all-frames", help=ALL_FRAMES_HELP)]
ReportOption = Annotated[list[str] | None, typer.Option(help=REPORT_HELP)]
SendOption = Annotated[
    str | None, typer.Option(metavar="ADDRESS", help="Also send outputs to this PACS.")
]
SendReportOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="ADDRESS",
        help="Also send HL7 reports to mllp://HOST:PORT, FHIR reports to fhir:// or fhirs://; "
        "repeatable.",
    ),
]
