"""A real PACS over a slow line: a run that lasts while nobody computes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from orthanc_server import USER, Orthanc
from slow_line import BYTES_PER_S, STUDIES, SlowLine

from segmed.io.dicom.write import Identity, write_series


def images_for_pacs(hippocampus: Path, number: int = STUDIES) -> list[Path]:
    """As many real images as the PACS gets studies."""
    return sorted((hippocampus / "imagesTr").glob("[!.]*.nii.gz"))[:number]


@contextmanager
def slow_pacs(images: list[Path], folder: Path, bytes_per_s: float = BYTES_PER_S) -> Iterator[str]:
    """Address of a real Orthanc behind a slow line, with a series of each hippocampus image."""
    for number, path in enumerate(images):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj, np.float32)[None]
        volume = MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(image.affine))
        write_series(
            folder / f"{number}", volume, identity=Identity(patient_id=f"SEGMED-{number:04d}")
        )
    server = Orthanc(folder / "orthanc")
    server.start()
    try:
        server.upload(folder)
        with closing(SlowLine(server.http_port, bytes_per_s)) as line:
            yield f"dicomweb://{USER}@127.0.0.1:{line.port}/dicom-web"
    finally:
        server.stop()
