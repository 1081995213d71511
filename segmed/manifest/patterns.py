"""File patterns: `sub-*/{FLAIR,T1}.nii.gz` finds files, names their channel and their case.

`*` and `?` match letters within one name, `**` any folders, `[..]` for one of some letters.
Braces list the channels (or the structures of a label); braces of file endings only list endings.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from segmed.errors import UsageError
from segmed.formats import IMAGE_SUFFIXES, stem_of

ENDING_PARTS = {suffix.lstrip(".") for suffix in IMAGE_SUFFIXES} | {
    *IMAGE_SUFFIXES,
    "gz",
    ".gz",
    "",
}
TOKEN = re.compile(r"\*\*/?|\*|\?|\[[^\]]+\]|\{[^{}]*\}|[^*?\[{]+|.")
SEPARATORS = "_-. "


@dataclass(frozen=True)
class PatternMatch:
    """One file that a pattern found.

    Attributes:
        path: The file or folder, relative to the source.
        key: The text that each `*` and `**` matches, in order.
        choice: The word of the braces; empty without braces.
        pieces: Folder and file names that contain a wildcard, without choice and suffix.
    """

    path: str
    key: tuple[str, ...]
    choice: str
    pieces: tuple[str, ...]

    @property
    def case(self) -> str:
        """Name of the case: the pieces, without those that a later one repeats."""
        later = [
            piece
            for number, piece in enumerate(self.pieces)
            if piece and not any(piece in other for other in self.pieces[number + 1 :])
        ]
        return "_".join(later) or stem_of(Path(self.path))


class Pattern:
    """A pattern of files below a folder.

    Args:
        text: The pattern, with forward slashes.
        option: Name of the option that gave it, for messages.

    Attributes:
        choices: The words of its braces, in order.
        num_wildcards: Number of its `*` and `**`.

    Raises:
        UsageError: It is empty, absolute, or has two pairs of braces that list names.
    """

    def __init__(self, text: str, option: str = "--image") -> None:
        self.text = text.removeprefix("./")
        self.choices: tuple[str, ...] = ()
        self.num_wildcards = 0
        if not self.text or self.text.startswith("/") or ".." in Path(self.text).parts:
            raise UsageError(f"{option} {text!r}: give a pattern relative to the source folder")
        if self.text.count("{") != self.text.count("}"):
            raise UsageError(f"{option} {text!r}: a brace has no partner")
        parts = self.text.split("/")
        self._num_pieces = 0
        self._expression = re.compile("".join(self._component(parts, option)))

    def _component(self, parts: list[str], option: str) -> Iterator[str]:
        for number, part in enumerate(parts):
            last = number == len(parts) - 1
            if part == "**":
                yield f"(?P<p{self._num_pieces}>(?P<s{self.num_wildcards}>(?:[^/]+/)*))"
                self._num_pieces += 1
                self.num_wildcards += 1
                continue
            begun = self.num_wildcards
            inner = "".join(self._part(text, option) for text in TOKEN.findall(part))
            if self.num_wildcards > begun:
                inner = f"(?P<p{self._num_pieces}>{inner})"
                self._num_pieces += 1
            yield inner if last else inner + "/"

    def _part(self, text: str, option: str) -> str:
        if text in {"*", "**"}:
            self.num_wildcards += 1
            return f"(?P<s{self.num_wildcards - 1}>[^/]*)"
        if text == "?":
            return "[^/]"
        if text.startswith("[") and text.endswith("]"):
            return "[^" + text[2:] if text[1] == "!" else text
        if not text.startswith("{"):
            return re.escape(text)
        words = [word.strip() for word in text[1:-1].split(",")]
        either = "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))
        if set(words) <= ENDING_PARTS:
            return f"(?:{either})"
        if self.choices:
            raise UsageError(
                f"{option} {self.text!r}: only one pair of braces can list names, "
                f"{{{','.join(self.choices)}}} does already"
            )
        if len(set(words)) < len(words) or not all(words):
            raise UsageError(f"{option} {self.text!r}: the braces list a name twice, or none")
        self.choices = tuple(words)
        return f"(?P<choice>{either})"

    def search(self, paths: Iterable[str]) -> list[PatternMatch]:
        """Return the relative paths that match, in their order."""
        found = ((path, self._expression.fullmatch(path)) for path in paths)
        return [self._found(path, match) for path, match in found if match]

    def _found(self, path: str, match: re.Match[str]) -> PatternMatch:
        choice = match["choice"] if self.choices else ""
        start, end = match.span("choice") if self.choices else (0, 0)
        pieces = []
        for number in range(self._num_pieces):
            first, last = match.span(f"p{number}")
            text = path[first:last]
            if first <= start < end <= last:
                text = path[first:start] + path[end:last]
            if last == len(path):
                text = stem_of(Path(text)) if text else ""
            pieces.append(text.strip(SEPARATORS + "/").replace("/", "_"))
        key = tuple(match[f"s{number}"].strip("/") for number in range(self.num_wildcards))
        return PatternMatch(path, key, choice, tuple(pieces))

    @property
    def plain_name(self) -> str:
        """Name of the one channel of a pattern without braces, from its last part."""
        last = re.sub(r"\*|\?|\[[^\]]+\]|\{[^{}]*\}", "", self.text.split("/")[-1])
        return stem_of(Path(last)).strip(SEPARATORS)
