"""A joined label map of several models through an archive run, a watch, and what they write."""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from typer.testing import CliRunner, Result

sys.path.append(str(Path(__file__).parents[2] / "archive"))  # for tiny_model.py

from tiny_model import tiny_package

from pipelines.cli.app import app
from pipelines.runs.watching import WatchJob, planned_routes
from segmed.archive import Ledger
from segmed.archive.review.structures import structures_of
from segmed.errors import UsageError
from segmed.package import ModelPackage
from segmed.structures import Code, LabelClass


@pytest.fixture
def models(tmp_path: Path) -> dict[str, ModelPackage]:
    """Models of other structures, saved below their names."""
    found = {}
    for seed, (organ, code) in enumerate({"liver": "10200004", "spleen": "78961009"}.items()):
        made = tiny_package(seed=seed, patch=32, edge_mm=4.0)
        coded = Code(scheme="SCT", value=code, meaning=organ.title())
        labels = (
            LabelClass(name=organ, value=1, code=coded),
            LabelClass(name=f"{organ} vein", value=2),
        )
        plan = made.plan.model_copy(update={"name": organ, "labels": labels})
        found[organ] = replace(made, plan=plan)
        found[organ].save(tmp_path / organ)
    return found


def segment(place: Path, scans: Path, out: Path, *more: str, names: str = "liver spleen") -> Result:
    words = [word for name in names.split() for word in ("--model", str(place / name))]
    command = ["archive", "segment", str(scans), *words, "--out", str(out), "--engine", "torch"]
    return CliRunner().invoke(app, [*command, "--several", "joined", *more])


def test_dicom_objects_name_the_model_of_each_structure(
    tmp_path: Path, models: dict[str, ModelPackage], shared_data: Callable[[str], Path]
) -> None:
    scans, out = shared_data("hippocampus_dicom") / "study1", tmp_path / "out"
    reports = [word for kind in ("sr", "hl7", "fhir") for word in ("--report", kind)]
    ended = segment(tmp_path, scans, out, "--format", "dicom-seg", *reports)
    assert ended.exit_code == 0, ended.output
    [path] = (out / "segmentations").glob("*.seg.dcm")
    seg = pydicom.dcmread(path)
    found = [
        (
            item.SegmentNumber,
            item.SegmentLabel,
            item.SegmentAlgorithmName,
            item.SegmentationAlgorithmIdentificationSequence[0].AlgorithmVersion,
        )
        for item in seg.SegmentSequence
    ]
    liver, spleen = models["liver"].hash, models["spleen"].hash
    assert found == [
        (1, "liver", "unet liver", liver),
        (2, "liver vein", "unet liver", liver),
        (3, "spleen", "unet spleen", spleen),
        (4, "spleen vein", "unet spleen", spleen),
    ]
    assert seg.ManufacturerModelName == "unet liver > unet spleen"
    stem = path.name.removesuffix(".seg.dcm")
    report = pydicom.dcmread(path.with_name(f"{stem}.sr.dcm"))
    assert algorithms(report) == [liver, liver, spleen, spleen]
    bundle = json.loads(path.with_name(f"{stem}.fhir.json").read_text(encoding="utf-8"))
    devices = [entry["resource"]["device"]["display"] for entry in bundle["entry"]]
    assert devices == [f"segmed unet liver {liver}"] * 2 + [f"segmed unet spleen {spleen}"] * 2
    message = path.with_name(f"{stem}.oru.hl7").read_bytes().decode()
    assert message.count(f"unet spleen {spleen}") == 2


def algorithms(report: pydicom.Dataset) -> list[str]:
    """Version of the algorithm of each measurement group of an SR."""

    def texts(item: pydicom.Dataset) -> list[str]:
        found = []
        for child in item.get("ContentSequence") or ():
            name = child.get("ConceptNameCodeSequence")
            if name and name[0].CodeMeaning == "Algorithm Version":
                found.append(str(child.TextValue))
            found += texts(child)
        return found

    return list(texts(report))


def test_label_map_is_that_of_the_models_with_the_first_on_top(
    tmp_path: Path, models: dict[str, ModelPackage]
) -> None:
    scans = scans_below(tmp_path)
    out = tmp_path / "out"
    assert segment(tmp_path, scans, out).exit_code == 0
    alone = {}
    for organ in models:
        folder = tmp_path / f"alone-{organ}"
        words = ["archive", "segment", str(scans), "--model", str(tmp_path / organ)]
        done = CliRunner().invoke(app, [*words, "--out", str(folder), "--engine", "torch"])
        assert done.exit_code == 0, done.output
        alone[organ] = voxels(folder)
    below = np.where(alone["spleen"] > 0, alone["spleen"] + 2, 0)
    assert (voxels(out) == np.where(alone["liver"] > 0, alone["liver"], below)).all()
    # The other order is another model: nothing is kept of the first result.
    assert "1 done" in segment(tmp_path, scans, tmp_path / "turned", names="spleen liver").stdout
    above = np.where(alone["liver"] > 0, alone["liver"] + 2, 0)
    expected = np.where(alone["spleen"] > 0, alone["spleen"], above)
    assert (voxels(tmp_path / "turned") == expected).all()
    again = segment(tmp_path, scans, out, "--dry-run")
    assert "would be passed over: segmented before" in again.output


