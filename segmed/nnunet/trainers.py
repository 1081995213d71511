"""Trainers of nnU-Net that change how a network learns, but not what it computes."""

from __future__ import annotations

import re

from segmed.errors import PackageError

KNOWN = re.compile(
    r"nnUNetTrainer"
    r"(Benchmark|DA5|DA5ord0|DA5Segord0|NoDA|NoMirroring|CosAnneal|Adan|AdanCosAnneal|Adam"
    r"|VanillaAdam|DiceLoss|DiceCELoss|DiceCELoss_noSmooth|Topk10Loss|Topk10LossLS01"
    r"|DiceTopK10Loss|CELoss|NoDeepSupervision)?"
    r"(1en1|1en3|3en4)?"
    r"(_(\d+epochs?|1500ep|NoMirroring|DASegOrd0|noDummy2DDA|onlyMirror01|DA5|warmup|noDataLoading"
    r"|probabilisticOversampling|\d{3}|noSmooth))*"
)
"""Trainers of nnunetv2 2.8.1 that change loss, optimiser, length, augmentation or mirroring."""


BATCH_NORM = "nnUNetTrainerBN"
"""The trainer that puts batch norm where `plans.json` names another norm."""


def require_known_trainer(name: str) -> None:
    """Refuse a trainer that may build another network or preprocess differently.

    Raises:
        PackageError: The trainer is not known here.
    """
    if name != BATCH_NORM and KNOWN.fullmatch(name) is None:
        raise PackageError(
            f"trainer {name} is not known here and may build another network; those of nnU-Net "
            "that change only loss, optimiser, length, augmentation or mirroring are"
        )
