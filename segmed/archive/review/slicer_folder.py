"""A study as a folder that 3D Slicer opens in one step, and the corrected file read back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from segmed.archive.review.archive import CORRECTIONS, ReviewArchive, ReviewedStudy
from segmed.archive.review.store import Correction
from segmed.errors import ImageError
from segmed.io import grid_of, write_label
from segmed.io.atomic import whole_folder
from segmed.io.digest import sha256_of_file
from segmed.io.nrrd import write_nrrd
from segmed.io.slicer import label_from_slicer

SEGMENTATION = "segmentation.seg.nrrd"
SCRIPT = "open_in_slicer.py"

TEMPLATE = '''"""Open the study in 3D Slicer: Slicer --python-script {name}"""

import json

import slicer

places = json.loads({places})
volumes = [slicer.util.loadVolume(path) for path in places["images"]]
segmentation = slicer.util.loadSegmentation(places["segmentation"])
segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volumes[0])
slicer.util.setSliceViewerLayers(background=volumes[0])
slicer.util.selectModule("SegmentEditor")
'''


@dataclass(frozen=True)
class SlicerFolder:
    """Files of a study for 3D Slicer.

    Attributes:
        segmentation: The segmentation, to be corrected and saved under its own name.
        script: Script that loads image and segmentation and opens the segment editor.
        written: SHA-256 of the segmentation as it was written.
    """

    segmentation: Path
    script: Path
    written: str

    @property
    def is_changed(self) -> bool:
        """True if the segmentation has been saved since."""
        return sha256_of_file(self.segmentation) != self.written


def write_slicer_folder(archive: ReviewArchive, study: ReviewedStudy) -> SlicerFolder:
    """Write image and newest label map of a study for 3D Slicer; an earlier folder is replaced.

    Args:
        archive: The archive.
        study: The study.

    Returns:
        The files.

    Raises:
        ImageError: `no_volume`: the image is a plane; or it cannot be read.
    """
    image, labels = archive.image(study), archive.structures(study.entry).labels
    if image.ndim != 4:
        raise ImageError(
            "3D Slicer edits volumes, got an image of one plane; draw in the browser",
            reason="no_volume",
        )
    corrections = archive.store.corrections(study.entry.key)
    values = archive.corrected(study, corrections[-1]) if corrections else archive.result(study)
    folder = (archive.out_dir / CORRECTIONS / study.entry.study / "slicer").resolve()
    grid = grid_of(image)
    with whole_folder(folder, replaces=True) as draft:
        names = [f"image-{number}.nrrd" for number in range(1, len(image) + 1)]
        for name, channel in zip(names, np.asarray(image), strict=True):
            write_nrrd(draft / name, channel, affine_ras=grid.affine_ras)
        write_label(draft / SEGMENTATION, torch.from_numpy(values), like=image, labels=labels)
        places = {
            "images": [str(folder / name) for name in names],
            "segmentation": str(folder / SEGMENTATION),
        }
        script = TEMPLATE.format(name=SCRIPT, places=repr(json.dumps(places)))
        (draft / SCRIPT).write_text(script, encoding="utf-8")
    path = folder / SEGMENTATION
    return SlicerFolder(path, folder / SCRIPT, sha256_of_file(path))


def read_from_slicer(
    archive: ReviewArchive, study: ReviewedStudy, path: Path, author: str
) -> Correction:
    """Save a segmentation of 3D Slicer as a correction of a study.

    Args:
        archive: The archive.
        study: The study.
        path: The `.seg.nrrd` file.
        author: Who corrected it.

    Raises:
        ImageError: The file does not fit the image or the structures; the segment is named.
    """
    grid = grid_of(archive.image(study))
    values = label_from_slicer(path, grid, archive.structures(study.entry).labels)
    return archive.save(study, values, author, origin="slicer")
