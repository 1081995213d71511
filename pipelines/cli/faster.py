"""`segmed model quantise|windows`: faster on a processor, accepted by measurement."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pipelines.cli.arguments import require_manifest, require_models
from pipelines.terminal.console import DONE_WITH_FAILURES, JsonOption, emit, note, table

ReferenceArgument = Annotated[
    str,
    typer.Argument(
        metavar="MODEL", help="Model: models:/NAME@alias, models:/NAME/3, folder or zip."
    ),
]
CasesOption = Annotated[
    Path,
    typer.Option("--cases", metavar="M.json", help="Manifest of training and held-out cases."),
]
FoldOption = Annotated[
    int | None,
    typer.Option(min=0, help="Fold of the held-out cases. Default: that of the training."),
]
TestOption = Annotated[
    bool, typer.Option("--test", help="Score the manifest's test cases instead of a fold.")
]
OutOption = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Folder to write. Default: the package itself."),
]
AliasOption = Annotated[
    str | None, typer.Option(help="Alias of the new version, such as challenger.")
]


def quantise(
    reference: ReferenceArgument,
    cases: CasesOption,
    fold: FoldOption = None,
    test: TestOption = False,
    windows: Annotated[
        int, typer.Option(min=1, help="Number of windows of training cases to calibrate on.")
    ] = 32,
    seed: Annotated[int, typer.Option(help="Seed of the draw of cases and windows.")] = 0,
    out: OutOption = None,
    alias: AliasOption = None,
    as_json: JsonOption = False,
) -> None:
    """Add an int8 network to a model; status 1 where none keeps the limits.

    It is calibrated on windows of training cases and scored on held-out ones beside float32. It is
    accepted if the mean Dice of each structure falls by no more than 0.002, by its lower bound over
    pairs of cases, too, and no more than 2 % of the labels change. Layers that are not int8 compute
    in bfloat16 on processors with units for it, if that keeps the limits, else in float32. Engine
    auto uses the network on processors with int8 units. Weights and plan stay as they are; other
    weights have no int8 network until they are quantised. Needs pip install 'segmed[int8]'.

    A package folder is replaced; of a registered model a new version is registered.

    Example: segmed model quantise models:/hippocampus@champion --cases hippocampus.json
    """
    require_models([reference])
    require_manifest(cases)
    request = request_of(cases, fold=fold, test=test, windows=windows, seed=seed)
    from pipelines.registry.faster import Place, quantise_model

    result = quantise_model(Place(reference, out, alias), cases, request, report=note)
    record = result.record()
    emit(record, lines_of(record), as_json=as_json)
    if not record["accepted"]:
        raise typer.Exit(DONE_WITH_FAILURES)


def request_of(
    manifest: Path, *, fold: int | None, test: bool, windows: int = 32, seed: int = 0
) -> Any:
    """The request of the options.

    Raises:
        UsageError: Fold and test cases are both given, NNCF is not installed, or the manifest has
            no test case with a label.
    """
    from segmed.acceleration.network import require_nncf
    from segmed.acceleration.quantising import QuantisationRequest

    held_out = _test_cases(manifest, fold=fold, test=test)
    require_nncf()
    return QuantisationRequest(fold=fold, cases=held_out, windows=windows, seed=seed)


def _test_cases(manifest: Path, *, fold: int | None, test: bool) -> Any:
    """Test cases with labels, if the options ask for them."""
    from segmed.errors import UsageError
    from segmed.manifest import read_manifest

    if test and fold is not None:
        raise UsageError("--fold and --test are both given: choose the cases to score by one")
    if not test:
        return None
    labelled = [case for case in read_manifest(manifest).test if case.label is not None]
    if not labelled:
        raise UsageError(f"{manifest} has no test case with a label: give --fold instead")
    return labelled


def windows(
    reference: ReferenceArgument,
    cases: CasesOption,
    fold: FoldOption = None,
    test: TestOption = False,
    out: OutOption = None,
    alias: AliasOption = None,
    as_json: JsonOption = False,
) -> None:
    """Measure fewer windows for a model: less overlap, no empty windows; status 1 if none is kept.

    An overlap of 0.25 and the skipping of windows without a body are compared with
    the windows of the plan on held-out cases. A setting is kept if it needs fewer windows, the mean
    Dice of each structure falls by no more than 0.002 (the lower bound over pairs of cases, too),
    and no more than 2 % of the labels change; the plan records the measurement as its reason. The
    plan changes: run this before `segmed model quantise`.

    A package folder is replaced; of a registered model a new version is registered.

    Example: segmed model windows models:/hippocampus@champion --cases hippocampus.json
    """
    require_models([reference])
    require_manifest(cases)
    held_out = _test_cases(cases, fold=fold, test=test)
    from pipelines.registry.faster import Place, model_with_fewer_windows

    record = model_with_fewer_windows(
        Place(reference, out, alias), cases, fold=fold, cases=held_out, report=note
    )
    emit(record, _lines_of_windows(record), as_json=as_json)
    if not record["accepted"]:
        raise typer.Exit(DONE_WITH_FAILURES)


def _lines_of_windows(record: dict[str, Any]) -> list[str]:
    lines = []
    for trial in record["trials"]:
        spared = f"{trial['windows']} windows instead of {trial['windows_before']}"
        verdict = "accepted" if trial["accepted"] else "not accepted"
        lines.append(f"{trial['setting']} {trial['value']}: {verdict}, {spared}")
        lines += table(_rows_of(trial["structures"]), list(_rows_of(trial["structures"])[0]))
        lines += [f"  {fault}" for fault in trial["faults"]]
    if not record["trials"]:
        lines.append("nothing to try: the plan has few windows already")
    if record["lost_int8"]:
        lines.append("the int8 network is left out, since the plan changed: quantise it again")
    if record["accepted"]:
        lines.append(f"accepted: {record['model']} {record['hash'][:12]}")
    return lines


def _rows_of(structures: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Effects on the structures as rows of a table."""
    return [
        {
            "structure": effect["label"],
            "pairs": effect["cases"],
            "before": f"{effect['dice_before']:.4f}",
            "after": f"{effect['dice_after']:.4f}",
            "difference": f"{effect['difference']:+.4f}",
            "lower bound": f"{effect['bound']:+.4f}",
        }
        for effect in structures
    ]


def lines_of(record: dict[str, Any]) -> list[str]:
    """The outcome of a quantisation in lines."""
    from segmed.package.int8 import other_precision

    last = record["attempts"][-1]
    rows = _rows_of(last["structures"])
    lines = [
        f"Dice of {last['cases']} held-out cases, float32 before and int8 after:",
        *table(rows, list(rows[0])),
        f"labels changed: {last['labels_changed']:.2%}; {len(last['float32_layers'])} layers stay "
        f"in {other_precision(last['bf16'])}",
    ]
    if record["accepted"]:
        return [*lines, f"accepted: {record['model']} {record['hash'][:12]}"]
    return [*lines, *[f"not accepted: {fault}" for fault in last["faults"]]]
