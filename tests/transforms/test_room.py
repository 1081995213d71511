"""Sizes and memory of resampled images are known and checked before anything is allocated."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from segmed.errors import GeometryError, ImageError
from segmed.geometry import Grid
from segmed.plan.schema import Plan
from segmed.preprocessing import prepare
from segmed.transforms import room
from segmed.transforms.grid_transform import resampled, turned
from segmed.transforms.room import free_bytes, require_room, resampling_bytes

PlanMaker = Callable[..., Plan]


def image_of(shape: tuple[int, ...], spacing_mm: tuple[float, ...]) -> MetaTensor:
    affine = torch.diag(torch.tensor([*[*spacing_mm, 1.0, 1.0][:3], 1.0], dtype=torch.float64))
    return MetaTensor(torch.ones(1, *shape), affine=affine)


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        pytest.param((64, 64, 64), (150.0, 150.0, 150.0), id="metres taken for millimetres"),
        pytest.param((100, 100, 60), (20.0, 20.0, 20.0), id="twenty-fold"),
        pytest.param((300, 300, 300), (0.9, 0.9, 190.0), id="one axis"),
        pytest.param((4000, 4000), (150.0, 150.0), id="a picture"),
    ],
)
def test_sizes_out_of_all_bounds_are_refused_by_spacing(
    shape: tuple[int, ...], spacing_mm: tuple[float, ...], make_plan_for: PlanMaker
) -> None:
    plan = make_plan_for(spacing_mm=(1.0,) * len(shape), orientation="")
    with pytest.raises(GeometryError, match=r"become .* correct the spacing in the image's") as got:
        prepare(image_of(shape, spacing_mm), plan)
    assert got.value.reason == "absurd_spacing"


@pytest.mark.parametrize(("shape", "edge_mm"), [((40, 40, 40), 0.002), ((512, 512, 30), 0.001)])
def test_an_image_that_would_shrink_to_nothing_is_refused(
    shape: tuple[int, ...], edge_mm: float, make_plan_for: PlanMaker
) -> None:
    with pytest.raises(GeometryError, match="too few to show anything"):
        prepare(image_of(shape, (edge_mm,) * 3), make_plan_for())


@pytest.mark.parametrize(
    ("shape", "edge_mm"), [((1, 1, 1), 1.0), ((3, 5, 2), 0.5), ((40, 37, 1), 1.0)]
)
def test_small_images_of_a_plain_spacing_are_prepared(
    shape: tuple[int, ...], edge_mm: float, make_plan_for: PlanMaker
) -> None:
    prepared = prepare(image_of(shape, (edge_mm,) * 3), make_plan_for())
    assert prepared.tensor.shape[0] == 1


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.0, 2.0), (0.5, 1.0, 3.0), (1.0, 1.0, 1.0)])
def test_the_bytes_foretold_are_those_taken(
    spacing_mm: tuple[float, ...], make_plan_for: PlanMaker
) -> None:
    plan = make_plan_for(channels=2)
    grid = Grid((24, 20, 16), np.diag([*spacing_mm, 1.0]))
    transform = resampled(turned(grid, "RAS"), plan.preprocessing.spacing_mm)
    assert resampling_bytes(transform, plan.network_channels) >= 4 * 2 * np.prod(transform.shape)


def test_more_than_is_free_is_refused_with_both_figures() -> None:
    require_room(0, "nothing")
    with pytest.raises(
        ImageError, match=r"the image needs \d+\.\d\d GB, \d+\.\d\d GB are free"
    ) as got:
        require_room(free_bytes() + (1 << 40), "the image")
    assert got.value.reason == "out_of_memory"


@pytest.mark.parametrize(
    ("need", "is_refused"), [(1, False), (room.SMALL_BYTES - 1, False), (room.SMALL_BYTES, True)]
)
def test_small_needs_are_not_compared(
    need: int, is_refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "free_bytes", lambda: 0)
    with pytest.raises(ImageError) if is_refused else nullcontext():
        require_room(need, "the image")


@pytest.mark.parametrize("edge_mm", [1.0, 2.0, 3.0])
def test_an_image_whose_preparation_has_no_room_is_refused_before_it_begins(
    edge_mm: float, make_plan_for: PlanMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, image = make_plan_for(), image_of((20, 20, 20), (edge_mm,) * 3)
    size = round(20 * edge_mm)
    monkeypatch.setattr(room, "SMALL_BYTES", 0)
    monkeypatch.setattr(room, "free_bytes", lambda: 4 * size**3 - 1)
    with pytest.raises(ImageError, match=f"resampled to {size} x {size} x {size} voxels,") as got:
        prepare(image, plan)
    assert got.value.reason == "out_of_memory"


@pytest.mark.parametrize(
    ("limit", "used"),
    [
        ("memory.max", "memory.current"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
    ],
)
def test_files_that_a_container_has_read_take_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str, used: str
) -> None:
    monkeypatch.setattr(room, "CGROUP", tmp_path)
    (tmp_path / limit).parent.mkdir(exist_ok=True)
    (tmp_path / limit).write_text("9000\n", encoding="utf-8")
    (tmp_path / used).write_text("8990\n", encoding="utf-8")
    parts = (tmp_path / used).with_name("memory.stat")
    parts.write_text(
        "anon 990\nfile 8000\ninactive_file 7000\nactive_file 900\nshmem 100\n", encoding="utf-8"
    )
    assert free_bytes() == 7910
    parts.write_text("anon 8990\ninactive_file 0\nactive_file 0\n", encoding="utf-8")
    assert free_bytes() == 10
    (tmp_path / limit).write_text(
        "max\n" if limit == "memory.max" else f"{1 << 62}\n", encoding="utf-8"
    )
    assert free_bytes() > 9000


BOUNDED = """
import pathlib, resource, torch
from segmed.errors import ImageError
from segmed.transforms.room import free_bytes, require_room
used = int(pathlib.Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + (1 << 30),) * 2)
assert free_bytes() <= 1 << 30, free_bytes()
try:
    require_room(2 << 30, "the image")
except ImageError as error:
    print(error.reason)
"""


@pytest.mark.skipif(
    not sys.platform.startswith("linux"), reason="address space is bounded on Linux"
)
def test_a_bound_of_the_process_itself_counts() -> None:
    done = subprocess.run(
        [sys.executable, "-c", BOUNDED],
        capture_output=True,
        text=True,
        check=True,
        timeout=360,
        encoding="utf-8",
    )
    assert done.stdout.strip() == "out_of_memory"
