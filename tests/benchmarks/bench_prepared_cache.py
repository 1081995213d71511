"""Disk space and cold patches of prepared volumes, beside float32 arrays mapped from disk.

Run: `python -m tests.benchmarks.bench_prepared_cache`. Volumes of 512 x 512 x 450 voxels are made
by tiling real ones: the spleen CT, clipped and scaled, and a heart MR, interpolated, so that every
voxel has a value of its own. The peer is the cache of earlier commits: `.npy` files of float32
voxels and uint8 class indices. Before each patch of 128 voxels along each axis, the files are
dropped from the page cache.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from scipy import ndimage

from segmed.geometry import Grid
from segmed.io.packs import read_index, write_pack
from segmed.preprocessing.blocks import BlockCache
from segmed.preprocessing.entry import PreparedEntry, encode_entry
from segmed.training.sampling import cut, overlap
from segmed.transforms.grid_transform import GridTransform, Prepared

RESULTS = Path(__file__).parent / "results" / "prepared_cache.json"
DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
SHAPE, PATCH = (512, 512, 450), (128, 128, 128)
SET_OF = 131
"""Volumes of the set that the figures are extrapolated to: as many as LiTS has for training."""
BARS = {"share_of_disk": 0.25, "speed_over_mapped": 5.0}


def tiled(array: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Copies of a volume, every second one mirrored, up to a shape."""
    for axis, size in enumerate(shape):
        copies = [array, np.flip(array, axis)] * (size // (2 * array.shape[axis]) + 1)
        array = np.take(np.concatenate(copies, axis), range(size), axis)
    return np.ascontiguousarray(array)


def volumes(data: Path, shape: tuple[int, ...]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Image and label of each kind, as preprocessing leaves them."""

    def load(path: Path) -> np.ndarray:
        return np.asarray(nib.load(path).dataobj, dtype=np.float32)

    spleen = data / "msd_spleen_crop"
    image = np.clip(load(spleen / "spleen2_ct.nii.gz"), -160, 240)
    ct = ((image - 40) / 80).astype(np.float32), load(spleen / "spleen2_seg.nii.gz") > 0
    heart = sorted((data / "left_atrium" / "imagesTr").glob("*.nii.gz"))[0]
    image = ndimage.zoom(load(heart), (0.9, 0.9, 1.1), order=3)
    label = load(data / "left_atrium" / "labelsTr" / heart.name) > 0
    image = ((image - image.mean()) / image.std()).astype(np.float32)
    mr = image, ndimage.zoom(label.astype(np.uint8), (0.9, 0.9, 1.1), order=0) > 0
    return {
        name: (tiled(pair[0], shape), tiled(pair[1], shape).astype(np.uint8))
        for name, pair in (("ct", ct), ("mr_interpolated", mr))
    }


def forget(paths: list[Path]) -> None:
    """Drop files from the page cache."""
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.posix_fadvise(handle, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(handle)


def timed(
    read: Callable[[tuple[int, ...]], Any], paths: list[Path], centres: list[tuple[int, ...]]
) -> float:
    """Median seconds of a patch from a cold page cache."""
    taken = []
    for centre in centres:
        forget(paths)
        begin = time.perf_counter()
        read(centre)
        taken.append(time.perf_counter() - begin)
    return statistics.median(taken)


def measure(image: np.ndarray, label: np.ndarray, folder: Path, patches: int) -> dict[str, float]:
    """Figures of one volume."""
    shape = label.shape
    peers = [folder / "image.npy", folder / "label.npy"]
    np.save(peers[0], image[None])
    np.save(peers[1], label)
    box = tuple((0, size) for size in shape)
    transform = GridTransform(Grid(shape, np.eye(4)), (0, 1, 2), (False,) * 3, box, shape)
    begin = time.process_time()
    prepared = Prepared(torch.from_numpy(image)[None], transform)
    content, facts = encode_entry(prepared, torch.from_numpy(label))
    encode_s = time.process_time() - begin
    pack = write_pack(folder, [("k", content, facts)])
    record = read_index(pack)["k"]

    def from_pack(centre: tuple[int, ...]) -> Any:
        entry = PreparedEntry("k", record, BlockCache(0))
        inside, _ = overlap(centre, PATCH, shape)
        return entry.image(inside), entry.label(inside)

    def from_arrays(centre: tuple[int, ...]) -> Any:
        arrays = [torch.from_numpy(np.load(path, mmap_mode="c")) for path in peers]
        return tuple(cut(array, centre, PATCH, fill=0).clone() for array in arrays)

    generator = np.random.default_rng(0)
    centres = [tuple(int(generator.integers(64, n - 64)) for n in shape) for _ in range(patches)]
    for found, expected in zip(from_pack(centres[0]), from_arrays(centres[0]), strict=True):
        assert float((found - expected).abs().max()) < 0.01
    before, after = sum(path.stat().st_size for path in peers), pack.stat().st_size
    mapped_s, pack_s = (
        timed(read, paths, centres) for read, paths in ((from_arrays, peers), (from_pack, [pack]))
    )
    return {
        "mapped_gb_of_set": round(SET_OF * before / 1e9, 1),
        "packs_gb_of_set": round(SET_OF * after / 1e9, 1),
        "share_of_disk": round(after / before, 3),
        "mapped_patch_s": round(mapped_s, 4),
        "pack_patch_s": round(pack_s, 4),
        "speed_over_mapped": round(mapped_s / pack_s, 1),
        "encode_cpu_s": round(encode_s, 1),
    }


def main() -> int:
    """Measure, print, and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--patches", type=int, default=15)
    parser.add_argument("--slices", type=int, default=SHAPE[2])
    parser.add_argument("--folder", type=Path, default=None, help="on the disk to be measured")
    args = parser.parse_args()
    if not DATA.is_dir():
        print(f"skipped: the image sets are not in {DATA.parent.name}/{DATA.name}")
        return 0
    results = {}
    for name, (image, label) in volumes(DATA, (*SHAPE[:2], args.slices)).items():
        with tempfile.TemporaryDirectory(dir=args.folder) as scratch:
            results[name] = measure(image, label, Path(scratch), args.patches)
        print(name, json.dumps(results[name]), flush=True)
    found = {
        "share_of_disk": max(row["share_of_disk"] for row in results.values()),
        "speed_over_mapped": min(row["speed_over_mapped"] for row in results.values()),
    }
    record = {"slices": args.slices, "bars": BARS, "summary": found, "volumes": results}
    RESULTS.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    is_met = found["share_of_disk"] <= BARS["share_of_disk"]
    return 0 if is_met and found["speed_over_mapped"] >= BARS["speed_over_mapped"] else 1


if __name__ == "__main__":
    raise SystemExit(main())
