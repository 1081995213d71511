"""From packages and images to segmentations on the images' own grids."""

from segmed.inference.files import Outcome, predict_files
from segmed.inference.forecast import Forecast, foresee_files
from segmed.inference.inputs import find_cases, find_inputs
from segmed.inference.memory import MemoryEstimate, estimate_memory
from segmed.inference.onnx_form import export_onnx
from segmed.inference.predictor import Predictor, Segmentation
from segmed.inference.sliding import sliding_window

__all__ = [
    "Forecast",
    "MemoryEstimate",
    "Outcome",
    "Predictor",
    "Segmentation",
    "estimate_memory",
    "export_onnx",
    "find_cases",
    "find_inputs",
    "foresee_files",
    "predict_files",
    "sliding_window",
]
