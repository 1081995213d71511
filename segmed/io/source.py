"""Source of an image: the header facts by which a writer gives back the same geometry."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy.typing as npt

from segmed.formats import RASTER_FORMATS
from segmed.geometry import Affine


@dataclass(frozen=True)
class Source:
    """The origin of an image; travels as `image.meta["source"]`.

    Attributes:
        format: `nifti`, `nrrd`, `metaimage`, `dicom`, `dicom-seg`, `png`, `tiff`, `jpeg`
            or `stack` (a folder of raster slices).
        paths: The files read; for DICOM one per slice, in slice order.
        header: A NIfTI file's header, byte for byte (348 or 540 bytes); else empty.
        series_uid: SeriesInstanceUID of a DICOM series; else empty.
        study_uid: StudyInstanceUID of a DICOM series; else empty.
        modality: DICOM modality such as `MR`; else empty.
        body_part: BodyPartExamined of a DICOM series; else empty.
        notes: What was odd, though not wrong, in plain words and without identifiers.
        patient_key: Short hash of the PatientID of a DICOM series; else empty.
        frame_of_reference: FrameOfReferenceUID of a DICOM series; else empty.
        stored_as: Orientation of the axes in the file, such as `ASL`, of a label that was turned
            onto the grid of its image; else empty.
        other_channels: Sources of the second and further channels, where these have their own.
    """

    format: str
    paths: tuple[Path, ...]
    header: bytes = field(default=b"", repr=False)
    series_uid: str = field(default="", repr=False)
    study_uid: str = field(default="", repr=False)
    modality: str = ""
    body_part: str = ""
    notes: tuple[str, ...] = ()
    patient_key: str = ""
    frame_of_reference: str = field(default="", repr=False)
    stored_as: str = ""
    other_channels: tuple[Source, ...] = field(default=(), repr=False)

    @property
    def states_spacing(self) -> bool:
        """False for raster images: their distances are in pixels."""
        return self.format not in (*RASTER_FORMATS, "stack")

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON values."""
        return {
            "format": self.format,
            "paths": [str(path) for path in self.paths],
            "header": self.header.hex(),
            "series_uid": self.series_uid,
            "study_uid": self.study_uid,
            "modality": self.modality,
            "body_part": self.body_part,
            "notes": list(self.notes),
            "patient_key": self.patient_key,
            "frame_of_reference": self.frame_of_reference,
            "stored_as": self.stored_as,
            "other_channels": [source.as_json() for source in self.other_channels],
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
            body_part=values.get("body_part", ""),
            notes=tuple(values["notes"]),
            patient_key=values["patient_key"],
            frame_of_reference=values["frame_of_reference"],
            stored_as=values.get("stored_as", ""),
            other_channels=tuple(map(cls.from_json, values["other_channels"])),
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
