"""Steps of a MONAI bundle before and after its network, as fields of a plan."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

from segmed.errors import PackageError
from segmed.package.bundle_config import BundleConfig
from segmed.plan.schema import Inference, Intensity, Preprocessing
from segmed.structures import Channel, LabelClass

MODALITIES = {"CT": "CT", "MR": "MR", "MRI": "MR", "PT": "PT", "PET": "PT", "US": "US"}
"""DICOM modality by the text of a bundle's metadata."""

ORDERS = {"bilinear": 1, "trilinear": 1, 1: 1, 3: 3}
"""Spline order by the mode of `Spacingd`."""

Args = dict[str, Any]


def preprocessing_of(config: BundleConfig, num_channels: int, spatial_dims: int) -> Preprocessing:
    """Return the preprocessing of a bundle.

    Statistics of an image are taken before resampling, splines are exact and keep the field of
    view; MONAI's differ from both in the last voxels and digits.

    Args:
        config: The configuration.
        num_channels: Channels of the image.
        spatial_dims: 2 or 3.

    Raises:
        PackageError: A step has no equivalent; the message names it.
    """
    fields: dict[str, Any] = {"orientation": ""}
    for name, arguments in config.steps("preprocessing"):
        if name not in STEPS:
            raise PackageError(
                f"preprocessing of the bundle has the step {name!r}, which a plan cannot express; "
                f"known are {', '.join(sorted(STEPS))}"
            )
        changes = STEPS[name](arguments, num_channels)
        if repeated := sorted(changes.keys() & fields.keys() - {"orientation"}):
            raise PackageError(f"preprocessing of the bundle sets {repeated[0]} twice, by {name}")
        fields |= changes
    for key, step in (("spacing_mm", "Spacingd"), ("intensity", "ScaleIntensityRanged")):
        if key not in fields:
            raise PackageError(
                f"preprocessing of the bundle has no {step} or equivalent: a plan needs {key}"
            )
    if len(fields["spacing_mm"]) != spatial_dims:
        raise PackageError(
            f"Spacingd of the bundle has {len(fields['spacing_mm'])} edges for {spatial_dims} axes"
        )
    return Preprocessing(**fields)


def _orientation(arguments: Args, num_channels: int) -> Args:
    codes = arguments.get("axcodes")
    if not isinstance(codes, str) or len(codes) != 3:
        raise PackageError(f"Orientationd of the bundle needs axcodes of 3 letters, got {codes!r}")
    if arguments.get("labels") not in (None, [["L", "R"], ["P", "A"], ["I", "S"]]):
        raise PackageError("Orientationd of the bundle has labels of its own for the axes")
    return {"orientation": codes}


def _spacing(arguments: Args, num_channels: int) -> Args:
    edges, mode = arguments.get("pixdim"), arguments.get("mode", "bilinear")
    mode = mode[0] if isinstance(mode, list) and mode else mode
    if not isinstance(edges, list) or not all(_is_number(one) and one > 0 for one in edges):
        raise PackageError(f"Spacingd of the bundle needs a positive pixdim an axis, got {edges!r}")
    if isinstance(mode, list | dict) or mode not in ORDERS:
        raise PackageError(
            f"Spacingd of the bundle interpolates by {mode!r}; known are bilinear and 3"
        )
    return {"spacing_mm": tuple(edges), "image_order": ORDERS[mode]}


def _crop(arguments: Args, num_channels: int) -> Args:
    if arguments.get("margin", 0) not in (0, [0, 0, 0]) or "select_fn" in arguments:
        raise PackageError("CropForegroundd of the bundle has a margin or a function of its own")
    return {"crop_nonzero": True}


def _range(arguments: Args, num_channels: int) -> Args:
    given = [arguments.get(key) for key in ("a_min", "a_max", "b_min", "b_max")]
    numbers = _numbers(given)
    low, high, bottom, top = numbers or (0.0, 0.0, 0.0, 0.0)
    if low >= high or bottom >= top:
        raise PackageError(
            f"ScaleIntensityRanged of the bundle needs a_min < a_max and b_min < b_max, got {given}"
        )
    std = (high - low) / (top - bottom)
    clip = {"low": low, "high": high} if arguments.get("clip", False) else {}
    rule = Intensity(scheme="ct", mean=low - bottom * std, std=std, **clip)
    return {"intensity": (rule,) * num_channels}


def _normalise(arguments: Args, num_channels: int) -> Args:
    if num_channels > 1 and not arguments.get("channel_wise", False):
        raise PackageError(
            "NormalizeIntensityd of the bundle measures all channels at once; a plan scales each "
            "by itself (channel_wise)"
        )
    shift, divisor = arguments.get("subtrahend"), arguments.get("divisor")
    nonzero = bool(arguments.get("nonzero", False))
    if shift is None and divisor is None:
        return {"intensity": (Intensity(scheme="zscore", nonzero=nonzero),) * num_channels}
    shifts, divisors = _each(shift, num_channels), _each(divisor, num_channels)
    if nonzero or shifts is None or divisors is None or min(divisors) <= 0:
        raise PackageError(
            "NormalizeIntensityd of the bundle needs subtrahend and divisor, one a channel, "
            f"without nonzero; got {shift!r} and {divisor!r}"
        )
    pairs = zip(shifts, divisors, strict=True)
    return {"intensity": tuple(Intensity(scheme="ct", mean=a, std=b) for a, b in pairs)}


def _unit(arguments: Args, num_channels: int) -> Args:
    ends = (arguments.get("minv", 0.0), arguments.get("maxv", 1.0), arguments.get("factor"))
    is_split = num_channels == 1 or bool(arguments.get("channel_wise", False))
    if ends != (0.0, 1.0, None) or not is_split:
        raise PackageError("ScaleIntensityd of the bundle must scale each channel to 0..1")
    return {"intensity": (Intensity(scheme="unit"),) * num_channels}


