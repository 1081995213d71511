"""Budgets beyond the linter: lengths and names of files, class names, titles; other rules beside.

Run by `make check`; prints each breach and exits with 1 if there is any. `--write` brings the tree
in `docs/architecture.md` up to date.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from pathlib import Path

from house_language import clauses_for_titles, dialect
from house_processes import forks_beside_threads
from house_reached import unreached_names
from house_reasons import broad_handlers_without_reason, ignores_without_reason
from house_source import files_of, nodes_of, text_of
from house_text import texts_of_the_locale

REPOSITORY = Path(__file__).resolve().parent.parent
MAX_LINES = 400
TREE_START = "<!-- tree: made by `python tests/house.py --write` -->"
PAGE = REPOSITORY / "docs" / "architecture.md"
README_LINES = 90
"""The first page is read in minutes; what is looked up has pages of its own."""
TREE_END = "<!-- end of tree -->"
ROOMS_OF_TESTS_ALONE = {
    "benchmarks", "docker", "docs", "fuzz", "gpu", "hostile", "imports", "integration", "monai",
    "trials",
}  # fmt: skip
"""Folders of tests that mirror no package: they cut across the tree, or test other files."""
EMPTY_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "misc", "manager"}


def breaches() -> list[str]:
    """One line for each file that is too long or has a name that says nothing."""
    found = []
    for path in files_of(REPOSITORY, "segmed", "pipelines", "tests"):
        name = path.relative_to(REPOSITORY)
        lines = len(text_of(path).splitlines())
        if lines > MAX_LINES:
            found.append(f"{name}: {lines} lines, the limit is {MAX_LINES}: split it by idea")
        if path.stem in EMPTY_NAMES:
            found.append(f"{name}: a name that says nothing: call it after its idea")
    names = [path.name for path in (REPOSITORY / "tests").rglob("test_*.py")]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.append(f"tests: {name} is the name of several files: pytest needs unique names")
    for rule in RULES:
        found += rule(REPOSITORY)
    return found


def shared_class_names(root: Path) -> list[str]:
    """One line for each class name that several modules of the two packages define."""
    places: dict[str, list[str]] = {}
    for path in files_of(root, "segmed", "pipelines"):
        for node in nodes_of(path):
            if isinstance(node, ast.ClassDef):
                place = f"{path.relative_to(root)}:{node.lineno}"
                places.setdefault(node.name, []).append(place)
    return [
        f"class {name} is defined in {' and '.join(found)}: one name, one meaning"
        for name, found in sorted(places.items())
        if len(found) > 1
    ]


def unmirrored_rooms(root: Path) -> list[str]:
    """One line for each package without tests, and for each folder of tests without one."""
    found = []
    wanted = {}
    for package in ("segmed", "pipelines"):
        for path in (root / package).rglob("__init__.py"):
            room = path.parent.relative_to(root)
            wanted[room.relative_to("segmed") if package == "segmed" else room] = room
    there = {
        path.parent.relative_to(root / "tests") for path in (root / "tests").rglob("test_*.py")
    }
    for room in sorted(set(wanted) - there - {Path(), Path("pipelines")}):
        found.append(f"{wanted[room]}: no tests in tests/{room}: tests mirror the tree")
    for room in sorted(there - set(wanted)):
        if room.parts[0] not in ROOMS_OF_TESTS_ALONE:
            found.append(f"tests/{room}: mirrors no package: move its tests to where one is")
    return found


def tree() -> str:
    """Every module of the two packages with the first line of its docstring."""
    lines = []
    for package in ("segmed", "pipelines"):
        folders: dict[Path, list[Path]] = {}
        for path in files_of(REPOSITORY, package):
            folders.setdefault(path.parent.relative_to(REPOSITORY), []).append(path)
        for folder in sorted(folders):
            lines.append(f"{folder}/")
            width = max(len(path.name) for path in folders[folder])
            lines += [f"  {path.name:<{width}}  {_idea(path)}" for path in folders[folder]]
    return "\n".join(["```", *lines, "```"])


def _idea(path: Path) -> str:
    module = nodes_of(path)[0]
    assert isinstance(module, ast.Module)
    docstring = ast.get_docstring(module) or ""
    return docstring.splitlines()[0] if docstring else ""


def page_with_tree(page: str) -> str:
    """The page with the tree between its two marks."""
    before, rest = page.split(TREE_START)
    _, after = rest.split(TREE_END)
    return f"{before}{TREE_START}\n{tree()}\n{TREE_END}{after}"


RULES: tuple[Callable[[Path], list[str]], ...] = (
    clauses_for_titles, dialect, shared_class_names, unmirrored_rooms, texts_of_the_locale,
    ignores_without_reason, broad_handlers_without_reason, forks_beside_threads,
    unreached_names,
)  # fmt: skip
"""Rules over a tree; each returns one line for each breach."""


def main() -> int:
    """Print the breaches, or with `--write` mend the page of the code."""
    found = breaches()
    text = PAGE.read_text(encoding="utf-8")
    mended = page_with_tree(text)
    if mended != text:
        if "--write" in sys.argv:
            PAGE.write_text(mended, encoding="utf-8")
        else:
            found.append(f"{PAGE.name}: its tree is behind: python tests/house.py --write")
    if len((REPOSITORY / "README.md").read_text(encoding="utf-8").splitlines()) > README_LINES:
        found.append(f"README.md: more than {README_LINES} lines: move what is looked up to docs/")
    for line in found:
        sys.stdout.write(line + "\n")
    sys.stdout.write(f"house: {len(found)} breaches\n")
    return 1 if found else 0


if __name__ == "__main__":
    raise SystemExit(main())
