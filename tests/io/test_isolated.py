"""Untrusted files are read in a process that may die."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from PIL import Image
from volumes_in_space import volume

from segmed.errors import GeometryError, ImageError
from segmed.io import fork_server, read_image, read_label, source_of, write_label
from segmed.io.dicom.write import write_series
from segmed.io.isolated import load_isolated
from segmed.io.read import as_image, as_label


def read_image_isolated(path: Path, **bounds: Any) -> MetaTensor:
    """An image of any format, read in a process of its own."""
    return as_image(load_isolated(path, **bounds))


def test_the_child_gives_the_same_image_as_the_reader(
    oblique_volume: MetaTensor, tmp_path: Path
) -> None:
    write_series(tmp_path / "series", oblique_volume)
    direct = read_image(tmp_path / "series")
    isolated = read_image_isolated(tmp_path / "series")
    assert torch.equal(isolated.as_tensor(), direct.as_tensor())
    assert torch.equal(isolated.affine, direct.affine)
    assert source_of(isolated) == source_of(direct)


def test_the_child_reads_labels_and_keeps_the_header(tmp_path: Path) -> None:
    image = volume(np.eye(3))
    label = (image.as_tensor()[0] > 2000).to(torch.int32)
    path = write_label(tmp_path / "a.nii.gz", label, like=image)
    isolated = as_label(load_isolated(path, exact=True))
    assert torch.equal(isolated.as_tensor(), read_label(path).as_tensor())
    again = write_label(tmp_path / "b.nii.gz", label, like=isolated)
    assert again.read_bytes() == path.read_bytes()


def test_refusals_come_back_as_they_are(tmp_path: Path) -> None:
    write_series(tmp_path, volume(np.eye(3)), omit_slices=[3])
    with pytest.raises(GeometryError) as caught:
        read_image_isolated(tmp_path)
    assert caught.value.reason == "missing_slice"
    assert caught.value.paths


def test_a_hang_is_stopped(tmp_path: Path) -> None:
    pipe = tmp_path / "series"
    pipe.mkdir()
    write_series(pipe, volume(np.eye(3)))
    with pytest.raises(ImageError) as caught:
        read_image_isolated(pipe, timeout_s=0.001)  # less than it takes
    assert caught.value.reason == "decoder_hung"
    assert read_image_isolated(pipe).shape == read_image(pipe).shape  # by another process


def test_a_child_without_memory_is_an_error_of_the_file(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Image(np.zeros((160,) * 3, np.uint8), np.eye(4)), tmp_path / "a.nii.gz")
    with pytest.raises(ImageError) as caught:
        read_image_isolated(tmp_path / "a.nii.gz", memory_gb=0.02)
    assert caught.value.reason in {"out_of_memory", "decoder_crashed"}


def test_many_threads_read_at_once(tmp_path: Path) -> None:
    pixels = [np.full((8, 8), number, np.uint8) for number in range(24)]
    for number, values in enumerate(pixels):
        Image.fromarray(values).save(tmp_path / f"{number}.png")
    paths = [tmp_path / f"{number}.png" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(read_image_isolated, paths))
    assert [int(image[0, 0, 0]) for image in images] == list(range(24))
    assert all(len(idle) <= fork_server.MAX_IDLE for idle in fork_server._idle.values())


def test_a_child_that_dies_takes_nothing_along(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((2000, 2000), np.uint8)).save(tmp_path / "a.png")
    read_image_isolated(tmp_path / "a.png")  # a server waits from here on
    with pytest.raises(ImageError) as caught:
        read_image_isolated(tmp_path / "a.png", memory_gb=1e-6)  # too little even to die orderly
    assert caught.value.reason in {"out_of_memory", "decoder_crashed"}
    assert read_image_isolated(tmp_path / "a.png").shape == (1, 2000, 2000)


def test_servers_end_with_the_process_that_started_them() -> None:
    code = (
        "import segmed, sys, types; "
        "package = types.ModuleType('segmed.io'); "  # without MONAI, which takes seconds
        "package.__path__ = [segmed.__path__[0] + '/io']; sys.modules['segmed.io'] = package; "
        "from segmed.io.fork_server import ForkServer; "
        "server = ForkServer(); print(server._process.pid, flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as reader:
        assert reader.stdout is not None
        server = int(reader.stdout.readline())
        os.kill(server, 0)
        reader.kill()  # no time for its atexit
    deadline = time.monotonic() + 10
    while Path(f"/proc/{server}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{server}").exists()
