"""Inputs of the fuzzers: valid files with damage, valid content with odd values."""

from __future__ import annotations

import copy
import os
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("SEGMED_FUZZ_EXAMPLES", "0"))
"""Examples a test; 0 for the short form of the default tests, which is the same each time."""

bounded = settings(
    max_examples=EXAMPLES or 20,
    derandomize=not EXAMPLES,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)

EXTREMES = [
    b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", bytes(8), b"\xff" * 8, b"\n", b"{", b"[", b'"', b"\\",
    b"&a", b"*a", b"!!python/object/apply:os.getcwd []", b": ", b"1e999", b"-", b"9" * 5000,
    b"[" * 3000, b"2024-99-99", b"0x_", b"\xc3", b"\xef\xbb\xbf", b"PK\x01\x02", b"../",
]  # fmt: skip

ODD_TEXTS = ["", "../../x", "/etc/passwd", "a\nb", "\0", "\ud800", "x" * 300, "*", "a.b", "#"]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-3, 300)
    | st.sampled_from([10**30, -(10**30), 10**400, 2**63])
    | st.floats()
    | st.sampled_from(ODD_TEXTS)
    | st.text(max_size=8)
)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=8,
)


@st.composite
def damaged(draw: st.DrawFn, sound: bytes) -> bytes:
    """The bytes of a file with one to four injuries."""
    data = bytearray(sound)
    for _ in range(draw(st.integers(1, 4))):
        where = draw(st.integers(0, max(len(data) - 1, 0)))
        match draw(st.sampled_from(["flip", "put", "insert", "cut", "remove", "repeat"])):
            case "flip" if data:
                data[where] ^= 1 << draw(st.integers(0, 7))
            case "put":
                extreme = draw(st.sampled_from(EXTREMES))
                data[where : where + len(extreme)] = extreme
            case "insert":
                data[where:where] = draw(st.sampled_from(EXTREMES) | st.binary(max_size=8))
            case "cut":
                del data[where:]
            case "remove":
                del data[where : where + draw(st.integers(1, 40))]
            case _:
                data[where:where] = data[where : where + draw(st.integers(1, 200))]
    return bytes(data)


@st.composite
def altered(draw: st.DrawFn, sound: Any) -> Any:
    """JSON-like content with one to three entries replaced, removed, renamed or added."""
    content = copy.deepcopy(sound)
    for _ in range(draw(st.integers(1, 3))):
        place = content
        for _ in range(draw(st.integers(0, 5))):
            inner = [key for key in keys_of(place) if isinstance(place[key], dict | list)]
            if not inner:
                break
            place = place[draw(st.sampled_from(inner))]
        keys = keys_of(place)
        action = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        if action == "add" and isinstance(place, dict):
            place[draw(st.sampled_from(ODD_TEXTS) | st.text(max_size=4))] = draw(values)
        elif action == "add":
            place.append(draw(values))
        elif keys and action == "remove":
            del place[draw(st.sampled_from(keys))]
        elif keys:
            place[draw(st.sampled_from(keys))] = draw(values)
    return content


def keys_of(place: Any) -> list[Any]:
    """The keys of a mapping, or the indices of a list."""
    return list(place) if isinstance(place, dict) else list(range(len(place)))


def require_one_line(error: Exception) -> None:
    """A refusal says what was wrong, in one line."""
    assert str(error)
    assert len(str(error).splitlines()) == 1
