"""Arrays with geometry as MetaTensors, the form in which images travel."""

from __future__ import annotations

import numpy as np
import torch

from segmed.io.label import as_integers
from segmed.io.limits import check_finite
from segmed.io.source import Loaded
from segmed.metatensor import MetaTensor


def as_image(loaded: Loaded) -> MetaTensor:
    """An image: `[C, *spatial]` float32, `.affine` 4x4 float64 to RAS+ mm, `meta["source"]`.

    Raises:
        ImageError: `non_finite`.
    """
    with np.errstate(over="ignore"):
        array = np.asarray(loaded.array, dtype=np.float32)  # in the layout of the file: no copy
    if min(array.strides, default=0) < 0:
        array = np.ascontiguousarray(array)  # torch knows no steps backwards
    check_finite(array, loaded.source.paths[0])
    return _tensor(torch.from_numpy(array), loaded)


def as_label(loaded: Loaded) -> MetaTensor:
    """A label map: `[1, *spatial]` int32; near-integers are rounded.

    Raises:
        ImageError: `not_integer`, or `channels` where there is more than one.
    """
    return _tensor(torch.from_numpy(as_integers(loaded.array, loaded.source.paths[0])), loaded)


def _tensor(tensor: torch.Tensor, loaded: Loaded) -> MetaTensor:
    affine = torch.from_numpy(np.asarray(loaded.affine_ras, dtype=np.float64))
    return MetaTensor(tensor, affine=affine, meta={"source": loaded.source})
