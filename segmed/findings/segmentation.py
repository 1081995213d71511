"""A DICOM segmentation as the object that reports refer to: patient, study, segments, images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataset import Dataset

from segmed.errors import UsageError
from segmed.io.dicom.header import tolerant_pydicom

PER_FRAME = "PerFrameFunctionalGroupsSequence"


@dataclass(frozen=True)
class ReportedSegment:
    """One segment as reports name it.

    Attributes:
        label: Its label, in characters that the object can encode.
        tracking_id: Its tracking identifier.
        tracking_uid: Its unique tracking identifier.
        kind: Item of its property type: the coded structure.
        frames: Numbers of its frames, from 1.
    """

    label: str
    tracking_id: str
    tracking_uid: str
    kind: Dataset
    frames: tuple[int, ...]


@dataclass(frozen=True)
class ReferencedSegmentation:
    """A segmentation and what reports copy of it.

    Attributes:
        dataset: Its header, without frames and pixels.
        segments: Its segments by number.
        images: SOP class and instance UID of each source image.
        source_series: SeriesInstanceUID of the source images.
    """

    dataset: Dataset
    segments: dict[int, ReportedSegment]
    images: tuple[tuple[str, str], ...]
    source_series: str


def referenced_segmentation(path: Path) -> ReferencedSegmentation:
    """Read what reports refer to in a segmentation that segmed wrote.

    Raises:
        UsageError: It refers to no images.
    """
    with tolerant_pydicom():
        dataset = pydicom.dcmread(path, stop_before_pixels=True)
        frames = _frames_by_segment(dataset)
        segments = {
            int(item.SegmentNumber): ReportedSegment(
                str(item.SegmentLabel),
                str(item.TrackingID),
                str(item.TrackingUID),
                item.SegmentedPropertyTypeCodeSequence[0],
                tuple(frames.get(int(item.SegmentNumber), ())),
            )
            for item in dataset.SegmentSequence
            if int(item.SegmentNumber)
        }
        series = next(iter(dataset.get("ReferencedSeriesSequence") or ()), None)
        if series is None:
            raise UsageError(f"{path.name} refers to no images, which a report needs")
        images = tuple(
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in series.ReferencedInstanceSequence
        )
        if PER_FRAME in dataset:
            del dataset[PER_FRAME]
    return ReferencedSegmentation(dataset, segments, images, str(series.SeriesInstanceUID))


def _frames_by_segment(dataset: Dataset) -> dict[int, list[int]]:
    """Numbers of the frames of each segment; empty for a label map, whose frames show all."""
    found: dict[int, list[int]] = {}
    shared = dataset.SharedFunctionalGroupsSequence[0]
    for number, group in enumerate(dataset.get(PER_FRAME) or (), start=1):
        place = group if "SegmentIdentificationSequence" in group else shared
        for item in place.get("SegmentIdentificationSequence") or ():
            found.setdefault(int(item.ReferencedSegmentNumber), []).append(number)
    return found
