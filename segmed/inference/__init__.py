"""From packages and images to segmentations on the images' own grids."""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.inference.files import Outcome, predict_files
    from segmed.inference.forecast import Forecast, foresee_files
    from segmed.inference.inputs import find_cases
    from segmed.inference.memory import MemoryEstimate, estimate_memory
    from segmed.inference.predictor import Predictor
    from segmed.inference.segmentation import Segmentation
    from segmed.inference.slab_inferer import SlabInferer
    from segmed.inference.sliding import sliding_window
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.inference.files": "Outcome predict_files",
            "segmed.inference.forecast": "Forecast foresee_files",
            "segmed.inference.inputs": "find_cases",
            "segmed.inference.memory": "MemoryEstimate estimate_memory",
            "segmed.inference.predictor": "Predictor",
            "segmed.inference.segmentation": "Segmentation",
            "segmed.inference.slab_inferer": "SlabInferer",
            "segmed.inference.sliding": "sliding_window",
        },
    )

__all__ = [
    "Forecast",
    "MemoryEstimate",
    "Outcome",
    "Predictor",
    "Segmentation",
    "SlabInferer",
    "estimate_memory",
    "find_cases",
    "foresee_files",
    "predict_files",
    "sliding_window",
]
