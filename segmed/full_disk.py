"""Recognise a full disk in the errors of all libraries that write."""

from __future__ import annotations

import errno
import re

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Numbers of system errors for a full disk, a spent quota and a file over its limit."""

WORDS = re.compile(
    r"no space left on device|disk is full|disk quota exceeded|\d+ requested and \d+ written"
    r"|unexpected pos \d+ vs \d+",
    flags=re.IGNORECASE,
)
"""Words of torch, safetensors, SQLite and numpy, which report no number."""

REPAIR = "no space left on the disk; free some, or give another folder by --out, and run again"


def is_full_disk(error: BaseException) -> bool:
    """True if an error, or one that it was raised from, reports a full disk."""
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in FULL:
            return True
        if WORDS.search(str(seen)):
            return True
        seen = seen.__cause__
    return False
