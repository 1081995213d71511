"""Colours of structures stay apart, also where a set has more than a hundred."""

from __future__ import annotations

import numpy as np
import pytest

from segmed.io.colours import BASE, NUM_APART, _cielab, structure_colour


@pytest.mark.parametrize(("number", "apart"), [(8, 20.0), (41, 20.0), (148, 14.0), (512, 9.0)])
def test_any_two_of_many_colours_differ_in_cielab(number: int, apart: float) -> None:
    colours = np.array([structure_colour(place) for place in range(number)])
    lab = _cielab(colours / 255)
    distances = np.linalg.norm(lab[:, None] - lab[None], axis=-1)[np.triu_indices(number, 1)]
    assert distances.min() > apart  # a difference of about 2 can just be seen


def test_the_first_colours_are_those_of_the_palette_and_the_rest_begin_again() -> None:
    assert tuple(structure_colour(place) for place in range(len(BASE))) == BASE
    assert structure_colour(NUM_APART + 20) == structure_colour(20)
    assert all(0 <= part <= 255 for part in structure_colour(65534))


def test_cielab_of_known_colours() -> None:
    found = _cielab(np.array([[1.0, 1.0, 1.0], [1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]))
    expected = [[100, 0, 0], [53.24, 80.09, 67.20], [0, 0, 0]]
    np.testing.assert_allclose(found, expected, atol=0.1)
