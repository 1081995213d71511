"""Segmentations of 3D Slicer as the outputs of an archive."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from segmed.archive import FolderSource, segment_archive
from segmed.archive.index import list_index
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.io import grid_of, read_image, read_label
from segmed.io.slicer import label_from_slicer


def test_series_and_files_give_segmentations_that_fit_their_images(
    tmp_path: Path,
    write_nifti: Callable[..., Path],
    write_dicom: Callable[..., list[Path]],
    predictor: Predictor,
) -> None:
    source = tmp_path / "in"
    write_nifti(source / "scan.nii.gz")
    write_dicom(source / "series", 1)
    out = tmp_path / "out"
    labels = predictor.plan.labels
    run = segment_archive(FolderSource(source), predictor=predictor, out_dir=out, format="seg-nrrd")
    assert [outcome.status for outcome in run] == ["done", "done"]
    rows = list(list_index(out))
    assert all(row.output.endswith(".seg.nrrd") for row in rows)
    for row in rows:
        path = Path(row.input)
        image = read_image(path) if path.suffix == ".gz" else read_image(source / "series")
        written = out / row.output
        label = label_from_slicer(written, grid_of(image), labels)
        np.testing.assert_array_equal(label, np.asarray(read_label(written))[0])
    assert (out / "segmentations" / "scan.seg.nrrd").is_file()
    again = segment_archive(FolderSource(out), predictor=predictor, out_dir=tmp_path / "again")
    assert list(again) == []


def test_unknown_output_format_lists_the_known_ones(tmp_path: Path, predictor: Predictor) -> None:
    with pytest.raises(UsageError, match="seg-nrrd"):
        list(
            segment_archive(
                FolderSource(tmp_path), predictor=predictor, out_dir=tmp_path, format="seg.nrrd"
            )
        )
