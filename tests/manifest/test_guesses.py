"""Guesses from names are shown with their reasons, and can be corrected."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pipelines.cli.app import app
from segmed.errors import UsageError
from segmed.manifest import build_manifest, guesses_of, read_manifest, state_modalities

SaveNifti = Callable[..., Path]


def nnunet_set(
    folder: Path, save_nifti: SaveNifti, *, channels: list[str], labels: list[str], ids: list[str]
) -> Path:
    label = np.zeros((5, 6, 4), dtype=np.uint8)
    for value in range(1, len(labels) + 1):
        label[value, 2, 2] = value
    for number, name in enumerate(ids):
        for channel in range(len(channels)):
            path = folder / "imagesTr" / f"{name}_000{channel}.nii.gz"
            save_nifti(path, seed=100 * channel + number)
        save_nifti(folder / "labelsTr" / f"{name}.nii.gz", label)
    description = {
        "channel_names": {str(number): name for number, name in enumerate(channels)},
        "labels": {"background": 0, **{name: n for n, name in enumerate(labels, 1)}},
        "file_ending": ".nii.gz",
    }
    (folder / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    return folder


def told(source: Path, out: Path, *options: str) -> str:
    result = CliRunner().invoke(app, ["manifest", "build", str(source), "-o", str(out), *options])
    assert result.exit_code == 0, result.output
    return result.output


def test_build_check_and_plan_show_what_names_decided(
    tmp_path: Path, save_nifti: SaveNifti
) -> None:
    source = nnunet_set(
        tmp_path / "set",
        save_nifti,
        channels=["CT", "direct", "T1CT"],
        labels=["Kidney_L", "tumour"],
        ids=["A1_visit1", "A1_visit2", "B2_visit1"],
    )
    build = told(source, tmp_path / "m.json")
    check = CliRunner().invoke(app, ["manifest", "check", str(tmp_path / "m.json")]).output
    for text in (build, check):
        assert "guessed: channel 'CT': CT, since 'CT' has the word 'ct'" in text
        assert "unsure: channel 'direct': OT, since 'direct' names no modality" in text
        assert "unsure: channel 'T1CT': OT, since 'T1CT' says both" in text
        assert "--modality direct=MODALITY" in text
        assert "unsure: sides: images are not mirrored, since 'kidney_l' says left" in text
        assert "unsure: groups" in text
        assert "'A1_visit1', 'A1_visit2' look like scans of one patient ('A1')" in text
        assert "--group-by" in text
    plan = CliRunner().invoke(
        app, ["plan", str(tmp_path / "m.json"), "-o", str(tmp_path / "plan.yaml")]
    )
    assert plan.exit_code == 0, plan.output
    assert "unsure: channel 'T1CT'" in plan.output
    assert "flips: none: 'kidney_l' says left" in plan.output


def test_a_wrong_guess_is_corrected_by_the_option_that_the_line_names(
    tmp_path: Path, save_nifti: SaveNifti
) -> None:
    source = nnunet_set(
        tmp_path / "set",
        save_nifti,
        channels=["direct", "late"],
        labels=["tumour"],
        ids=["A1_1", "A1_2", "B2_1"],
    )
    out = tmp_path / "m.json"
    text = told(source, out, "--modality", "direct=CT,late=MR", "--group-by", r"(\w\d)_")
    manifest = read_manifest(out)
    assert [channel.modality for channel in manifest.channels] == ["CT", "MR"]
    assert [case.group for case in manifest.training] == ["A1", "A1", "B2"]
    assert "guessed: groups: 2 patients" in text or "unsure: groups: 2 patients" in text
    told(source, out, "--modality", "PT")
    assert {channel.modality for channel in read_manifest(out).channels} == {"PT"}
    bad = CliRunner().invoke(
        app, ["manifest", "build", str(source), "-o", str(out), "--modality", "T9=CT"]
    )
    assert bad.exit_code != 0
    with pytest.raises(UsageError, match="in capitals"):
        state_modalities(manifest, {"": "c t"})


def test_subjects_of_bids_names_are_groups(tmp_path: Path, save_nifti: SaveNifti) -> None:
    ids = [f"sub-{s:02d}_ses-{v}" for s in range(1, 5) for v in (1, 2)]
    source = nnunet_set(tmp_path / "set", save_nifti, channels=["T1"], labels=["tumour"], ids=ids)
    manifest = build_manifest(source, num_folds=2)
    assert {case.id: case.group for case in manifest.training}["sub-03_ses-2"] == "sub-03"
    by_group = {(case.group, case.fold) for case in manifest.training}
    assert len(by_group) == 4
    assert any(guess.subject == "groups" and guess.is_sure for guess in guesses_of(manifest))
    apart = build_manifest(source, num_folds=2, group_by=".+")
    (flagged,) = [guess for guess in guesses_of(apart) if guess.subject == "groups"]
    assert not flagged.is_sure
    assert "trained on and held out" in flagged.correction


def test_lower_case_loses_no_side(tmp_path: Path, save_nifti: SaveNifti) -> None:
    source = nnunet_set(
        tmp_path / "set",
        save_nifti,
        channels=["T1"],
        labels=["FemurL", "Tumor Core"],
        ids=["a", "b"],
    )
    manifest = build_manifest(source, num_folds=2)
    assert [label.name for label in manifest.labels] == ["FemurL", "tumor_core"]
    assert any(guess.subject == "sides" for guess in guesses_of(manifest))


def test_colours_and_stated_modalities_need_no_guess(shared_data: Callable[[str], Path]) -> None:
    cells = build_manifest(shared_data("isbi2012"), label_names=["cell"])
    assert guesses_of(cells) == []
    stated = state_modalities(cells, {"grey": "SM"})
    assert guesses_of(stated) == []
