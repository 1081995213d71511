"""JSON files read strictly: neither NaN nor a key twice; every fault in one line."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from segmed.errors import ManifestError
from segmed.io.valid_text import require_valid_text


def read_object(path: Path, kind: str) -> dict[str, Any]:
    """The object of a JSON file, with or without a byte order mark.

    Args:
        path: The file.
        kind: Name of such files in messages, such as `manifest`.

    Raises:
        ManifestError: It is not JSON, or not an object. NaN and Infinity are refused, and a key
            that occurs twice in one object is refused.
        FileNotFoundError: It does not exist.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
        content = json.loads(text, parse_constant=_refuse_number, object_pairs_hook=_unique)
        require_valid_text(content)
    except FileNotFoundError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        # ValueError: no UTF-8, no JSON, no Unicode, or a number of thousands of digits.
        detail = " ".join(str(error).split())
        raise ManifestError(f"{kind} {path} cannot be read as JSON: {detail}") from error
    if not isinstance(content, dict):
        raise ManifestError(f"{kind} {path} is not a JSON object but {kind_in_words(content)}")
    return content


def kind_in_words(value: Any) -> str:
    """Kind of a JSON value, with its article."""
    kinds = {str: "text", list: "a list", dict: "an object", bool: "true or false"}
    return kinds.get(type(value), "nothing" if value is None else "a number")


def _refuse_number(name: str) -> None:
    raise ValueError(f"{name} is not a JSON number")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"key {twice!r} occurs twice in one object")
    return found
