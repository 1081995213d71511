"""Sides of the body in the names of structures, in the usual languages and spellings."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from segmed.naming.words import chunks_of, plain, vocabulary, words_of

CLEAR = {
    "left": (
        "left lefts lft links linke linker linkes linken linkem sinistra sinistro sinister "
        "sinistrum sinistri sinistrae sinistre gauche gauches izquierda izquierdo izquierdas "
        "izquierdos esquerda esquerdo esquerdas esquerdos vanster vanstra venstre vasen lewy lewa "
        "lewe levy leva leve bal lh lhs левый левая левое левые левого левой αριστερο αριστερος "
        "αριστερη stanga stangul stang ліва лівий ліве лівої ляв лява ляво леви леве лијеви лијева "
        "lijevi lijeva lijevo ľavý ľavá ľavé vasemman vasak kreisais kreisā kairė kairys kairioji "
        "esquerre esquerra trái kiri چپ أيسر الأيسر يسرى اليسرى يسار اليسار שמאל שמאלי שמאלית "
        "왼쪽 좌측"
    ),
    "right": (
        "right rights rgt rechts rechte rechter rechtes rechten rechtem destra destro dextra "
        "dexter dextrum dextri dextrae dextro droit droite droits droites derecha derecho derechas "
        "derechos direita direito direitas direitos hoger hogra hojre hoyre høyre højre oikea "
        "prawy prawa prawe pravy prava prave jobb rh rhs правый правая правое правые правого "
        "правой δεξιο δεξιος δεξια δεξι dreapta drept dreptul права правий праве правої десен "
        "дясна дясно десни десна десно desni desna desno oikean parem labais labā dešinė dešinys "
        "dešinioji dret dreta dereito phải kanan راست أيمن الأيمن يمنى اليمنى يمين اليمين "
        "ימין ימני ימנית "
        "오른쪽 우측"
    ),
}
"""Words that name a side by themselves."""

SHORT = {
    "left": "l lt sin sn sx izq izqda izda esq lv la lul lll lad lca lcx lvot lmca lpa "
    "sol gche gau",
    "right": "r rt dex dext dx dcha drcha rv ra rul rml rll rca rvot rpa sağ dte dt",
}
"""Abbreviations that name a side in most names, and something else in some."""

PAIRED = (("li", "re"), ("os", "od"), ("g", "d"), ("i", "d"), ("e", "d"), ("s", "d"),
          ("v", "h"), ("va", "ho"), ("v", "o"), ("b", "j"), ("l", "p"), ("л", "п"),
          ("izq", "der"), ("esq", "dir"), ("sol", "sag"), ("gau", "dro"), ("lo", "ro"),
          ("ln", "rn"))  # fmt: skip
"""Short words that name sides where both occur in names that are otherwise equal."""

JOINED = ("left", "right", "sinistr", "gauche", "izquierd", "derech", "esquerd", "direit", "rechts",
          "rechter", "linker", "links", "dextr")  # fmt: skip
"""Beginnings and ends of words written as one, such as `leftkidney`."""

NOT_JOINED = vocabulary("bright upright cleft blinker")
"""Words that begin or end so by chance."""

SIGNS = {
    "left": ("左", "좌", "ซ้าย", "बाय", "बाएँ"),
    "right": ("右", "우", "ขวา", "दाय", "दाहिन"),
}
"""Signs of scripts without spaces between words, or whose vowels are not letters of their own."""

ALONG = vocabulary(
    "upper lower superior inferior top bottom anterior posterior cranial caudal dorsal ventral "
    "nasal temporal front back above below oben unten vorne hinten haut bas superieur inferieur "
    "superiore inferiore anteriore posteriore arriba abajo"
)
"""Words for directions that only a picture without an anatomical frame can confuse."""

NUMBERED = re.compile(r"(label|class|structure|region|roi|segment|value|object|klasse)?[\W_]*\d+")
"""Names that say nothing but a number."""

COUNTED = re.compile(r"(.*[^\W\d_]{3,})[\W_]*\d{1,3}")
"""A structure and a number, such as `kidney_1` or `tooth 21`, but not the vertebra `L4`."""

_PARTNERS: dict[str, list[str]] = {}
for _one, _other in PAIRED:
    _PARTNERS.setdefault(_one, []).append(_other)
    _PARTNERS.setdefault(_other, []).append(_one)

_ENDS = frozenset(_PARTNERS)

_WORDS = {side: (vocabulary(CLEAR[side]), vocabulary(SHORT[side])) for side in ("left", "right")}


@dataclass(frozen=True)
class SideGuess:
    """Evidence that the structures of a set distinguish the sides of the body.

    Attributes:
        name: A structure's name.
        word: The word in it.
        why: One clause that says it, with the name.
        is_sure: False where the word may mean something else.
    """

    name: str
    word: str
    why: str
    is_sure: bool


def guess_sides(names: Sequence[str], *, flat: bool = False) -> SideGuess | None:
    """The best evidence in the names of structures that mirroring would mix some of them up.

    Args:
        names: Names of all structures of a set.
        flat: Also look for words such as `upper`, which matter in pictures that are mirrored along
            both axes.

    Returns:
        The evidence, the surest first; None where no name distinguishes sides.
    """
    found = [guess for name in names if (guess := _in_one(name)) is not None]
    sure = next((guess for guess in found if guess.is_sure), None) or _in_pairs(names)
    if sure is not None:
        return sure
    if found:
        return found[0]
    if (alone := _without_partner(names)) is not None:
        return alone
    return (_along(names) if flat else None) or _unnamed(names) or _counted(names)


def _in_one(name: str) -> SideGuess | None:
    """A side that one name states."""
    if (signed := _by_sign(name)) is not None:
        return signed
    words = words_of(name)
    for clear in (True, False):
        for side, vocabularies in _WORDS.items():
            vocabulary = vocabularies[0 if clear else 1]
            for word in words:
                if word in vocabulary:
                    hedge = "" if clear else " (in doubt: the word is short)"
                    return SideGuess(name, word, f"{name!r} says {side} by {word!r}{hedge}", clear)
    for chunk in chunks_of(name):
        lower = chunk.casefold().strip("0123456789")
        for part in () if lower in NOT_JOINED else JOINED:
            if lower.startswith(part) or lower.endswith(part):
                why = f"{name!r} may name a side by {part!r} in {chunk!r} (in doubt)"
                return SideGuess(name, part, why, False)
    return None


def _by_sign(name: str) -> SideGuess | None:
    """A side by a sign anywhere in a name."""
    for side, signs in SIGNS.items():
        for sign in map(plain, signs):
            if sign in plain(name):
                return SideGuess(name, sign, f"{name!r} says {side} by {sign!r}", True)
    return None


def _in_pairs(names: Sequence[str]) -> SideGuess | None:
    """Two names that are equal but for the letters or words of the two sides.

    The other spelling of each name is looked up, not compared with all: sets have thousands.
    """
    texts = {plain(name).casefold(): name for name in reversed(names)}
    spelled = [tuple(_spelled(name)) for name in names]
    words_of_names = {words: name for name, words in reversed([*zip(names, spelled, strict=True)])}
    for name, words in zip(names, spelled, strict=True):
        by_letter = (texts.get(text) for text in _other_letters(plain(name).casefold()))
        by_word = (words_of_names.get(others) for others in _other_words(words))
        for other in (*by_letter, *by_word):
            if other is not None:
                why = f"{name!r} and {other!r} differ in a sign of the side alone"
                return SideGuess(name, "", why, True)
    return None


def _without_partner(names: Sequence[str]) -> SideGuess | None:
    """A name that ends in one word of a pair, such as `Niere_re`, and has no like: in doubt.

    Names that count up (`type_h`, `type_i`, `type_k`) have likes.
    """
    spelled = [tuple(_spelled(name)) for name in names]
    stems = Counter(words[:-1] for words in spelled)
    for name, words in zip(names, spelled, strict=True):
        if len(words) > 1 and words[-1] in _ENDS and stems[words[:-1]] == 1:
            why = f"{name!r} may name a side by {words[-1]!r} (in doubt: the word is short)"
            return SideGuess(name, words[-1], why, False)
    return None


def _spelled(name: str) -> list[str]:
    """The words of a name in one reading: at separators and camel case."""
    words = []
    for chunk in chunks_of(name):
        parts = [word for word in words_of(chunk) if word != chunk.casefold()]
        words += parts or [chunk.casefold()]
    return words


def _other_letters(text: str) -> Iterator[str]:
    """A text with one `l` for an `r` or the reverse, where the letter may be a side."""
    for at, letter in enumerate(text):
        # Inside a word the letters are part of it: `collar` is not a side of `corlar`.
        is_end = at in {0, len(text) - 1}
        if letter in "lr" and (is_end or not (text[at - 1].isalpha() and text[at + 1].isalpha())):
            yield text[:at] + ("r" if letter == "l" else "l") + text[at + 1 :]


def _other_words(words: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Words with one of them changed to that of the other side."""
    for at, word in enumerate(words):
        # `VeinLI`, `VeinRI`: a word of its own by camel case alone, that begins with the side.
        for other in (*_PARTNERS.get(word, ()), *_other_letters(word)):
            yield (*words[:at], other, *words[at + 1 :])


def _along(names: Sequence[str]) -> SideGuess | None:
    for name in names:
        for word in words_of(name):
            if word in ALONG:
                why = f"{name!r} names a direction by {word!r}, which mirrored pictures mix up"
                return SideGuess(name, word, why, False)
    return None


def _unnamed(names: Sequence[str]) -> SideGuess | None:
    """Two structures or more without names: they may be the two sides of one."""
    numbered = [name for name in names if NUMBERED.fullmatch(name.strip().casefold())]
    if len(numbered) < 2:
        return None
    why = (
        f"names such as {numbered[0]!r} do not say whether sides are separate structures (in doubt)"
    )
    return SideGuess(numbered[0], "", why, False)


def _counted(names: Sequence[str]) -> SideGuess | None:
    """Structures of one name distinguished by numbers: they may be the two sides of one."""
    first: dict[str, str] = {}
    for name in names:
        if found := COUNTED.fullmatch(plain(name).strip().casefold()):
            other = first.setdefault(found[1], name)
            if other != name:
                why = f"{other!r} and {name!r} are distinguished by a number alone (in doubt)"
                return SideGuess(other, "", why, False)
    return None