STEPS: Mapping[str, Callable[[Args, int], Args]] = {
    "CropForegroundd": _crop,
    "NormalizeIntensityd": _normalise,
    "Orientationd": _orientation,
    "ScaleIntensityRanged": _range,
    "ScaleIntensityd": _unit,
    "Spacingd": _spacing,
}
"""Fields of a plan by the step of a bundle."""


def window_of(config: BundleConfig, spatial_dims: int) -> tuple[tuple[int, ...], Inference]:
    """Return window and blend of a bundle.

    Raises:
        PackageError: The inferer is not a sliding window of a fixed size.
    """
    made = config.first(("inferer",))
    name = str(made.get("_target_", "")).rpartition(".")[2] if isinstance(made, dict) else ""
    if name != "SlidingWindowInferer":
        raise PackageError(
            f"the bundle's inferer is {name or 'no component'!r}; a package needs a "
            "SlidingWindowInferer"
        )
    size = made.get("roi_size")
    edges = [size] * spatial_dims if isinstance(size, int) else size
    is_fixed = isinstance(edges, list) and all(isinstance(one, int) and one > 0 for one in edges)
    if not is_fixed or len(edges) != spatial_dims:
        raise PackageError(
            f"roi_size of the bundle's inferer must be {spatial_dims} positive numbers: {size!r}"
        )
    overlap, mode = made.get("overlap", 0.25), made.get("mode", "constant")
    if not _is_number(overlap) or not 0 <= overlap < 1 or mode not in ("gaussian", "constant"):
        raise PackageError(
            f"the bundle's inferer has overlap {overlap!r} and mode {mode!r}; known are 0 to below "
            "1, and gaussian or constant"
        )
    blend: Literal["constant", "monai"] = "constant" if mode == "constant" else "monai"
    rules = Inference(overlap=overlap, blend=blend, average="logits", placement="fixed")
    return tuple(edges), rules


def output_rules(config: BundleConfig, num_labels: int) -> Args:
    """Return the fields of `Inference` for the steps after the network.

    Raises:
        PackageError: A step has no equivalent, such as a sigmoid; the message names it.
    """
    fields: Args = {}
    for name, arguments in config.steps("postprocessing"):
        if name == "Activationsd" and not arguments.get("sigmoid") and not arguments.get("other"):
            continue
        argmax = arguments.get("argmax")
        takes_largest = (argmax[:1] == [True]) if isinstance(argmax, list) else argmax is True
        if name == "AsDiscreted" and takes_largest:
            continue
        if name == "KeepLargestConnectedComponentd" and arguments.get("is_onehot") is not True:
            fields["keep_largest"] = _labels(arguments, num_labels)
        elif name == "FillHolesd":
            fields["fill_holes"] = _labels(arguments, num_labels)
        else:
            raise PackageError(
                f"postprocessing of the bundle has the step {name!r} with {arguments}: a package "
                "takes the class of the largest softmax probability, keeps the largest component "
                "or fills holes"
            )
    return fields


def _labels(arguments: Args, num_labels: int) -> tuple[int, ...]:
    listed = _numbers(arguments.get("applied_labels"))
    known = range(1, num_labels + 1)
    return tuple(known) if listed is None else tuple(int(one) for one in listed if one in known)


def input_channels(metadata: Mapping[str, Any]) -> tuple[Channel, ...]:
    """Return the input channels by `network_data_format` of a bundle's metadata.

    Raises:
        PackageError: The metadata do not list them.
    """
    facts = _format(metadata, "inputs")
    modality = MODALITIES.get(str(facts.get("modality", "")).upper(), "OT")
    named = _definitions(facts, "inputs.image")
    return tuple(Channel(name=name, modality=modality) for name in named)


def label_classes(metadata: Mapping[str, Any]) -> tuple[LabelClass, ...]:
    """Return the structures by `network_data_format` of a bundle's metadata, background left out.

    Raises:
        PackageError: The metadata do not list them, or have no background.
    """
    named = _definitions(_format(metadata, "outputs"), "outputs.pred")
    if len(named) < 2 or named[0].lower() != "background":
        raise PackageError(
            "outputs.pred.channel_def of the bundle's metadata must begin with background: "
            f"overlapping structures have no class each; got {list(named)}"
        )
    return tuple(LabelClass(name=name, value=value) for value, name in enumerate(named[1:], 1))


def _format(metadata: Mapping[str, Any], side: str) -> Mapping[str, Any]:
    found: Any = metadata.get("network_data_format", {})
    for key in (side, "image" if side == "inputs" else "pred"):
        found = found.get(key, {}) if isinstance(found, dict) else {}
    return found if isinstance(found, dict) else {}


def _definitions(facts: Mapping[str, Any], where: str) -> tuple[str, ...]:
    listed = facts.get("channel_def")
    if not isinstance(listed, dict) or sorted(listed) != sorted(map(str, range(len(listed)))):
        raise PackageError(
            f"{where}.channel_def of the bundle's metadata must name the channels 0, 1, ..., got "
            f"{listed!r}"
        )
    return tuple(str(listed[str(number)]) for number in range(len(listed)))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _numbers(value: object) -> list[float] | None:
    listed: list[Any] = value if isinstance(value, list) else [value]
    return listed if all(_is_number(one) for one in listed) else None


def _each(value: object, count: int) -> list[float] | None:
    listed = _numbers(value)
    if listed is None:
        return None
    listed = listed * count if len(listed) == 1 else listed
    return listed if len(listed) == count else None
