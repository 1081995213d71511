"""Modality and body part of a DICOM image against the channels of a model.

An image of another modality, such as a CT given to a model of MR, is refused by name. Where one
side does not state its modality (`OT`, nothing), the image is accepted.
"""

from __future__ import annotations

from segmed.errors import ImageError
from segmed.io.read import source_of
from segmed.metatensor import MetaTensor
from segmed.plan.schema import Plan
from segmed.structures import Channel

SILENT = frozenset({"", "OT"})
"""Modalities that say nothing."""

SAME_MODALITIES = (frozenset({"CR", "DX", "DR", "RG"}), frozenset({"US", "IVUS"}))
"""Modalities that are written in either way."""

REGIONS = {
    "head": ("HEAD", "BRAIN", "SKULL", "ORBIT", "FACE", "PITUITAR"),
    "neck": ("NECK", "THYROID", "LARYN"),
    "chest": ("CHEST", "THORAX", "LUNG", "HEART", "CARDIAC", "BREAST"),
    "abdomen": ("ABD", "LIVER", "KIDNEY", "PANCREAS", "SPLEEN", "STOMACH"),
    "pelvis": ("PELV", "HIP", "PROSTATE", "BLADDER", "UTERUS"),
    "arm": ("SHOULDER", "ARM", "ELBOW", "WRIST", "HAND", "FINGER"),
    "leg": ("THIGH", "KNEE", "LEG", "ANKLE", "FOOT", "TOE"),
}
"""Regions by parts of BodyPartExamined, which names them in many ways (DICOM PS3.16, annex L)."""


def require_fitting(image: MetaTensor, plan: Plan) -> None:
    """Check that an image read from DICOM is of the kind that each channel of a plan was made for.

    Args:
        image: As it was read; images from other formats say nothing, and are taken.
        plan: The plan of the model.

    Raises:
        ImageError: `other_modality` or `other_body_part`.
    """
    first = source_of(image)
    if first is None:
        return
    sources = [first, *first.other_channels]
    for channel, source in zip(plan.channels, sources, strict=False):
        reason, message = misfit(channel, source.modality, source.body_part)
        if reason:
            raise ImageError(message, reason=reason, paths=list(source.paths[:1]))


def misfit(channel: Channel, modality: str, body_part: str = "") -> tuple[str, str]:
    """Reason and message of an image that is not what a channel was made for; empty if it may be.

    Args:
        channel: The channel of the model.
        modality: DICOM modality of the image.
        body_part: BodyPartExamined of the image.
    """
    if _is_other_modality(channel.modality, modality):
        return "other_modality", (
            f"the series is {modality}, channel {channel.name!r} of the model takes "
            f"{channel.modality}; choose another series or model, or insist with --any-modality"
        )
    theirs, ours = regions_of(body_part), regions_of(channel.body_part)
    if theirs and ours and not theirs & ours:
        return "other_body_part", (
            f"the series shows {body_part}, channel {channel.name!r} of the model was trained on "
            f"{channel.body_part}; choose another series or model, or insist with --any-modality"
        )
    return "", ""


def _is_other_modality(one: str, other: str) -> bool:
    if one == other or one in SILENT or other in SILENT:
        return False
    return not any({one, other} <= same for same in SAME_MODALITIES)


def regions_of(body_part: str) -> frozenset[str]:
    """Regions of the body that a BodyPartExamined names; none for words that are not known."""
    text = body_part.upper()
    return frozenset(name for name, words in REGIONS.items() if any(word in text for word in words))
