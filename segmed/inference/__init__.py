"""From packages and images to segmentations on the images' own grids."""

from segmed.inference.files import Outcome, find_inputs, predict_files
from segmed.inference.predictor import Predictor, Segmentation
from segmed.inference.sliding import sliding_window

__all__ = [
    "Outcome",
    "Predictor",
    "Segmentation",
    "find_inputs",
    "predict_files",
    "sliding_window",
]
