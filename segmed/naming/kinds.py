"""Kind of a file or structure by its name: masks, and voxels that were not annotated."""

from __future__ import annotations

from segmed.naming.words import vocabulary, words_of

MASK = vocabulary(
    "mask masks maske masken masque seg segs segm segmentation segmentations segmentierung "
    "segmented label labels labelmap labelmaps annotation annotations groundtruth gt roi rois "
    "contour contours delineation lesionmask brainmask seglabel pseg autoseg dseg aseg msk truth "
    "maschera maschere mascara mascaras segmentacion segmentazione segmentacao parcellation wmparc"
)
"""Words of masks. `segmental`, `unmasked` and the labelling of arterial spins are none."""

NOT_MASK = vocabulary("asl pcasl pasl control tag labelling labeling spin")
"""Words of arterial spin labelling, whose images come as `label` and `control`."""

SPLITS = vocabulary("tr ts va train training test testing val validation manual automatic case")
"""Words beside those of masks in the name of a folder of masks, such as `labelsTr`."""

IGNORE = vocabulary("ignore ignored")
MAY_BE_IGNORED = vocabulary(
    "void unlabeled unlabelled unannotated unknown undefined dontcare exclude excluded uncertain "
    "ambiguous invalid ignorieren ignorer ignorar"
)


def has_mask_words(text: str) -> bool:
    """Return whether a file name or a series description calls its content a mask.

    Args:
        text: Such as `case3_seg`, `Tumor Mask`, `brainMask`.
    """
    words = set(words_of(text))
    if not words & MASK:
        return False
    return not (words & NOT_MASK and words & MASK <= {"label", "labels"})


def is_mask_folder(name: str) -> bool:
    """Return whether a folder is called by nothing but words of masks: `labelsTr`, `segmentations`.

    `segmentation_challenge` or `lung_seg` may contain images just as well.
    """
    if name.casefold() in MASK:
        return True
    words = set(words_of(name)) - {name.casefold()}
    return bool(words & MASK) and words <= MASK | SPLITS


def is_ignore_name(name: str) -> bool:
    """Return whether a label's name marks unannotated voxels, as nnU-Net's `ignore` does."""
    return bool(IGNORE & set(words_of(name)))


def may_mean_ignored(name: str) -> bool:
    """Return whether a label's name may mean that its voxels are not annotated, such as `void`."""
    return bool(MAY_BE_IGNORED & set(words_of(name)))
