"""Guesses from names, by whole words: sides, modalities, subjects and kinds of files."""

from segmed.naming.kinds import (
    has_mask_words,
    is_ignore_name,
    is_mask_folder,
    may_mean_ignored,
)
from segmed.naming.modality import ModalityGuess, guess_modality
from segmed.naming.sides import SideGuess, guess_sides
from segmed.naming.subjects import SubjectGuess, guess_subjects
from segmed.naming.words import words_of

__all__ = [
    "ModalityGuess",
    "SideGuess",
    "SubjectGuess",
    "guess_modality",
    "guess_sides",
    "guess_subjects",
    "has_mask_words",
    "is_ignore_name",
    "is_mask_folder",
    "may_mean_ignored",
    "words_of",
]
