"""The demo's archive: six valid studies in two forms, and one with a slice taken out."""

from __future__ import annotations

import shutil
from pathlib import Path

from segmed.io import read_image
from segmed.io.atomic import whole_folder
from segmed.io.dicom.write import Identity, write_series
from segmed.manifest import Case, Manifest

NUM_NIFTI = 3
OMITTED_SLICE = 12
"""Index of the slice that the broken series lacks."""


def make_archive(manifest: Manifest, folder: Path) -> Path:
    """Lay out the cases that were kept out of training in the form of an archive.

    Three cases stay NIfTI, three become DICOM series, and one of these is written once more with a
    slice taken out: it must come back as refused.

    Args:
        manifest: The bundled sample; its test cases are used.
        folder: Where the archive goes; an existing archive is left alone.

    Returns:
        `folder`.
    """
    if folder.exists():
        return folder
    with whole_folder(folder) as draft:
        for case in manifest.test[:NUM_NIFTI]:
            path = manifest.image_paths(case)[0]
            shutil.copyfile(path, draft / path.name)
        as_dicom = manifest.test[NUM_NIFTI:]
        for number, case in enumerate(as_dicom, start=1):
            _write(manifest, case, draft / f"study{number}", number)
        number = len(as_dicom) + 1
        broken = draft / f"study{number}_slice_missing"
        _write(manifest, as_dicom[-1], broken, number, omit=(OMITTED_SLICE,))
    return folder


def _write(
    manifest: Manifest, case: Case, folder: Path, number: int, omit: tuple[int, ...] = ()
) -> None:
    image = read_image(manifest.image_paths(case)[0])
    identity = Identity(patient_id=f"DEMO-{number:04d}", description="T1 hippocampus crop")
    write_series(folder, image, identity=identity, omit_slices=omit)
