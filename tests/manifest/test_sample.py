"""The bundled sample is what its attribution says."""

from __future__ import annotations

import filecmp
import importlib.util
from collections.abc import Callable
from pathlib import Path

from segmed.manifest import check_manifest, read_manifest


def test_the_sample_has_forty_labelled_cases_and_no_error(sample_manifest_path: Path) -> None:
    manifest = read_manifest(sample_manifest_path)
    assert (len(manifest.training), len(manifest.test)) == (34, 6)
    assert manifest.folds == (0, 1, 2, 3, 4)
    assert all(case.label for case in (*manifest.training, *manifest.test))
    assert manifest.licence.startswith("CC-BY-SA")
    assert [one for one in check_manifest(manifest) if one.severity == "error"] == []


def test_every_file_of_the_sample_is_listed(sample_manifest_path: Path) -> None:
    manifest = read_manifest(sample_manifest_path)
    listed = {name for case in (*manifest.training, *manifest.test) for name in case.sha256}
    folder = sample_manifest_path.parent
    present = {path.relative_to(folder).as_posix() for path in folder.rglob("*.nii.gz")}
    assert listed == present
    assert (folder / "hippocampus_sample" / "ATTRIBUTION.md").is_file()


def test_the_sample_can_be_made_again_byte_for_byte(
    sample_manifest_path: Path, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    script = sample_manifest_path.parent / "make_hippocampus_sample.py"
    spec = importlib.util.spec_from_file_location("make_hippocampus_sample", script)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    made = module.make_sample(shared_data("hippocampus"), tmp_path)
    assert made.read_bytes() == sample_manifest_path.read_bytes()
    files = [path.relative_to(tmp_path) for path in tmp_path.rglob("*.nii.gz")]
    assert len(files) == 80
    same, _, _ = filecmp.cmpfiles(tmp_path, sample_manifest_path.parent, files, shallow=False)
    assert len(same) == 80
