"""A dossier over cases of several spacings, orientations and formats."""

from __future__ import annotations

import csv
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import torch
from monai.data import MetaTensor
from scipy import ndimage
from small_sets import stored_along
from tiny_data import hippocampus_package

from pipelines.registry.acceptance import Accepted, AcceptJob, accept_site
from segmed.geometry import same_grid
from segmed.io import grid_of, read_label
from segmed.io.dicom.write import write_series
from segmed.manifest import Case, Channel, LabelClass, Manifest, write_manifest
from segmed.metrics.label_pairs import read_pair

TURNED = "case7"
"""A series whose slices are read along the normal of its rows, its label left-handed as stored."""

LABELS = (LabelClass(name="anterior", value=1), LabelClass(name="posterior", value=2))


@dataclass(frozen=True)
class Pair:
    """A real image and its reference."""

    image: nib.Nifti1Image
    label: nib.Nifti1Image

    def turned(self, codes: str) -> Pair:
        """The same voxels stored in another order of the axes."""
        return Pair(stored_along(self.image, codes), stored_along(self.label, codes))

    def resampled(self, factor: float) -> Pair:
        """The same on a grid with another spacing along the first axis."""

        def along(one: nib.Nifti1Image, order: int) -> nib.Nifti1Image:
            values = ndimage.zoom(
                np.asarray(one.dataobj).astype(np.float32), (factor, 1, 1), order=order
            )
            affine = one.affine.copy()
            affine[:3, 0] *= one.shape[0] / values.shape[0]
            return nib.Nifti1Image(values, affine)

        return Pair(along(self.image, 1), along(self.label, 0))


def pair_of(folder: Path, number: int) -> Pair:
    path = sorted((folder / "imagesTr").glob("hippocampus_*.nii.gz"))[number]
    return Pair(nib.load(path), nib.load(folder / "labelsTr" / path.name))


def save_itk(one: nib.Nifti1Image, path: Path, kind: type) -> None:
    """A volume as MetaImage or NRRD, by an independent writer."""
    stored = path.with_name("passing.nii")
    nib.save(nib.Nifti1Image(np.asarray(one.dataobj).astype(kind), one.affine), stored)
    SimpleITK.WriteImage(SimpleITK.ReadImage(str(stored)), str(path))
    stored.unlink()


def save_dicom(one: nib.Nifti1Image, path: Path) -> None:
    voxels = np.asarray(one.dataobj).astype(np.float32)[None]
    write_series(path, MetaTensor(torch.from_numpy(voxels), affine=one.affine))


@pytest.fixture(scope="module")
def accepted(
    shared_data: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Accepted, Manifest, Path]:
    """Dossier of nine hippocampus cases, no two of which are stored alike."""
    source, root = shared_data("hippocampus"), tmp_path_factory.mktemp("mixed")
    pairs = [pair_of(source, number) for number in range(9)]
    forms: list[tuple[Pair, str]] = [
        (pairs[0], "nii.gz"), (pairs[1].turned("LPS"), "nii"), (pairs[2].turned("PSL"), "nii.gz"),
        (pairs[3].turned("SAR"), "mha"), (pairs[4].resampled(0.5), "nrrd"),
        (pairs[5].resampled(1.5), "nii.gz"), (pairs[6], "dicom"),
        (pairs[7].resampled(0.5).turned("ASL"), "dicom"), (pairs[8].turned("IPR"), "nrrd"),
    ]  # fmt: skip
    cases = []
    for number, (pair, form) in enumerate(forms):
        name = f"case{number}_image" + ("" if form == "dicom" else f".{form}")
        label = f"case{number}_label.nii.gz" if form == "dicom" else f"case{number}_label.{form}"
        for one, file, kind in ((pair.image, name, np.float32), (pair.label, label, np.uint8)):
            if form == "dicom" and file == name:
                save_dicom(one, root / file)
            elif form in {"mha", "nrrd"}:
                save_itk(one, root / file, kind)
            else:
                nib.save(
                    nib.Nifti1Image(np.asarray(one.dataobj).astype(kind), one.affine), root / file
                )
        cases.append(
            Case(id=f"case{number}", group=f"case{number}", image=(name,), label=label, fold=0)
        )
    manifest = Manifest(
        name="mixed",
        labels=LABELS,
        channels=(Channel(name="T1", modality="MR"),),
        training=tuple(cases),
        root=root,
    )
    path = write_manifest(manifest, root / "M.json")
    package = hippocampus_package().save(root / "package")
    job = AcceptJob(str(package), path, root / "out", device="cpu", keeps=False)
    return accept_site(job), manifest, root


def test_every_case_is_scored_and_none_refused(
    accepted: tuple[Accepted, Manifest, Path],
) -> None:
    found, manifest, _ = accepted
    assert found.dossier.refused == {}
    assert found.dossier.cases == len(manifest.training)
    assert found.dossier.copies == 0


def test_label_maps_are_on_the_grids_of_their_images(
    accepted: tuple[Accepted, Manifest, Path],
) -> None:
    found, manifest, root = accepted
    with found.names.open(encoding="utf-8", newline="") as stream:
        files = {row["case"]: row["segmentation"] for row in csv.DictReader(stream)}
    for case in manifest.training:
        result = read_label(found.names.parent / "segmentations" / files[case.id])
        image, label = manifest.read(case)
        assert label is not None
        assert same_grid(grid_of(result), grid_of(image))
        stored = grid_of(read_label(root / str(case.label)))
        assert same_grid(stored, grid_of(image)) == (case.id != TURNED)
        pair = read_pair(
            case.id, found.results.predictions[case.id], root / str(case.label), LABELS
        )
        assert torch.equal(pair.reference.as_tensor(), label.as_tensor())


def test_features_of_drift_are_in_mm_and_ml_on_every_grid(
    accepted: tuple[Accepted, Manifest, Path],
) -> None:
    found, manifest, _ = accepted
    baseline = found.dossier.baseline
    edges = sorted(baseline["spacing_mm:2"])  # the longest edge
    assert sum(edge == pytest.approx(2.0, abs=0.1) for edge in edges) == 2
    assert sum(edge == pytest.approx(1.0, abs=0.02) for edge in edges) == 7
    volumes = []
    for case in manifest.training:
        result = read_label(found.results.predictions[case.id])
        edge_ml = abs(np.linalg.det(np.asarray(result.affine, np.float64)[:3, :3])) / 1000
        volumes.append(float((np.asarray(result)[0] == 1).sum()) * edge_ml)
    assert baseline["volume_ml:anterior"] == pytest.approx(sorted(volumes), rel=1e-4)


def test_page_shows_the_worst_cases_of_any_form(
    accepted: tuple[Accepted, Manifest, Path],
) -> None:
    found, _, _ = accepted
    page = found.page.read_text(encoding="utf-8")
    assert page.count('<figure class="overlay">') == 6
    assert "distance" in page
