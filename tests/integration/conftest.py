"""A PACS over a slow line: a run that lasts while nobody computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from orthanc_server import USER, Orthanc
from slow_line import BYTES_PER_S, STUDIES, SlowLine

from segmed.io.dicom_write import Identity, write_series


@pytest.fixture(scope="module")
def images(shared_data: Callable[[str], Path]) -> list[Path]:
    return sorted((shared_data("hippocampus") / "imagesTr").glob("*.nii.gz"))[:STUDIES]


@pytest.fixture(scope="module")
def pacs(images: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a real Orthanc behind a slow line, with a series of each hippocampus image."""
    folder = tmp_path_factory.mktemp("pacs")
    for number, path in enumerate(images):
        image = nib.load(path)
        voxels = np.asarray(image.dataobj, np.float32)[None]
        volume = MetaTensor(torch.from_numpy(voxels), affine=torch.from_numpy(image.affine))
        write_series(
            folder / f"{number}", volume, identity=Identity(patient_id=f"SEGMED-{number:04d}")
        )
    server = Orthanc(folder / "orthanc")
    server.start()
    server.upload(folder)
    line = SlowLine(server.http_port, BYTES_PER_S)
    yield f"dicomweb://{USER}@127.0.0.1:{line.port}/dicom-web"
    line.close()
    server.stop()
