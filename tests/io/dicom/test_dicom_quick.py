"""The quick header reader and pydicom say the same of every file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pydicom.data import get_testdata_file

from segmed.io.dicom.header import TAGS, read_header, tolerant_pydicom
from segmed.io.dicom.quick import quick_header

FOREIGN = Path(str(get_testdata_file("MR_small.dcm", download=False))).parent


@pytest.mark.parametrize("name", ["hippocampus_dicom", "pgbm", "dicom_nifti_pairs", "dicom_seg"])
def test_both_readers_agree_on_real_files(shared_data: Callable[[str], Path], name: str) -> None:
    paths = [path for path in shared_data(name).rglob("*") if path.is_file()][::3]
    with tolerant_pydicom():
        for path in paths:
            assert read_header(path) == read_header(path, quick=False), path.name


def test_both_readers_agree_on_foreign_files() -> None:
    compared = 0
    with tolerant_pydicom():
        for path in sorted(FOREIGN.glob("*.dcm")):
            quick = read_header(path)
            assert quick == read_header(path, quick=False), path.name
            compared += quick is not None
    assert compared > 60


def test_plain_files_take_the_short_way() -> None:
    path = FOREIGN / "MR_small.dcm"
    with path.open("rb") as stream:
        quick = quick_header(stream, path.stat().st_size, TAGS)
    assert quick is not None
    assert quick.values["Rows"] == 64
    for name in ("MR_small_bigendian", "image_dfl", "no_meta"):
        path = FOREIGN / f"{name}.dcm"
        with path.open("rb") as stream:
            assert quick_header(stream, path.stat().st_size, TAGS) is None


def test_a_damaged_header_never_gives_other_geometry_than_pydicom_sees(tmp_path: Path) -> None:
    rng = np.random.default_rng(11)
    sound = (FOREIGN / "MR_small.dcm").read_bytes()
    path = tmp_path / "a.dcm"
    agreed = 0
    for _ in range(200):
        data = bytearray(sound)
        data[int(rng.integers(132, 1500))] = int(rng.integers(256))
        path.write_bytes(data)
        with tolerant_pydicom():
            quick, slow = read_header(path), read_header(path, quick=False)
        assert quick is not None
        assert slow is not None
        if quick.fault or slow.fault:
            continue
        agreed += 1
        assert quick.slices == slow.slices
        assert (quick.rows, quick.columns) == (slow.rows, slow.columns)
    assert agreed > 100
