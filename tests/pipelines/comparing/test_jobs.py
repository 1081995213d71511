"""Requested settings reach the trainings: device, seed, size, weights."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest
from nnunet_folders import plans_of, write_folder
from tiny_data import write_set
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.comparing.jobs import Request, TrainJob, check_start, require_enough_time
from pipelines.comparing.settled_plan import settle_plan
from pipelines.comparing.steps import job_params
from segmed.errors import UsageError
from segmed.plan import read_plan, write_plan
from segmed.plan.networks import size_of
from segmed.training import Budget, Settings


def request_for(manifest: Path, out_dir: Path, settings: Settings, plan: Path | None) -> Request:
    return Request.parse(
        manifest,
        models="unet",
        folds="0",
        plan=plan,
        budget=Budget(epochs=1),
        settings=settings,
        out_dir=out_dir,
    )


def test_settings_of_a_comparison_reach_every_job(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    wanted = Settings(device="cpu", seed=7)
    (job,) = request_for(manifest, tmp_path, wanted, None).jobs(tmp_path / "plan.yaml")
    assert job.settings == wanted


def test_size_decides_the_plan_that_is_made(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    small = read_plan(settle_plan(manifest, None, tmp_path / "small"))
    full = read_plan(settle_plan(manifest, None, tmp_path / "full", size="full"))
    assert max(full.networks["unet"].options["widths"]) > max(
        small.networks["unet"].options["widths"]
    )


@pytest.mark.parametrize(("begun", "asked"), [(None, "full"), ("full", "small")])
def test_size_in_a_begun_folder_keeps_the_plan_and_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, begun: str | None, asked: str
) -> None:
    manifest, out = write_set(tmp_path / "set"), tmp_path / "out"
    place = settle_plan(manifest, None, out, size=begun)
    before = place.read_text(encoding="utf-8")
    with caplog.at_level(logging.WARNING, "segmed.progress"):
        settle_plan(manifest, None, out, size=begun)
        settle_plan(manifest, None, out)
        assert not caplog.messages
        settle_plan(manifest, None, out, size=asked)
    (said,) = caplog.messages
    assert f"--size {asked} is not used: {place} was made with {begun or 'small'} networks" in said
    assert "--fresh" in said
    assert "--out" in said
    assert place.read_text(encoding="utf-8") == before
    settle_plan(manifest, None, out, size=asked, is_fresh=True)
    assert size_of(read_plan(place).networks) == asked
    assert len(caplog.messages) == 1


def test_size_beside_a_named_plan_is_refused(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)  # writes a plan.yaml there
    fresh = request_for(manifest, tmp_path, Settings(), None)
    assert request_for(manifest, tmp_path / "new", Settings(), None).of_size("full").size == "full"
    assert replace(fresh, settings=Settings(resume=True)).of_size("full").size == "full"
    assert fresh.of_size(None).size is None
    assert fresh.of_size("full").size == "full"
    with pytest.raises(UsageError, match="leave out --size"):
        request_for(manifest, tmp_path / "new", Settings(), tmp_path / "plan.yaml").of_size("full")
    with pytest.raises(UsageError, match="unknown size 'huge': known are"):
        fresh.of_size("huge")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--size", "huge"], "unknown size 'huge': known are full, residual, small"),
        (["--size", "full", "--plan", "plan.yaml"], "leave out --size"),
    ],
)
def test_training_refuses_a_size_that_it_cannot_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_set(tmp_path)
    usual = ["train", str(manifest), "--model", "unet", "--epochs", "1", "--device", "cpu"]
    result = CliRunner().invoke(app, [*usual, *words, "--out", str(tmp_path / "out")])
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.split())
    assert not (tmp_path / "out").exists()


def test_residual_networks_are_planned_by_their_name(tmp_path: Path) -> None:
    place = settle_plan(write_set(tmp_path / "set"), None, tmp_path / "out", size="residual")
    plan = read_plan(place)
    assert size_of(plan.networks) == "residual"
    blocks = plan.networks["unet"].options["residual_blocks"]
    assert blocks == [1, 3, 4, 6, 6, 6][: len(blocks)]


def test_start_and_patience_are_tracked_and_part_of_what_a_job_is(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    plan = read_plan(tmp_path / "plan.yaml")
    (tmp_path / "start.safetensors").write_bytes(b"weights")
    usual = TrainJob(manifest, tmp_path / "plan.yaml", "unet", 0, Budget(epochs=1), tmp_path)
    settings = Settings(weights=tmp_path / "start.safetensors", patience=3, deterministic=True)
    params = job_params(replace(usual, settings=settings), plan)
    assert params["patience"] == 3
    assert params["deterministic"] is True
    assert len(params["weights"]) == 64  # a digest: the name may be anybody's
    assert not {"weights", "patience", "deterministic"} & job_params(usual, plan).keys()


def test_weights_that_are_not_there_are_refused(tmp_path: Path) -> None:
    manifest = write_set(tmp_path)
    words = ["train", str(manifest), "--model", "unet", "--epochs", "1", "--plan"]
    words += [str(tmp_path / "plan.yaml"), "--weights", str(tmp_path / "absent.pth")]
    words += ["--patience", "2", "--deterministic", "--out", str(tmp_path / "out")]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2
    assert "absent.pth: no such file" in result.stderr
    assert not (tmp_path / "out").exists()


def test_plan_command_takes_size_memory_and_dimensions(tmp_path: Path) -> None:
    manifest = write_set(tmp_path / "set")
    words = ["plan", str(manifest), "-o", str(tmp_path / "p.yaml"), "--spatial-dims", "2"]
    result = CliRunner().invoke(app, [*words, "--memory-gb", "4", "--size", "full"])
    assert result.exit_code == 0, result.output
    plan = read_plan(tmp_path / "p.yaml")
    assert plan.spatial_dims == 2
    assert "'full' widths" in plan.reasons["networks"]
    assert CliRunner().invoke(app, [*words, "--size", "huge"]).exit_code == 2


@pytest.mark.parametrize(
    ("models", "folds", "seconds", "parallel", "needed"),
    [("all", "all", 30.0, 1, 70), ("unet,unetpp", "0", 4.0, 1, 10), ("all", "0", 10.0, 2, 20)],
)
def test_budget_too_short_for_its_trainings_names_what_would_do(
    models: str, folds: str, seconds: float, parallel: int, needed: int, tmp_path: Path
) -> None:
    manifest = write_set(tmp_path)
    request = Request.parse(
        manifest,
        models=models,
        folds=folds,
        plan=None,
        budget=Budget(seconds=seconds),
        out_dir=tmp_path / "out",
    )
    with pytest.raises(UsageError, match=rf"too short for \d+ trainings .* --budget {needed}s"):
        require_enough_time(request, parallel=parallel)
    require_enough_time(replace(request, budget=Budget(seconds=needed)), parallel=parallel)
    require_enough_time(replace(request, budget=Budget(epochs=1)), parallel=parallel)


def test_a_model_of_nnunet_starts_a_unet_alone_and_what_fits_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    manifest = write_set(tmp_path)
    folder = write_folder(tmp_path / "results", plans_of())
    usual = ["train", str(manifest), "--epochs", "1", "--device", "cpu", "--out", "out"]
    usual += ["--weights", str(folder), "--plan", str(tmp_path / "plan.yaml")]
    result = CliRunner().invoke(app, [*usual, "--model", "unetpp"])
    assert result.exit_code == 2
    assert "starts a U-Net, not unetpp: give --model unet" in " ".join(result.stderr.split())
    result = CliRunner().invoke(app, [*usual, "--model", "unet"])
    assert result.exit_code == 2
    assert "tensors of the U-Net's encoder and decoder" in " ".join(result.stderr.split())
    assert not (tmp_path / "out" / "runs").exists()
    (folder / "package.json").write_text("{}", encoding="utf-8")
    result = CliRunner().invoke(app, [*usual, "--model", "unet"])
    assert result.exit_code == 2
    assert "is a package: give its model.safetensors" in " ".join(result.stderr.split())
    (folder / "package.json").unlink()

    plan = read_plan(tmp_path / "plan.yaml")
    options = {"widths": [4, 8, 12], "decoder_convs": 1, "kernels": [3] * 3, "strides": [1, 2, 2]}
    fitting = plan.networks["unet"].model_copy(update={"options": options})
    plan = plan.model_copy(update={"networks": {"unet": fitting}})
    write_plan(plan, tmp_path / "fitting.yaml")
    settings = Settings(weights=folder)
    job = TrainJob(
        manifest, tmp_path / "fitting.yaml", "unet", 0, Budget(epochs=1), tmp_path, settings
    )
    with caplog.at_level("INFO"):
        check_start(job)
    assert "tensors loaded" in caplog.text
    assert len(job_params(job, plan)["weights"]) == 64
