"""Fingerprints of five public image sets, from what was published of them, not from their files.

Spacing and shape are those that nnU-Net trains at, axes in the order of segmed (right, anterior,
superior); sizes of structures are rounded from the anatomy. Only a plan is made from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from real_facts import real_facts

from segmed.manifest import Channel, LabelClass, Manifest
from segmed.plan.fingerprint import Fingerprint

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class PublishedSet:
    """Published facts of one set.

    Attributes:
        title: Name in tables.
        cases: Training cases.
        modalities: One a channel.
        spacing_mm: Median voxel edge along each axis.
        shape: Median size along each axis, in voxels.
        filled: The same without the zeros around the body.
        structures: Extent and thickness of each structure, in mm.
    """

    title: str
    cases: int
    modalities: tuple[str, ...]
    spacing_mm: Triple
    shape: Triple
    structures: dict[str, tuple[Triple, Triple]]
    filled: Triple | None = None


def _organ(x: float, y: float, z: float, share: float = 0.4) -> tuple[Triple, Triple]:
    """An organ of this extent; a line through it is this share of the extent long."""
    return (x, y, z), (share * x, share * y, share * z)


PUBLISHED = {
    "lits": PublishedSet(
        "LiTS", 131, ("CT",), (0.768, 0.768, 1.0), (512, 512, 432),
        {"liver": _organ(230, 190, 190), "tumour": _organ(80, 75, 70, 0.2)},
    ),
    "kits23": PublishedSet(
        "KiTS23", 489, ("CT",), (0.781, 0.781, 1.0), (512, 512, 320),
        {"kidney": _organ(80, 90, 130), "tumour": _organ(75, 75, 75), "cyst": _organ(40, 40, 40)},
    ),
    "brats": PublishedSet(
        "BraTS", 1251, ("MR",) * 4, (1.0, 1.0, 1.0), (240, 240, 155),
        {"oedema": _organ(90, 100, 80, 0.15), "core": _organ(50, 55, 45, 0.2),
         "enhancing": _organ(55, 60, 50, 0.1)},
        filled=(140, 171, 137),
    ),
    "amos": PublishedSet(
        "AMOS", 200, ("CT",), (0.713, 0.713, 2.0), (512, 512, 104),
        {
            "spleen": _organ(90, 100, 110), "right_kidney": _organ(65, 70, 110),
            "left_kidney": _organ(65, 70, 110), "gallbladder": _organ(45, 45, 60),
            "oesophagus": _organ(30, 35, 160, 0.5), "liver": _organ(230, 190, 190),
            "stomach": _organ(120, 120, 130), "aorta": _organ(45, 70, 220, 0.4),
            "vena_cava": _organ(40, 50, 200, 0.5), "pancreas": _organ(140, 80, 90, 0.2),
            "right_adrenal": _organ(25, 30, 35, 0.2), "left_adrenal": _organ(25, 30, 35, 0.2),
            "duodenum": _organ(90, 80, 110, 0.25), "bladder": _organ(90, 80, 80),
            "prostate_uterus": _organ(60, 60, 60),
        },
    ),
}  # fmt: skip


def published_facts(name: str) -> tuple[str, Manifest, Fingerprint]:
    """Title, a manifest without cases, and facts of a published set (of hippocampus: real ones)."""
    if name not in PUBLISHED:
        return ("Hippocampus", *real_facts(name))
    known = PUBLISHED[name]
    manifest = Manifest(
        name=name,
        labels=tuple(LabelClass(name=n, value=v) for v, n in enumerate(known.structures, 1)),
        channels=tuple(
            Channel(name=f"channel_{n}", modality=modality)
            for n, modality in enumerate(known.modalities)
        ),
        training=(),
        root=Path(),
    )
    filled = known.filled or known.shape
    share = 1 - filled[0] * filled[1] * filled[2] / (
        known.shape[0] * known.shape[1] * known.shape[2]
    )
    whole = tuple(int(n) for n in known.shape)
    intensity = {"mean": 100.0, "std": 60.0, "p00_5": -150.0, "p99_5": 300.0}
    return known.title, manifest, Fingerprint(
        num_cases=known.cases,
        is_raster=False,
        median_spacing_mm=known.spacing_mm,
        median_shape=known.shape,
        median_filled_shape=filled,
        min_shape=whole,
        max_shape=whole,
        orientations={"RAS": known.cases},
        class_share=(0.01,) * len(known.structures),
        intensity=(intensity,) * len(known.modalities),
        background_zero=share,
        structure_extent_mm=tuple(extent for extent, _ in known.structures.values()),
        structure_thickness_mm=tuple(thickness for _, thickness in known.structures.values()),
    )  # fmt: skip
