"""Pictures of a case: the channels that are shown, in reports and in the tracker."""

from __future__ import annotations

import numpy as np
import pytest

from segmed.report.case_overlay import shown_channels


@pytest.mark.parametrize(
    ("shape", "shown"),
    [
        ((3, 8, 8), 3),
        ((2, 8, 8), 1),
        ((4, 8, 8), 1),
        ((1, 8, 8), 1),
        ((3, 8, 8, 8), 1),
        ((4, 8, 8, 8), 1),
    ],
)
def test_colour_is_shown_whole_and_other_channels_are_never_averaged(
    shape: tuple[int, ...], shown: int
) -> None:
    image = np.arange(np.prod(shape)).reshape(shape)
    np.testing.assert_array_equal(shown_channels(image), image[:shown])
