"""Pictures that notebooks show: images, label maps, scores."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from segmed.errors import UsageError
from segmed.metatensor import MetaTensor
from segmed.metrics import evaluate_case, scores_table
from segmed.notebook import picture_images, png_of
from segmed.pictures.scores import scores_picture
from segmed.pictures.shown import picture_of
from segmed.structures import LabelClass

LABELS = (LabelClass(name="front", value=1), LabelClass(name="back", value=2))


def label_map(*, empty: bool = False, shift: int = 0) -> MetaTensor:
    label = torch.zeros(1, 12, 14, 10, dtype=torch.uint8)
    if not empty:
        label[0, 2 + shift : 6 + shift, 3:9, 2:7] = 1
        label[0, 7:10, 3:9, 2:7] = 2
    return MetaTensor(label, affine=torch.eye(4, dtype=torch.float64))


def colours_of(picture: Image.Image) -> set[tuple[int, ...]]:
    pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
    return {tuple(int(part) for part in pixel) for pixel in np.unique(pixels, axis=0)}


def has_blue(picture: Image.Image) -> bool:
    """The first structure's colour, but for rounding."""
    return any(sum(map(abs, (r, g - 114, b - 178))) <= 3 for r, g, b in colours_of(picture))


def test_label_is_outlined_on_the_image_and_named() -> None:
    image = MetaTensor(torch.rand(1, 12, 14, 10), affine=torch.eye(4, dtype=torch.float64))
    bare = picture_of(image)
    outlined = picture_of(image, label_map(), labels=LABELS, caption="case 1")
    assert (0, 114, 178) not in colours_of(bare)
    assert {(0, 114, 178), (230, 159, 0)} <= colours_of(outlined)
    assert outlined.height > bare.height  # by the strip of names


def test_label_alone_is_drawn_on_black_and_an_empty_one_too() -> None:
    assert has_blue(picture_of(None, label_map()))
    assert not has_blue(picture_of(None, label_map(empty=True)))


@pytest.mark.parametrize("shape", [(2, 1, 8, 8, 8), (8, 8), (8,)])
def test_batch_or_vector_is_no_picture(shape: tuple[int, ...]) -> None:
    tensor = MetaTensor(torch.zeros(shape))
    with pytest.raises(UsageError, match=r"needs \[C, \*spatial\].*got shape"):
        picture_of(tensor)
    assert png_of(tensor) is None


def test_nothing_is_no_picture() -> None:
    with pytest.raises(UsageError, match="nothing to draw"):
        picture_of(None)


@pytest.mark.parametrize(
    "tensor",
    [torch.rand(1, 12, 14, 10), torch.rand(3, 20, 30), torch.rand(2, 9, 9, 9), label_map()],
)
def test_tensor_of_an_image_becomes_a_png(tensor: torch.Tensor) -> None:
    png = png_of(tensor if isinstance(tensor, MetaTensor) else MetaTensor(tensor))
    assert png is not None
    assert Image.open(io.BytesIO(png)).width > 50


def test_ipython_is_asked_to_draw_images_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    known: dict[tuple[str, str], Callable[[Any], bytes | None]] = {}

    class Formatter:
        """The part of IPython's formatter that is used; IPython need not be installed."""

        def for_type_by_name(self, module: str, name: str, draw: Any) -> None:
            known[module, name] = draw

    shell = SimpleNamespace(
        display_formatter=SimpleNamespace(formatters={"image/png": Formatter()})
    )
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: shell))
    picture_images()
    assert known == {(MetaTensor.__module__, MetaTensor.__name__): png_of}
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: None))
    picture_images()


def table_of(*, shift: int, empty: bool = False) -> pd.DataFrame:
    rows = []
    for case in range(3):
        rows += evaluate_case(
            label_map(shift=shift * case, empty=empty)[0].as_tensor(),
            label_map()[0].as_tensor(),
            labels=LABELS,
            spacing_mm=(1.0, 1.0, 1.0),
            case_id=f"case{case}",
        )
    return scores_table(rows)


def test_scores_are_drawn_in_the_colour_of_each_model() -> None:
    one = scores_picture({"a": table_of(shift=0)})
    two = scores_picture({"a": table_of(shift=0), "b": table_of(shift=1)})
    assert one.width > 400
    assert (0, 114, 178) in colours_of(one)
    assert (230, 159, 0) not in colours_of(one)
    assert (230, 159, 0) in colours_of(two)


def test_missed_structures_are_drawn_hollow_and_absent_ones_not_at_all() -> None:
    missed = scores_picture({"a": table_of(shift=0, empty=True)})
    assert (0, 114, 178) in colours_of(missed)
    table = table_of(shift=0).assign(both_empty=True)
    assert (0, 114, 178) not in colours_of(scores_picture({"a": table}))
    with pytest.raises(UsageError, match="nothing to draw"):
        scores_picture({"a": table.iloc[:0]})
