"""The winner of a comparison against existing models: paired scores, cost and refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from nnunet_folders import plans_of, write_folder
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.comparing.jobs import Request
from pipelines.comparing.rivals import judge_rivals, rivals_of, rivals_table
from segmed.errors import UsageError
from segmed.evaluation import score_cases
from segmed.inference import Predictor
from segmed.manifest import Manifest, data_hash, read_manifest
from segmed.models import build_model
from segmed.nnunet import package_of
from segmed.package import ModelPackage
from segmed.plan import Inference, Preprocessing
from segmed.report.model_comparison import FoldResult, compare_fold_results
from segmed.training import Budget

MANIFEST = Path(__file__).resolve().parents[3] / "data_manifests" / "hippocampus_sample.json"


@pytest.fixture
def manifest() -> Manifest:
    return read_manifest(MANIFEST)


@pytest.fixture
def results(tmp_path: Path, manifest: Manifest) -> Path:
    """A folder of nnU-Net results for the structures of the sample."""
    labels = {"background": 0, **{label.name: label.value for label in manifest.labels}}
    return write_folder(tmp_path / "results", plans_of(), labels=labels)


def request_for(out: Path, *against: Path | str) -> Request:
    return Request(
        manifest_path=MANIFEST,
        architectures=("unet",),
        folds=(0,),
        plan_path=None,
        budget=Budget(epochs=1),
        out_dir=out,
        against=tuple(map(str, against)),
    )


def own(results: Path, place: Path, **provenance: object) -> Path:
    """A small package of segmed's own kind for the same structures."""
    imported = package_of(results).plan
    rules = Preprocessing(spacing_mm=(2.0, 2.0, 2.0), intensity=imported.preprocessing.intensity)
    plan = imported.model_copy(update={"preprocessing": rules, "inference": Inference()})
    options = {"widths": [4, 8], "strides": [[1, 1, 1], [2, 2, 2]]}
    torch.manual_seed(0)
    network = build_model("unet", spatial_dims=3, in_channels=1, num_classes=3, **options)
    return ModelPackage("unet", options, plan, network.state_dict(), provenance).save(place)


def test_winner_is_judged_case_by_case_and_in_cost(
    results: Path, manifest: Manifest, tmp_path: Path
) -> None:
    package = own(results, tmp_path / "own")
    cases = manifest.split(0)[1]
    predictor = Predictor(ModelPackage.load(package), device="cpu", engine="torch")
    scored = score_cases(predictor, manifest, cases, out_dir=tmp_path / "predictions")
    compared = compare_fold_results(
        [FoldResult("unet", 0, scored.table, (), package, parameters=9, seconds_per_case=1e6)]
    )
    request = request_for(tmp_path / "out", results)
    (judged,) = judge_rivals(compared, manifest, request)
    assert judged["hash"] == package_of(results).hash
    assert judged["cases"] == len(cases)
    rules = {line["rule"]: line for line in judged["lines"]}
    slow = next(line for line in judged["lines"] if line["challenger"] == 1e6)
    assert not slow["passed"]  # a million seconds a case
    assert rules["cases"]["champion"] == len(cases)
    assert "does not pass" in judged["sentences"][0]
    assert "not known which cases" in judged["sentences"][0]
    (table,) = rivals_table([judged])
    assert len(table.rows) == len(judged["lines"])

    kept = tmp_path / "out" / "with" / judged["hash"][:16] / "fold0" / "scored.json"
    before = kept.stat().st_mtime_ns
    (again,) = judge_rivals(compared, manifest, replace(request, settings=resumed(request)))
    assert again["lines"] == judged["lines"]
    assert kept.stat().st_mtime_ns == before


def resumed(request: Request):
    return replace(request.settings, resume=True)


def test_models_that_do_not_fit_are_refused_by_name(
    results: Path, manifest: Manifest, tmp_path: Path
) -> None:
    training = manifest.split(1)[0]  # contains the cases of fold 0
    seen = own(results, tmp_path / "seen", fold=1, data_hash=data_hash(manifest, training))
    with pytest.raises(UsageError, match=r"--with .*seen: \d+ of \d+ cases were trained on"):
        rivals_of(request_for(tmp_path / "out", seen), manifest)
    other = write_folder(tmp_path / "other", plans_of(), labels={"background": 0, "liver": 1})
    with pytest.raises(UsageError, match=r"--with .*other: manifest .* has labels that the model"):
        rivals_of(request_for(tmp_path / "out", other), manifest)


@pytest.mark.parametrize("name", ["absent", "models:/absent@champion"])
def test_models_that_are_not_there_are_refused_first(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["compare", str(MANIFEST), "--models", "unet", "--with", name, "--epochs", "1"]
    done = CliRunner().invoke(app, [*words, "--out", "out"])
    assert done.exit_code == 2
    assert "absent" in done.stderr
    assert not Path("out").exists()
