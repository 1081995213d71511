"""The acceptance record of an int8 network in words."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def in_words(record: Mapping[str, Any] | None) -> str:
    """One line of the record; empty without one.

    Args:
        record: JSON values of `segmed.package.int8.Int8Record`.
    """
    if record is None:
        return ""
    effects = "; ".join(
        f"{effect['label']} Dice {effect['dice_before']:.4f} to {effect['dice_after']:.4f} "
        f"(lower bound {effect['bound']:+.4f})"
        for effect in record["structures"]
    )
    return (
        f"accepted on {record['cases']} held-out cases: {effects}; "
        f"{record['labels_changed']:.2%} of labels changed"
        + ("; what is not int8 computes in bfloat16" if record.get("bf16") else "")
    )
