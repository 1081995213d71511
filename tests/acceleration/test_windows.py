"""Fewer windows are kept in a plan only if they spare some and the scores are kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from pipelines.registry import faster
from segmed.acceleration import Quantised, fewer_windows
from segmed.acceleration.windows import settings_to_try
from segmed.manifest import Manifest
from segmed.package import ModelPackage
from segmed.package.int8 import ChangeLimits
from segmed.plan import Inference, read_plan

LOOSE = ChangeLimits(dice_loss=0.05, labels_changed=0.2)


def test_accepted_overlap_is_in_the_plan_with_its_reason(
    quantised: Quantised, manifest: Manifest, tmp_path: Path
) -> None:
    package = quantised.package
    found = fewer_windows(package, manifest, limits=LOOSE)
    overlap, empty = found.trials
    assert (overlap.setting, overlap.value, overlap.faults) == ("overlap", 0.25, ())
    assert overlap.windows < overlap.windows_before
    assert overlap.cases == len(manifest.split(0)[1])
    assert "spares no window" in empty.faults[0]  # every crop shows the brain everywhere
    assert empty.windows == empty.windows_before == overlap.windows
    plan = read_plan(found.package.save(tmp_path / "package") / "plan.yaml")
    assert plan.inference == Inference(overlap=0.25)
    reason = plan.reasons["inference.overlap"]
    assert f"{overlap.windows} windows instead of {overlap.windows_before}; Dice ante" in reason
    assert found.package.hash != package.float32_hash
    assert found.package.accepted_int8 is None
    assert found.package.state is package.state


@pytest.mark.slow
def test_refused_overlap_leaves_package_and_int8_as_they_were(
    quantised: Quantised, manifest: Manifest
) -> None:
    strict = ChangeLimits(dice_loss=0.0, labels_changed=0.0)
    found = fewer_windows(quantised.package, manifest, limits=strict)
    assert not found.is_changed
    assert found.package is quantised.package
    assert all(trial.faults for trial in found.trials)


@pytest.mark.parametrize(
    ("rules", "names"),
    [
        (Inference(), ["overlap", "skip_empty_windows"]),
        (Inference(overlap=0.25), ["skip_empty_windows"]),
        (Inference(overlap=0.1, skip_empty_windows=True), []),
        (Inference(average="logits"), ["overlap"]),
    ],
)
def test_only_settings_that_may_spare_windows_are_tried(rules: Inference, names: list[str]) -> None:
    assert [name for name, _ in settings_to_try(rules)] == names


@pytest.mark.slow
def test_command_writes_the_package_or_ends_with_status_1(
    package: ModelPackage, sample_manifest_path: Path, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch
) -> None:  # fmt: skip
    monkeypatch.setenv("SEGMED_CACHE", str(tmp_path / "cache"))
    folder, out = package.save(tmp_path / "package"), tmp_path / "fast"
    words = ["model", "windows", str(folder), "--cases", str(sample_manifest_path)]

    def limited(limits: ChangeLimits) -> None:
        monkeypatch.setattr(
            faster,
            "fewer_windows",
            lambda *given, **rest: fewer_windows(*given, **rest, limits=limits),
        )

    limited(ChangeLimits(dice_loss=0.0, labels_changed=0.0))
    refused = CliRunner().invoke(app, [*words, "-o", str(out)])
    assert refused.exit_code == 1
    assert "overlap 0.25: not accepted" in refused.stdout
    assert not out.exists()
    limited(LOOSE)
    done = CliRunner().invoke(app, [*words, "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert f"accepted: {out}" in done.stdout
    assert ModelPackage.load(out).plan.inference.overlap == 0.25
    assert ModelPackage.load(folder).hash == package.hash
    few = replace(
        package,
        plan=package.plan.model_copy(
            update={"inference": Inference(overlap=0.0, skip_empty_windows=True)}
        ),
    )
    words[2] = str(few.save(tmp_path / "few"))
    nothing = CliRunner().invoke(app, words)
    assert nothing.exit_code == 1
    assert "nothing to try" in nothing.stdout
