"""Schema of a plan: the decisions taken from the data, stored with every model."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

from segmed.encoding import LabelEncoding
from segmed.plan.extra_augmentation import ExtraTransform
from segmed.structures import Channel, Frozen, LabelClass, LabelValue

SCHEMA_VERSION = 1
"""Version of the plan's form; readers refuse any other version."""

Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Axes = tuple[PositiveInt, ...]


class Intensity(Frozen):
    """Intensity scaling of one channel.

    Attributes:
        scheme: `zscore`: by mean and standard deviation of each image (of its non-zero voxels if
            `nonzero`); `ct`: clipped to `low..high` and scaled by `mean` and `std`, all taken from
            the training foreground; `unit`: divided so that `low..high` becomes 0..1; `none`.
        low: Lower clip, in the image's own units.
        high: Upper clip, in the image's own units.
        mean: Mean, in the image's own units (scheme `ct`).
        std: Standard deviation, in the image's own units (scheme `ct`).
        nonzero: Take statistics of the non-zero voxels only.
    """

    scheme: Literal["zscore", "ct", "unit", "none"]
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: PositiveFloat | None = None
    nonzero: bool = False


class Preprocessing(Frozen):
    """From an image as stored to the network's input.

    Attributes:
        orientation: Axis codes that volumes are brought to; empty for 2D rasters.
        spacing_mm: Target voxel edge along each axis after reorientation, in mm.
        image_order: Spline order for images: 3, or 1.
        anisotropic_axis: Axis resampled apart with order 0 or 1, where one is much coarser.
        crop_nonzero: Crop to the bounding box of non-zero voxels first.
        bias_correction: N4 before anything else, on all channels but CT.
        intensity: One entry a channel.
        scheme: `segmed`, or `nnunet` for the rules of a network that nnU-Net trained, see
            `segmed.transforms.nnunet_rules`.
        axes: Scheme `nnunet` without an orientation: the stored axis that each axis becomes.
        kept_axis: Scheme `nnunet`: axis that keeps its voxels, the slices of a 2D network.
        more_intensities: Scheme `nnunet`: further scalings of the same channels, each an entry a
            channel, for part models with other intensities than the first; the network's input has
            all of them, one after the other.
    """

    orientation: str = "RAS"
    spacing_mm: tuple[PositiveFloat, ...]
    image_order: Literal[1, 3] = 3
    anisotropic_axis: NonNegativeInt | None = None
    crop_nonzero: bool = False
    bias_correction: bool = False
    intensity: tuple[Intensity, ...]
    scheme: Literal["segmed", "nnunet"] = "segmed"
    axes: tuple[NonNegativeInt, ...] = ()
    kept_axis: NonNegativeInt | None = None
    more_intensities: tuple[tuple[Intensity, ...], ...] = ()

    @property
    def all_intensities(self) -> tuple[Intensity, ...]:
        """One entry for each channel of the network's input."""
        return sum(self.more_intensities, self.intensity)

    @model_validator(mode="after")
    def _require_views_of_all_channels(self) -> Preprocessing:
        if any(len(view) != len(self.intensity) for view in self.more_intensities):
            raise ValueError("each of more_intensities needs one entry a channel, as intensity")
        if self.more_intensities and self.scheme != "nnunet":
            raise ValueError("more_intensities is for scheme nnunet alone")
        return self

    @model_serializer(mode="wrap")
    def _without_foreign_rules(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave nnU-Net's fields out of other plans, whose hashes stay as they were."""
        fields: dict[str, Any] = serialize(self)
        if not self.more_intensities:
            fields.pop("more_intensities", None)
        if self.scheme == "segmed":
            for name in ("scheme", "axes", "kept_axis"):
                fields.pop(name, None)
        return fields


class NetworkPlan(Frozen):
    """Options of one architecture for this data.

    Attributes:
        options: Keyword options of `build_model` for this architecture.
        learning_rate: Peak learning rate found best for it.
        loss: Loss it is trained with.
    """

    options: dict[str, Any]
    learning_rate: PositiveFloat
    loss: Literal["dice_ce", "unet_weighted_ce", "unetpp_bce_dice", "unet3plus_hybrid"] = "dice_ce"


class Augmentation(Frozen):
    """Random changes of a training batch; `p_` is the probability of each.

    Attributes:
        flip_axes: Spatial axes along which anatomy may be mirrored.
        rotation_deg: Largest rotation about each axis, in degrees.
        scale: Largest relative zoom, 0.2 for 0.8 to 1.25.
        elastic_mm: Standard deviation of the elastic displacement, in mm; 0 for none.
        p_spatial: Probability of rotation, scaling and elastic deformation together.
        noise_std: Largest standard deviation of added noise, in units of scaled intensity.
        p_noise: Probability of noise.
        blur_voxels: Largest Gaussian sigma, in voxels.
        p_blur: Probability of blur.
        brightness: Largest relative change of brightness.
        p_brightness: Probability of it.
        contrast: Largest relative change of contrast.
        p_contrast: Probability of it.
        gamma: Largest relative exponent.
        p_gamma: Probability of it.
        low_resolution: Coarsest simulated zoom, 0.5 for half resolution.
        p_low_resolution: Probability of it.
    """

    flip_axes: tuple[NonNegativeInt, ...] = ()
    rotation_deg: tuple[NonNegativeFloat, ...]
    scale: NonNegativeFloat = 0.2
    elastic_mm: NonNegativeFloat = 0.0
    p_spatial: Fraction = 0.3
    noise_std: NonNegativeFloat = 0.1
    p_noise: Fraction = 0.1
    blur_voxels: NonNegativeFloat = 1.0
    p_blur: Fraction = 0.1
    brightness: NonNegativeFloat = 0.25
    p_brightness: Fraction = 0.15
    contrast: NonNegativeFloat = 0.25
    p_contrast: Fraction = 0.15
    gamma: NonNegativeFloat = 0.3
    p_gamma: Fraction = 0.2
    low_resolution: Fraction = 0.5
    p_low_resolution: Fraction = 0.1


class Recipe(Frozen):
    """Training recipe, shared by all architectures.

    Attributes:
        optimizer: `adamw`, or `sgd` with Nesterov momentum 0.99.
        weight_decay: Decoupled for AdamW.
        schedule: Shape of the learning rate over the budget after warm-up.
        warmup: Share of the budget spent in linear warm-up.
        gradient_clip: Largest gradient norm.
        batch_size: Patches a step.
        foreground_fraction: Share of patches centred on a foreground voxel.
        iterations_per_epoch: Steps between two validations.
        ema_decay: Decay of the averaged weights; 0 for none.
        augmentation: Random changes of each batch.
        extra_augmentation: Random transforms of MONAI after them, in order.
        rare_labels: By label value, how many times as often as others the cases are drawn that
            have the label.
        centred_fraction: Share of patches that are centred near the middle of all labels of their
            case; of the others `foreground_fraction` is centred on a foreground voxel.
        starts_from_shares: The outputs start with the shares that classes have of the voxels of
            training patches, not all alike.
    """

    optimizer: Literal["adamw", "sgd"] = "adamw"
    weight_decay: NonNegativeFloat = 1e-4
    schedule: Literal["poly", "cosine"] = "cosine"
    warmup: Fraction = 0.03
    gradient_clip: PositiveFloat = 12.0
    batch_size: PositiveInt = 2
    foreground_fraction: Fraction = 0.33
    iterations_per_epoch: PositiveInt = 50
    ema_decay: Fraction = 0.0
    augmentation: Augmentation
    extra_augmentation: tuple[ExtraTransform, ...] = ()
    rare_labels: dict[LabelValue, Annotated[float, Field(ge=1.0)]] = Field(default_factory=dict)
    centred_fraction: Fraction = 0.0
    starts_from_shares: bool = False

    @model_serializer(mode="wrap")
    def _without_empty(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave empty later fields out: hashes of plans without them stay as they were."""
        fields: dict[str, Any] = serialize(self)
        for name in ("rare_labels", "centred_fraction", "starts_from_shares"):
            if not fields[name]:
                fields.pop(name)
        return fields

    @model_validator(mode="after")
    def _require_allowed_mirrors(self) -> Recipe:
        allowed = self.augmentation.flip_axes
        for extra in self.extra_augmentation:
            axes = extra.mirrored_axes
            if axes is None or not set(axes) <= set(allowed):
                raise ValueError(
                    f"extra_augmentation: RandFlip mirrors {'all axes' if axes is None else axes}, "
                    f"augmentation.flip_axes allows {allowed}: give spatial_axis among them"
                )
        return self


class Inference(Frozen):
    """Inference settings: windows, blending and post-processing.

    Attributes:
        overlap: Share of a window that overlaps the next one.
        blend: Weight of a window's voxels: Gaussian (sigma an eighth of the window), constant, or
            nnU-Net's Gaussian, whose peak is voxel n // 2 of n, or MONAI's, which is nowhere below
            a thousandth.
        average: Values that are averaged over windows, mirror images and members, and interpolated
            on the way to the grid of the image. Probabilities are taken of the mean logits.
        placement: Windows evenly spread, or at fixed steps as MONAI places them.
        mirror_axes: Axes of test-time flips.
        tta: Average over the mirror images unless the user decides otherwise.
        keep_largest: Label values of which only the largest component is kept.
        keep_largest_together: Groups of label values; of each group only the largest component is
            kept, joined across edges and corners too, before anything else.
        remove_small: By label value, the voxels that a component needs to stay.
        remove_small_ml: The same in millilitres, for volumes of any spacing.
        fill_holes: Label values that take the background they enclose.
        skip_empty_windows: Skip windows without a body in them.
        allow_int8: Let engine `auto` use the package's int8 network, if it was accepted.
    """

    overlap: Annotated[float, Field(ge=0.0, lt=1.0)] = 0.5
    blend: Literal["gaussian", "constant", "monai", "nnunet"] = "gaussian"
    average: Literal["probabilities", "logits"] = "probabilities"
    placement: Literal["even", "fixed"] = "even"
    mirror_axes: tuple[NonNegativeInt, ...] = ()
    tta: bool = False
    keep_largest: tuple[PositiveInt, ...] = ()
    keep_largest_together: tuple[tuple[PositiveInt, ...], ...] = ()
    remove_small: dict[PositiveInt, PositiveInt] = Field(default_factory=dict)
    remove_small_ml: dict[PositiveInt, PositiveFloat] = Field(default_factory=dict)
    fill_holes: tuple[PositiveInt, ...] = ()
    skip_empty_windows: bool = False
    allow_int8: bool = True

    @model_validator(mode="after")
    def _require_probabilities(self) -> Inference:
        if self.skip_empty_windows and self.average == "logits":
            raise ValueError(
                "skip_empty_windows gives windows without a body to the background, which has no "
                "logit: average probabilities, or leave it out"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_defaults(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave later fields out: hashes of plans without them stay as they were."""
        fields: dict[str, Any] = serialize(self)
        if self.average == "probabilities":
            fields.pop("average", None)
        if self.placement == "even":
            fields.pop("placement", None)
        if self.allow_int8:
            fields.pop("allow_int8", None)
        for name in ("tta", "keep_largest_together", "remove_small_ml"):
            if not fields.get(name):
                fields.pop(name, None)
        return fields


class Plan(Frozen):
    """Everything that was decided from the data.

    Attributes:
        name: Name of the image set.
        spatial_dims: 2 or 3.
        channels: Input channels, in order.
        labels: Structures, in the order of the network's classes 1, 2, ... or of its regions.
        ignore_value: Label value of unannotated voxels, which nothing is learned from.
        preprocessing: From an image as stored to the network's input.
        patch_size: Patch (and window) along each of the network's axes, in voxels at the target
            spacing.
        slice_axis: Axis of the reoriented volume that a 2D network walks along, slice by slice;
            absent for 3D networks and for rasters.
        refines: The networks are the second stage of a cascade: they refine the label map of a
            first stage, which is one more channel a structure of their input.
        networks: How each architecture is built, by name.
        recipe: How each is trained.
        inference: How a volume is segmented.
        fingerprint: The facts the plan was made from.
        planned_for: Time, device and cores of the training that the plan was made for; empty in
            plans written before they existed.
        reasons: Why, by dotted field name; written as comments into `plan.yaml`.
        schema_version: Version of this form.
    """

    name: str
    spatial_dims: Literal[2, 3]
    channels: tuple[Channel, ...]
    labels: tuple[LabelClass, ...]
    ignore_value: LabelValue | None = None
    preprocessing: Preprocessing
    patch_size: Axes
    slice_axis: Annotated[int, Field(ge=0, le=2)] | None = None
    refines: bool = False
    networks: dict[str, NetworkPlan]
    recipe: Recipe
    inference: Inference = Inference()
    fingerprint: dict[str, Any] = Field(default_factory=dict)
    planned_for: dict[str, Any] = Field(default_factory=dict)
    reasons: dict[str, str] = Field(default_factory=dict)
    schema_version: int = SCHEMA_VERSION

    @model_validator(mode="after")
    def _require_encodable(self) -> Plan:
        if fault := self.encoding.fault():
            raise ValueError(fault)
        return self

    @model_validator(mode="after")
    def _require_volumes_for_millilitres(self) -> Plan:
        if self.inference.remove_small_ml and self.spatial_dims == 2 and self.slice_axis is None:
            raise ValueError(
                "inference.remove_small_ml is for volumes, and this plan is for 2D images: state "
                "pixels by inference.remove_small"
            )
        return self

    @model_validator(mode="after")
    def _require_images_alone_for_monai(self) -> Plan:
        if self.refines and self.recipe.extra_augmentation:
            raise ValueError(
                "recipe.extra_augmentation would change the intensities of the first stage's label "
                "map, which this plan refines: leave it out"
            )
        return self

    @model_serializer(mode="wrap")
    def _without_none(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave unused later fields out: hashes of plans without them stay as they were."""
        fields: dict[str, Any] = serialize(self)
        for name, default in (("ignore_value", None), ("refines", False)):
            if getattr(self, name) == default:
                fields.pop(name, None)
        return fields

    @property
    def encoding(self) -> LabelEncoding:
        """Encoding of the labels as channels of a network."""
        return LabelEncoding(self.labels, self.ignore_value)

    @property
    def num_classes(self) -> int:
        """Channels of the network's output: the classes with background, or the regions."""
        return self.encoding.num_channels

    @property
    def in_channels(self) -> int:
        """Channels of an image."""
        return len(self.channels)

    @property
    def network_channels(self) -> int:
        """Channels of the input: an image on each scale needed, then a first stage's label map."""
        images = len(self.channels) * (1 + len(self.preprocessing.more_intensities))
        return images + self.label_channels

    @property
    def label_channels(self) -> int:
        """Channels of the first stage's label map in the network's input: one a structure."""
        return len(self.labels) if self.refines else 0

    def __repr__(self) -> str:
        """Name, dimensions, spacing, patch, classes and networks in one line."""
        patch = "x".join(map(str, self.patch_size))
        spacing = "x".join(f"{edge:.3g}" for edge in self.preprocessing.spacing_mm)
        return (
            f"Plan({self.name!r}: {self.spatial_dims}D, patch {patch} at {spacing} mm, "
            f"{self.in_channels} channel{'s' * (self.in_channels != 1)}, "
            f"{self.num_classes} classes; networks "
            f"{', '.join(self.networks)})"
        )

    __str__ = __repr__