def test_worker_process_and_cluster_form_write_the_same_label_map(
    tmp_path: Path, models: dict[str, ModelPackage]
) -> None:
    scans = scans_below(tmp_path)
    assert segment(tmp_path, scans, tmp_path / "here").exit_code == 0
    ended = segment(tmp_path, scans, tmp_path / "there", "--workers", "1")
    assert ended.exit_code == 0, ended.output
    assert (voxels(tmp_path / "here") == voxels(tmp_path / "there")).all()


def test_records_name_all_models_and_review_has_all_structures(
    tmp_path: Path, models: dict[str, ModelPackage]
) -> None:
    out = tmp_path / "out"
    assert segment(tmp_path, scans_below(tmp_path), out).exit_code == 0
    with Ledger(out / "ledger.sqlite", writer=False) as ledger:
        [entry] = ledger.entries()
    [outcome] = json.loads((out / "outcomes.json").read_text(encoding="utf-8"))
    assert outcome["package"] == entry.package
    record = json.loads((out / "model.json").read_text(encoding="utf-8"))[entry.package]
    assert record["priority"] == [model.hash for model in models.values()]
    with (out / "index.csv").open(encoding="utf-8") as stream:
        [row] = csv.DictReader(stream)
    assert row["model"] == f"{tmp_path / 'liver'} > {tmp_path / 'spleen'}"
    known = structures_of(out, entry.package)
    assert [label.name for label in known.labels] == [
        "liver", "liver vein", "spleen", "spleen vein",
    ]  # fmt: skip
    assert known.labels[3].made_by is not None
    assert known.labels[3].made_by.version == models["spleen"].hash
    assert set(entry.measures["volumes_ml"]) == {label.name for label in known.labels}
    shares = entry.measures.get("overpainted", {})
    flagged = {flag for flag in entry.measures["flags"] if flag.startswith("overpainted:")}
    assert flagged == {f"overpainted:{name}" for name, share in shares.items() if share > 0.05}


@pytest.mark.parametrize(
    ("names", "more", "said"),
    [
        ("liver", (), "a joined label map needs two or more models, got 1"),
        ("liver liver", (), "is named twice"),
        ("liver spleen", ("--format", "dicom-seg", "--seg", "fractional"), "no common probab"),
        ("liver spleen", ("--same-names", "merge"), "known are prefix, refuse"),
        ("liver spleen", ("--several", "each", "--same-names", "prefix"), "add --several joined"),
    ],
)
def test_joining_that_cannot_work_is_named(
    tmp_path: Path,
    models: dict[str, ModelPackage],
    names: str,
    more: tuple[str, ...],
    said: str,
) -> None:
    out = tmp_path / "out"
    ended = segment(tmp_path, scans_below(tmp_path), out, *more, names=names)
    assert ended.exit_code == 2
    assert said in " ".join(ended.stderr.split())
    assert not out.exists()


def test_meeting_names_end_the_run_before_anything_is_segmented(
    tmp_path: Path, models: dict[str, ModelPackage]
) -> None:
    tiny_package(seed=1).save(tmp_path / "a")
    tiny_package(seed=2).save(tmp_path / "b")
    scans, out = scans_below(tmp_path), tmp_path / "out"
    ended = segment(tmp_path, scans, out, names="a b")
    assert ended.exit_code == 2
    assert "models a and b both have a structure 'anterior'" in " ".join(ended.stderr.split())
    assert not out.exists()
    ended = segment(tmp_path, scans, out, "--same-names", "prefix", names="a b")
    assert ended.exit_code == 0, ended.output
    assert "b anterior" in (out / "volumes.csv").read_text(encoding="utf-8")


def test_rule_of_a_watch_joins_models_in_one_folder(tmp_path: Path) -> None:
    rules = tmp_path / "rules.yaml"
    rules.write_text(
        "rules:\n- {name: abdomen, models: [a, b], several: joined}\n", encoding="utf-8"
    )
    [route] = planned_routes(WatchJob("dimse://A@:1", tmp_path / "out", rules=rules))
    assert (route.name, route.out_dir) == ("abdomen", tmp_path / "out/abdomen")
    assert route.joining is not None
    assert route.joining.names == ("a", "b")
    rules.write_text("rules:\n- {name: abdomen, models: [a], several: joined}\n", encoding="utf-8")
    with pytest.raises(UsageError, match="two or more models, got 1"):
        planned_routes(WatchJob("dimse://A@:1", tmp_path / "out", rules=rules))


def scans_below(folder: Path) -> Path:
    values = np.random.default_rng(1).integers(0, 900, (24, 24, 16)).astype(np.float32)
    (folder / "scans").mkdir()
    nib.save(nib.Nifti1Image(values, np.diag([2.0, 2.0, 2.0, 1.0])), folder / "scans/1.nii.gz")
    return folder / "scans"


def voxels(out: Path) -> np.ndarray:
    return np.asarray(nib.load(out / "segmentations/1.nii.gz").dataobj)
