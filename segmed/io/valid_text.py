"""Text of JSON and YAML that every program can write again: no halves of a surrogate pair."""

from __future__ import annotations

import re

_SURROGATE = re.compile("[\ud800-\udfff]")


def require_valid_text(content: object) -> None:
    """Raise ValueError if a text anywhere in parsed JSON or YAML is not Unicode.

    JSON and YAML can spell half of a surrogate pair (U+D800 to U+DFFF), which UTF-8 cannot encode.

    Args:
        content: Plain values, lists and mappings.

    Raises:
        ValueError: A text or key has such a half; the message shows it as an escape.
    """
    pending = [content]
    while pending:
        value = pending.pop()
        if isinstance(value, str) and (found := _SURROGATE.search(value)):
            raise ValueError(
                f"text {value!a} has half of a surrogate pair ({found.group()!a}), which is no "
                "Unicode; write the character itself"
            )
        if isinstance(value, dict):
            pending += [*value.keys(), *value.values()]
        elif isinstance(value, list | tuple):
            pending += value
