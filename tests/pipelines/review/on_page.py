"""Voxels on the review page: their places, strokes over them, and what is drawn."""

from __future__ import annotations

from chromium import Page

STATE = "review.page"
"""State of the page, which it shows to the console."""


def place_of(page: Page, plane: str, voxel: list[int]) -> tuple[float, float]:
    """The middle of a voxel on the page."""
    place = page.run(f"review.views.{plane}.placeOf({voxel}, {STATE}.scene.geometry)")
    return float(place[0]), float(place[1])


def stroke(page: Page, plane: str, voxels: list[list[int]], modifiers: int = 0) -> None:
    """Draw with the mouse over the middles of voxels."""
    page.settle()
    page.drag([place_of(page, plane, voxel) for voxel in voxels], modifiers)


def drawn(page: Page) -> set[tuple[int, int, int, int]]:
    """Index and value of each voxel that is drawn in the page."""
    found = page.run(
        f"(() => {{ const {{ values, geometry }} = {STATE}.drawing, [x, y] = geometry.shape; "
        "return [...values.entries()].filter(([, v]) => v).map(([i, v]) => "
        "[i % x, Math.floor(i / x) % y, Math.floor(i / x / y), v]); })()"
    )
    return {tuple(one) for one in found}
