"""Small images and plans."""

from __future__ import annotations

from image_makers import make_image, make_plan_for

__all__ = ["make_image", "make_plan_for"]
