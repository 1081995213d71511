"""Where an image came from, and what its writer needs to give the same geometry back."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.geometry import Affine


@dataclass(frozen=True)
class Source:
    """The origin of an image; travels as `image.meta["source"]`.

    Attributes:
        format: `nifti`, `nrrd`, `metaimage`, `dicom`, `dicom-seg`, `png`, `tiff` or `jpeg`.
        paths: The files read; for DICOM one per slice, in slice order.
        header: A NIfTI file's header, byte for byte (348 or 540 bytes); else empty.
        series_uid: SeriesInstanceUID of a DICOM series; else empty.
        study_uid: StudyInstanceUID of a DICOM series; else empty.
        modality: DICOM modality such as `MR`; else empty.
        notes: What was odd, though not wrong, in plain words and without identifiers.
    """

    format: str
    paths: tuple[Path, ...]
    header: bytes = field(default=b"", repr=False)
    series_uid: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    modality: str = ""
    notes: tuple[str, ...] = ()

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "format": self.format,
            "paths": [str(path) for path in self.paths],
            "header": self.header.hex(),
            "series_uid": self.series_uid,
            "study_uid": self.study_uid,
            "modality": self.modality,
            "notes": list(self.notes),
        }

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Source:
        """Undo `as_json`."""
        return cls(
            format=values["format"],
            paths=tuple(Path(path) for path in values["paths"]),
            header=bytes.fromhex(values["header"]),
            series_uid=values["series_uid"],
            study_uid=values["study_uid"],
            modality=values["modality"],
            notes=tuple(values["notes"]),
        )


@dataclass(frozen=True)
class Loaded:
    """One image as an array, before it becomes a MetaTensor.

    Attributes:
        array: `[C, *spatial]`, in storage order; float32 for images, float64 or integer for labels.
        affine_ras: 4x4, voxel indices to RAS+ mm.
        source: Where it came from.
    """

    array: npt.NDArray[Any]
    affine_ras: Affine
    source: Source


Decoded = npt.NDArray[np.generic]
