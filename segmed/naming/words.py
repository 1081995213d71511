"""Words of a name as people write names: separators, camel case, numbers, accents."""

from __future__ import annotations

import re
import unicodedata

_CHUNK = re.compile(r"[^\W_]+")
_CAMEL = (
    re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[^A-Za-z]+"),  # LKidney: l, kidney
    re.compile(r"[A-Z]{2,}|[A-Z]?[a-z]+|[^A-Za-z]+"),  # LTfemur, CTscan: lt, femur
)
_NUMBER_FIRST = re.compile(r"(\d+)([^\W\d_]+)")


def plain(text: str) -> str:
    """A text without accents and compatibility forms, its case kept: `Vänster` as `Vanster`."""
    parted = unicodedata.normalize("NFKD", text)
    bare = "".join(sign for sign in parted if not unicodedata.combining(sign))
    return unicodedata.normalize("NFC", bare)


def chunks_of(text: str) -> tuple[str, ...]:
    """The runs of letters and digits of a name, without accents, in order, their case kept."""
    return tuple(_CHUNK.findall(plain(text)))


def words_of(text: str) -> tuple[str, ...]:
    """The words of a name in lower case, in order, each once.

    A name is cut at separators, at camel case (where upper case runs into lower case, in both
    ways that can be meant) and after leading digits. Letters before digits stay with them, so that
    the vertebra `L4` is not the letter `l`.

    Args:
        text: Such as `FemurL`, `lt_femur`, `rib_left_3`, `T1 post`.

    Returns:
        Words, such as `("femurl", "femur", "l")`; of a chunk first the whole, then its parts.
    """
    found: dict[str, None] = {}
    for chunk in chunks_of(text):
        for word in (chunk, *_parts(chunk)):
            found.setdefault(word.casefold())
    return tuple(found)


def _parts(chunk: str) -> list[str]:
    """The parts of one chunk, in every reading."""
    if leading := _NUMBER_FIRST.fullmatch(chunk):
        return [leading[1], leading[2], *_parts(leading[2])]
    stem = chunk.rstrip("0123456789")
    parts = [part for reading in _CAMEL for part in reading.findall(stem)]
    if len(stem) > 1 and stem != chunk:
        parts += [stem, chunk[len(stem) :]]
    return parts if len(parts) > 1 else []


def vocabulary(words: str) -> frozenset[str]:
    """A set of words, as `words_of` gives them, from a text that lists them with spaces."""
    return frozenset(plain(words).casefold().split())
