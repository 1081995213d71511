"""Figures: they show what they were given, and take epochs in every form that occurs."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from xml.etree import ElementTree

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from segmed.report import Cost, curves_png
from segmed.report.figures import (
    COLOURS,
    _draw_curves,
    cost_svg,
    curves_svg,
    distributions_svg,
    mean_dice,
    paired_svg,
    records,
    style_of,
)


@dataclass(frozen=True)
class Epoch:
    epoch: int
    train_loss: float
    val_loss: float | None
    val_dice: dict[str, float] = field(default_factory=dict)
    seconds: float = 1.0


def test_epochs_may_be_records_or_mappings() -> None:
    mapping = {"epoch": 1, "train_loss": 0.9, "val_loss": 1.0, "val_dice": {"a": 0.5}, "seconds": 1}
    assert records([Epoch(1, 0.9, 1.0, {"a": 0.5})]) == records([mapping]) == [mapping]


def test_curves_png_is_a_wide_picture() -> None:
    picture = Image.open(io.BytesIO(curves_png({"unet": [Epoch(0, 0.9, None)]})))
    assert picture.width > 3 * picture.height


def test_runs_of_one_model_share_a_colour_and_one_entry_of_the_key() -> None:
    epochs = [Epoch(i, 1.0, 1.0, {"a": 0.1 * i}) for i in range(4)]
    svg = curves_svg({"unet/fold 0": epochs, "unet/fold 1": epochs, "fcn8s/fold 0": epochs})
    assert svg.count(">unet<") == 1
    assert "var(--series-0)" in svg
    assert "var(--series-1)" in svg
    assert "var(--series-2)" not in svg


@pytest.mark.parametrize("value", [None, {}, {"a": None}])
def test_epoch_without_validation_has_no_dice(value: object) -> None:
    assert np.isnan(mean_dice({"val_dice": value}))


def test_every_figure_is_an_xml_element_with_a_description(
    scores: dict[str, pd.DataFrame],
) -> None:
    first = pd.Series([0.8, 0.9], index=["a", "b"], name="unet")
    second = pd.Series([0.7, 0.95], index=["a", "b"], name="unetpp")
    drawings = [
        distributions_svg(scores, "hd95_mm", "HD95 mm"),
        paired_svg(first, second, "Dice"),
        cost_svg(
            {"unet": Cost(1_000_000), "unetpp": Cost(2_000_000)}, {"unet": 0.8, "unetpp": 0.9}
        ),
    ]
    for svg in drawings:
        root = ElementTree.fromstring(svg)
        assert root.get("role") == "img"
        assert root.get("aria-label")


def test_equal_budgets_get_no_axis_of_their_own() -> None:
    dice = {"unet": 0.8, "unetpp": 0.9}
    costs = {"unet": Cost(1_000_000, 60.0), "unetpp": Cost(2_000_000, 61.0)}
    svg = cost_svg(costs, dice)
    assert "parameters in millions" in svg
    assert "training time" not in svg
    assert cost_svg({}, dice) == ""


def test_models_of_equal_dice_share_an_axis_of_plain_numbers() -> None:
    costs = {"unet": Cost(1_000_000), "unetpp": Cost(2_000_000)}
    svg = cost_svg(costs, {"unet": 0.719410, "unetpp": 0.719417})
    texts = ["".join(one.itertext()).strip() for one in ElementTree.fromstring(svg).iter()]
    assert not [text for text in texts if "1e" in text]
    assert any(text.startswith("0.7") for text in texts)


def test_eight_models_differ_in_colour_and_marker() -> None:
    styles = style_of([f"m{i}" for i in range(8)])
    assert len({colour for colour, _ in styles.values()}) == len(COLOURS)
    assert len({marker for _, marker in styles.values()}) == 8


def curves(history: list[Epoch]) -> list[np.ndarray]:
    """Points of the line in each of the three panels, the training loss left out."""
    figure = _draw_curves({"unet": history}, 11.5, 3.5)
    return [np.asarray(axis.lines[-1].get_xydata()) for axis in figure.axes]


@pytest.mark.parametrize("seconds", [(60.0, 120.0, 300.0), (0.6, 1.2, 1.8)])
def test_dice_over_time_is_drawn_at_the_time_that_each_epoch_states(
    seconds: tuple[float, ...],
) -> None:
    history = [Epoch(i, 1.0, 1.0, {"a": 0.1 * i}, s) for i, s in enumerate(seconds, start=1)]
    assert curves(history)[2][:, 0].tolist() == pytest.approx([s / 60 for s in seconds])


def test_epochs_without_validation_neither_break_the_line_nor_show_a_point() -> None:
    dice = [{"a": 0.2}, {}, {}, {"a": 0.6}]
    losses = [1.0, None, None, 0.4]
    history = [
        Epoch(i, 1.0, loss, value, 60.0 * i)
        for i, (loss, value) in enumerate(zip(losses, dice, strict=True), start=1)
    ]
    loss, by_epoch, by_time = curves(history)
    assert loss.tolist() == [[1, 1.0], [4, 0.4]]
    assert by_epoch.tolist() == by_time.tolist() == [[1, 0.2], [4, 0.6]]


def test_measured_points_have_markers() -> None:
    figure = _draw_curves({"unet": [Epoch(i, 1, 1, {"a": 0.1}, i) for i in range(30)]}, 11.5, 3.5)
    assert all(line.get_marker() == "o" for axis in figure.axes for line in axis.lines)
