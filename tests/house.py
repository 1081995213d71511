"""Budgets that no linter knows: file length, names that say nothing, heavy start-up.

Run by `make check`; prints each breach and exits with 1 if there is any.
"""

from __future__ import annotations

import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_LINES = 400
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "misc", "manager"}


def breaches() -> list[str]:
    """One line for each file that is too long or has a name that says nothing."""
    found = []
    for folder in ("segmed", "pipelines", "tests"):
        for path in sorted((REPOSITORY / folder).rglob("*.py")):
            name = path.relative_to(REPOSITORY)
            lines = len(path.read_text(encoding="utf-8").splitlines())
            if lines > MAX_LINES:
                found.append(f"{name}: {lines} lines, the limit is {MAX_LINES}: split it by idea")
            if path.stem in EMPTY_NAMES:
                found.append(f"{name}: a name that says nothing: call it after its idea")
    return found


def main() -> int:
    """Print the breaches."""
    found = breaches()
    for line in found:
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"house: {len(found)} breaches\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
