"""DICOM modality of a channel by the words of its name."""

from __future__ import annotations

import re
from dataclasses import dataclass

from segmed.naming.words import vocabulary, words_of

CT = vocabulary("ct ncct cect ldct hrct mdct qct kvct cta ccta tdm")
CT_IN_DOUBT = vocabulary("cbct mvct ctp dect ctac spectct petct tac")
"""Words of X-ray tomography whose values need not be Hounsfield units."""

MR = vocabulary(
    "mr mri mrt irm rm rmn rnm nmr mra cmr fmri flair dwi adc swi pd pdw stir mprage tof lge dti "
    "trace dixon space ciss fiesta bssfp tirm t2star hbv gre"
)
MR_IN_DOUBT = vocabulary("rm space trace fa b0 cine perf dce asl")
"""Words of magnetic resonance that mean other things as well."""

MR_WEIGHTING = re.compile(r"t[12](?!\d).*|pdw?")
"""`t1`, `t2w`, `t1ce`, `t1post`, but not the vertebra `t12`."""

PT = vocabulary("pet pt suv fdg psma")
US = vocabulary("ultrasound sonography bmode")
US_IN_DOUBT = vocabulary("us echo")

CORRECTION = "--modality"
"""Option of `segmed manifest build` that states modalities."""


@dataclass(frozen=True)
class ModalityGuess:
    """Modality by the name of a channel.

    Attributes:
        modality: `CT`, `MR`, `PT`, `US`, or `OT` where the name says nothing or contradicts itself.
        why: The reason, in one clause.
        is_sure: False where the name says nothing, contradicts itself, or may mean something else.
    """

    modality: str
    why: str
    is_sure: bool


def guess_modality(name: str) -> ModalityGuess:
    """Modality by the words of a channel's name.

    Whole words decide: `act`, `direct` and `spectrum` name no modality. A name with words of two
    modalities (`T1CT`, `PET/CT`) is left at `OT`, whose intensities are scaled image by image.

    Args:
        name: Such as `CT`, `T1post`, `PET/CT`.
    """
    said: dict[str, tuple[str, bool]] = {}
    for word in words_of(name):
        for modality, is_sure in _says(word):
            known = said.get(modality)
            if known is None or (is_sure and not known[1]):
                said[modality] = (word, is_sure)
    if not said:
        return ModalityGuess("OT", f"{name!r} names no modality", False)
    if len(said) > 1:
        words = " and ".join(f"{m} ({word!r})" for m, (word, _) in sorted(said.items()))
        return ModalityGuess("OT", f"{name!r} says both {words}", False)
    ((modality, (word, is_sure)),) = said.items()
    hedge = "" if is_sure else ", which may mean something else"
    return ModalityGuess(modality, f"{name!r} has the word {word!r}{hedge}", is_sure)


def _says(word: str) -> list[tuple[str, bool]]:
    """The modalities that a word names, each with whether it surely does."""
    said = []
    if word in {"petct", "spectct"}:
        return [("CT", False), ("PT", False)]
    if word in CT or word in CT_IN_DOUBT:
        said.append(("CT", word in CT))
    if word in MR or word in MR_IN_DOUBT:
        said.append(("MR", word not in MR_IN_DOUBT))
    elif MR_WEIGHTING.fullmatch(word):
        said.append(("MR", True))
        if re.fullmatch(r"t[12]ct", word):
            said.append(("CT", False))
    if word in PT:
        said.append(("PT", True))
    if word in US or word in US_IN_DOUBT:
        said.append(("US", word in US))
    return said
