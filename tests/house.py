"""Budgets that no linter knows: file length, names that say nothing, a README that is behind.

Run by `make check`; prints each breach and exits with 1 if there is any. `--write` brings the tree
in the README up to date.
"""

from __future__ import annotations

import ast
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_LINES = 400
TREE_START = "<!-- tree: made by `python tests/house.py --write` -->"
TREE_END = "<!-- end of tree -->"
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
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(f"tests: {name} is the name of several files: pytest needs unique names")
    return found


def tree() -> str:
    """Every module of the two packages with the first line of its docstring."""
    lines = []
    for package in ("segmed", "pipelines"):
        folders: dict[Path, list[Path]] = {}
        for path in sorted((REPOSITORY / package).rglob("*.py")):
            folders.setdefault(path.parent.relative_to(REPOSITORY), []).append(path)
        for folder in sorted(folders):
            lines.append(f"{folder}/")
            width = max(len(path.name) for path in folders[folder])
            lines += [f"  {path.name:<{width}}  {_idea(path)}" for path in folders[folder]]
    return "\n".join(
        [
            "<details><summary>Every file in one line</summary>",
            "",
            "```",
            *lines,
            "```",
            "",
            "</details>",
        ]
    )


def _idea(path: Path) -> str:
    docstring = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return docstring.splitlines()[0] if docstring else ""


def readme_with_tree(readme: str) -> str:
    """The README with the tree between its two marks."""
    before, rest = readme.split(TREE_START)
    _, after = rest.split(TREE_END)
    return f"{before}{TREE_START}\n{tree()}\n{TREE_END}{after}"


def main() -> int:
    """Print the breaches, or with `--write` mend the README."""
    found = breaches()
    readme = REPOSITORY / "README.md"
    text = readme.read_text(encoding="utf-8")
    if readme_with_tree(text) != text:
        if "--write" in sys.argv:
            readme.write_text(readme_with_tree(text), encoding="utf-8")
        else:
            found.append("README.md: its tree is behind: python tests/house.py --write")
    for line in found:
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"house: {len(found)} breaches\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
