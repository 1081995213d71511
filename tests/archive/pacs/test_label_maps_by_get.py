"""Label map segmentations by C-GET: from a node that knows their class, and from another."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pynetdicom import AE, evt
from pynetdicom.sop_class import (
    SegmentationStorage,
    StudyRootQueryRetrieveInformationModelGet,
)

sys.path.append(str(Path(__file__).parents[1] / "review"))

from corrected_segs import write_seg
from tiny_model import LABELS

from segmed.archive.pacs.dimse import Dimse, DimseSource
from segmed.errors import ServiceError
from segmed.io import read_image
from segmed.io.dicom.seg_read import SEG_CLASSES, load_seg

LABEL_MAP = SEG_CLASSES[1]


class Node:
    """A DICOM node with some objects, which it sends by C-GET.

    Args:
        files: The objects.
        classes: SOP classes that it knows.
    """

    def __init__(self, files: list[Path], classes: tuple[str, ...]) -> None:
        self.files = files
        entity = AE(ae_title="PACS")
        entity.add_supported_context(StudyRootQueryRetrieveInformationModelGet)
        for one in classes:
            entity.add_supported_context(one, scu_role=True, scp_role=True)
        handlers = [(evt.EVT_C_GET, self.send)]
        self.server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=handlers)
        self.port = int(self.server.socket.getsockname()[1])

    def send(self, event: Any) -> Iterator[Any]:
        """Send the objects of a series."""
        wanted = event.identifier.SeriesInstanceUID
        found = [pydicom.dcmread(path) for path in self.files]
        chosen = [one for one in found if wanted == one.SeriesInstanceUID]
        yield len(chosen)
        for one in chosen:
            yield 0xFF00, one


@pytest.fixture
def files(tmp_path: Path, write_dicom: Callable[..., list[Path]]) -> list[Path]:
    """A series, and a segmentation of each class."""
    series = write_dicom(tmp_path / "series", 1)
    shape = read_image(tmp_path / "series").shape[1:]
    values = np.random.default_rng(0).integers(0, 3, size=tuple(shape)).astype(np.int32)
    np.save(tmp_path / "values.npy", values)
    return [
        write_seg(tmp_path / f"{kind}.dcm", series, values, LABELS, kind)
        for kind in ("BINARY", "LABELMAP")
    ]


def fetched(path: Path, node: Node, folder: Path) -> list[Path]:
    """Objects that arrive of the series of one object."""
    head = pydicom.dcmread(path, stop_before_pixels=True)
    source = DimseSource(Dimse("127.0.0.1", node.port, "PACS"))
    source.fetch_series(head.StudyInstanceUID, head.SeriesInstanceUID, folder)
    return sorted(folder.iterdir())


def test_label_map_arrives_by_get_as_the_object_that_it_is(
    files: list[Path], tmp_path: Path
) -> None:
    node = Node(files, SEG_CLASSES)
    values = np.load(tmp_path / "values.npy")
    for number, path in enumerate(files):
        (arrived,) = fetched(path, node, tmp_path / f"got{number}")
        assert pydicom.dcmread(arrived).SOPClassUID == SEG_CLASSES[number]
        np.testing.assert_array_equal(load_seg(arrived, labels=LABELS).array[0], values)
    node.server.shutdown()


def test_node_that_does_not_know_label_maps_is_named_with_what_would_do(
    files: list[Path], tmp_path: Path
) -> None:
    node = Node(files, (str(SegmentationStorage),))
    assert len(fetched(files[0], node, tmp_path / "got")) == 1
    with pytest.raises(ServiceError, match=r"did not send all .* \?move=PORT .* DICOMweb"):
        fetched(files[1], node, tmp_path / "none")
    node.server.shutdown()
