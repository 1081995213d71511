"""Facts of an nnU-Net model, from its `plans.json` and `dataset.json`.

Both are read as data. What segmed does not reproduce is refused by name: another preprocessor,
resampling function, label manager or network, and the second stage of a cascade.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from segmed.errors import PackageError
from segmed.models.nnunet import NnUNetOptions

NETWORKS = {
    "dynamic_network_architectures.architectures.unet.PlainConvUNet": "plain",
    "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet": "residual",
    "dynamic_network_architectures.architectures.residual_unet.ResidualEncoderUNet": "residual",
    "PlainConvUNet": "plain",
    "ResidualEncoderUNet": "residual",
}
"""Networks that can be built here, by the class that a configuration names."""

READERS = {
    "SimpleITKIO": "stored",
    "NibabelIO": "stored",
    "NibabelIOWithReorient": "ras",
    "SimpleITKIOWithReorient": "ras",
    "NaturalImage2DIO": "raster",
    "Tiff3DIO": "stored",
}
"""Order of the axes of an image, by image reader of nnU-Net."""

NORMALISATIONS = (
    "ZScoreNormalization",
    "CTNormalization",
    "NoNormalization",
    "RescaleTo01Normalization",
    "RGBTo01Normalization",
)

RESAMPLING = "resample_data_or_seg_to_shape"
DEFAULT_ORDERS = {"data": (3, 0), "probabilities": (1, 0)}

_NORM_OPS = {"InstanceNorm": "instance", "BatchNorm": "batch"}
_ACTIVATIONS = {"LeakyReLU": "leaky_relu", "ReLU": "relu"}


@dataclass(frozen=True)
class LabelSet:
    """Structures of a model, as its `dataset.json` names them.

    Attributes:
        values: Label values by name, the background left out; several values for a region.
        has_regions: Whether the network gives one sigmoid a region instead of a softmax.
        paint_order: Value painted for each region, in order.
        ignore: Value that training ignored; None for none.
    """

    values: Mapping[str, tuple[int, ...]]
    has_regions: bool
    paint_order: tuple[int, ...]
    ignore: int | None


@dataclass(frozen=True)
class ChannelScaling:
    """Intensity scaling of one channel.

    Attributes:
        name: Name of the channel in `dataset.json`.
        scheme: Name of nnU-Net's normalisation.
        masked: Whether statistics and scaling are those of the voxels inside the nonzero mask.
        properties: Of the training foreground: `mean`, `std`, `percentile_00_5`, `percentile_99_5`.
    """

    name: str
    scheme: str
    masked: bool
    properties: Mapping[str, float]


@dataclass(frozen=True)
class Configuration:
    """One configuration of an nnU-Net plan.

    Attributes:
        dataset: Name of the image set.
        plans_name: Name of the plan.
        name: `2d`, `3d_fullres` or `3d_lowres`, or what its maker called it.
        reader: How axes are ordered, one of the values of `READERS`.
        transpose: Axis of the image as read that each axis of the network is.
        spacing_mm: Target voxel edges in the order of `transpose`; two for a 2D network.
        patch_size: Window, in voxels.
        channels: Channels in order.
        labels: Structures.
        network: How the network is built.
        ending: Ending of the image files that it was trained on.
    """

    dataset: str
    plans_name: str
    name: str
    reader: Literal["stored", "ras", "raster"]
    transpose: tuple[int, ...]
    spacing_mm: tuple[float, ...]
    patch_size: tuple[int, ...]
    channels: tuple[ChannelScaling, ...]
    labels: LabelSet
    network: NnUNetOptions
    ending: str

    @property
    def spatial_dims(self) -> int:
        """2 or 3."""
        return len(self.patch_size)


def read_configuration(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], name: str
) -> Configuration:
    """One configuration, with everything that prediction needs.

    Args:
        plans: Content of `plans.json`.
        dataset: Content of `dataset.json`.
        name: Name of the configuration.

    Raises:
        PackageError: A fact is missing, or the model does something that is not reproduced here.
    """
    try:
        return _read(plans, dataset, name)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError) as error:
        text = f"no {error.args[0]!r}" if isinstance(error, KeyError) else str(error)
        raise PackageError(
            f"plans.json or dataset.json is not nnU-Net v2's, configuration {name}: {text}"
        ) from error


def _read(plans: Mapping[str, Any], dataset: Mapping[str, Any], name: str) -> Configuration:
    rules = _inherited(plans["configurations"], name)
    _require_reproducible(plans, rules, name)
    channels = _channels(plans, dataset, rules)
    reader = plans.get("image_reader_writer") or dataset.get("overwrite_image_reader_writer")
    if reader not in READERS:
        raise PackageError(f"image reader {reader!r} of nnU-Net is not known: {', '.join(READERS)}")
    return Configuration(
        dataset=str(plans["dataset_name"]),
        plans_name=str(plans["plans_name"]),
        name=name,
        reader=READERS[reader],  # type: ignore[arg-type]  # the table's values
        transpose=tuple(int(axis) for axis in plans["transpose_forward"]),
        spacing_mm=tuple(float(edge) for edge in rules["spacing"]),
        patch_size=tuple(int(edge) for edge in rules["patch_size"]),
        channels=channels,
        labels=read_labels(dataset),
        network=_network(rules),
        ending=str(dataset["file_ending"]),
    )


def _inherited(configurations: Mapping[str, Any], name: str) -> dict[str, Any]:
    """A configuration with what it inherits; the nearest one wins."""
    seen: list[str] = []
    found: dict[str, Any] = {}
    current: str | None = name
    while current is not None:
        if current not in configurations:
            raise PackageError(
                f"plans.json has no configuration {current!r}: it has {', '.join(configurations)}"
            )
        if current in seen:
            raise PackageError(f"configurations inherit in a circle: {' > '.join(seen)}")
        seen.append(current)
        found = {**configurations[current], **found}
        current = configurations[current].get("inherits_from")
    return found


def _require_reproducible(plans: Mapping[str, Any], rules: Mapping[str, Any], name: str) -> None:
    if rules.get("previous_stage"):
        raise PackageError(
            f"configuration {name} is the second stage of a cascade, after "
            f"{rules['previous_stage']}: import 3d_fullres or 3d_lowres instead"
        )
    wanted = {
        "preprocessor_name": (rules.get("preprocessor_name"), "DefaultPreprocessor"),
        "label_manager": (plans.get("label_manager", "LabelManager"), "LabelManager"),
        "resampling_fn_data": (rules.get("resampling_fn_data", RESAMPLING), RESAMPLING),
        "resampling_fn_probabilities": (
            rules.get("resampling_fn_probabilities", RESAMPLING),
            RESAMPLING,
        ),
    }
    for key, (found, known) in wanted.items():
        if found != known:
            raise PackageError(
                f"configuration {name} uses {key} {found!r}, which is not reproduced here: "
                f"only {known} is"
            )
    for kind, (order, order_z) in DEFAULT_ORDERS.items():
        options = rules.get(f"resampling_fn_{kind}_kwargs") or {}
        found = {
            "order": options.get("order", order),
            "order_z": options.get("order_z", order_z),
            "force_separate_z": options.get("force_separate_z"),
        }
        if found != {"order": order, "order_z": order_z, "force_separate_z": None}:
            raise PackageError(
                f"configuration {name} resamples {kind} with {options}, which is not reproduced "
                f"here: only order {order}, order_z {order_z} and force_separate_z null are"
            )


def _channels(
    plans: Mapping[str, Any], dataset: Mapping[str, Any], rules: Mapping[str, Any]
) -> tuple[ChannelScaling, ...]:
    names = dataset.get("channel_names") or dataset["modality"]
    ordered = [str(names[key]) for key in sorted(names, key=int)]
    schemes, masks = rules["normalization_schemes"], rules["use_mask_for_norm"]
    if not len(ordered) == len(schemes) == len(masks):
        raise PackageError(
            f"{len(ordered)} channels, {len(schemes)} normalisations, {len(masks)} masks: "
            "plans.json and dataset.json do not belong together"
        )
    for scheme in schemes:
        if scheme not in NORMALISATIONS:
            raise PackageError(
                f"normalisation {scheme!r} is not known: {', '.join(NORMALISATIONS)}"
            )
    properties = plans["foreground_intensity_properties_per_channel"]
    return tuple(
        ChannelScaling(
            channel,
            scheme,
            bool(mask),
            {key: float(value) for key, value in dict(properties[str(index)]).items()},
        )
        for index, (channel, scheme, mask) in enumerate(zip(ordered, schemes, masks, strict=True))
    )


def read_labels(dataset: Mapping[str, Any]) -> LabelSet:
    """Structures of a `dataset.json`.

    Raises:
        PackageError: There is no background of value 0, or regions have no paint order.
    """
    values: dict[str, tuple[int, ...]] = {}
    ignore: int | None = None
    has_regions = False
    for name, value in dataset["labels"].items():
        found = tuple(int(one) for one in value) if isinstance(value, Sequence) else (int(value),)
        has_regions = has_regions or (isinstance(value, Sequence) and len(found) > 1)
        if name == "ignore":
            ignore = found[0]
        elif found != (0,):
            values[str(name)] = found
    if not values or len(values) == len(dataset["labels"]) - (ignore is not None):
        raise PackageError("dataset.json must name a background of value 0 and a structure")
    order = tuple(int(one) for one in dataset.get("regions_class_order") or ())
    if has_regions and len(order) != len(values):
        raise PackageError(
            f"dataset.json has {len(values)} regions and {len(order)} entries in "
            "regions_class_order: one each is needed"
        )
    return LabelSet(values, has_regions, order if has_regions else (), ignore)


def _network(rules: Mapping[str, Any]) -> NnUNetOptions:
    if "architecture" not in rules:
        return _network_of_old_plans(rules)
    name = str(rules["architecture"]["network_class_name"])
    given = rules["architecture"]["arch_kwargs"]
    encoder = _known_network(name)
    if given.get("bottleneck_channels") is not None or "block" in given:
        raise PackageError(f"{name} with bottleneck blocks is not reproduced here")
    stages = int(given["n_stages"])
    norm_options = dict(given.get("norm_op_kwargs") or {})
    slopes = dict(given.get("nonlin_kwargs") or {})
    count = "n_conv_per_stage" if encoder == "plain" else "n_blocks_per_stage"
    return NnUNetOptions(
        encoder=encoder,
        widths=_numbers(given["features_per_stage"], stages),
        kernels=_steps(given["kernel_sizes"], stages),
        strides=_steps(given["strides"], stages),
        blocks=_numbers(given[count], stages),
        decoder_convs=_numbers(given["n_conv_per_stage_decoder"], stages - 1),
        stem_width=given.get("stem_channels"),
        conv_bias=bool(given.get("conv_bias", False)),
        norm=_choice("norm_op", given.get("norm_op"), _NORM_OPS),  # type: ignore[arg-type]  # the table's
        norm_eps=float(norm_options.get("eps", 1e-5)),
        norm_affine=bool(norm_options.get("affine", False)),
        activation=_choice("nonlin", given.get("nonlin"), _ACTIVATIONS) or "relu",  # type: ignore[arg-type]  # the table's
        slope=float(slopes.get("negative_slope", 0.01)),
        activation_first=bool(given.get("nonlin_first", False)),
    )


def _network_of_old_plans(rules: Mapping[str, Any]) -> NnUNetOptions:
    """The network of plans from before nnU-Net 2.4, which name only what varied then."""
    stages = len(rules["n_conv_per_stage_encoder"])
    base, most = int(rules["UNet_base_num_features"]), int(rules["unet_max_num_features"])
    return NnUNetOptions(
        encoder=_known_network(str(rules["UNet_class_name"])),
        widths=tuple(min(base * 2**index, most) for index in range(stages)),
        kernels=_steps(rules["conv_kernel_sizes"], stages),
        strides=_steps(rules["pool_op_kernel_sizes"], stages),
        blocks=_numbers(rules["n_conv_per_stage_encoder"], stages),
        decoder_convs=_numbers(rules["n_conv_per_stage_decoder"], stages - 1),
    )


def _known_network(name: str) -> Literal["plain", "residual"]:
    if name not in NETWORKS:
        raise PackageError(
            f"network {name} is not known here: PlainConvUNet and ResidualEncoderUNet are"
        )
    return "residual" if NETWORKS[name] == "residual" else "plain"


def _choice(field: str, given: str | None, known: Mapping[str, str]) -> str | None:
    """The known name in the last part of a class name such as `torch.nn.InstanceNorm3d`."""
    if given is None:
        return None
    last = str(given).rpartition(".")[2].rstrip("123d")
    if last not in known:
        raise PackageError(f"{field} {given} is not known here: {', '.join(known)} are")
    return known[last]


def _numbers(value: int | Sequence[int], count: int) -> tuple[int, ...]:
    return (value,) * count if isinstance(value, int) else tuple(int(one) for one in value)


def _steps(
    value: int | Sequence[int | Sequence[int]], count: int
) -> tuple[int | tuple[int, ...], ...]:
    if isinstance(value, int):
        return (value,) * count
    return tuple(one if isinstance(one, int) else tuple(int(n) for n in one) for one in value)
