"""Every `segmed` command in the documentation exists, with every option it is shown with."""

from __future__ import annotations

import ast
import importlib
import itertools
import re
import shlex
import subprocess
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import all_commands, root_command, walk
from documentation import FENCE, PAGES, REPOSITORY, SHELLS, lines_of, read_page, shown_on

PACKAGES = ("segmed", "pipelines", "tests")
INLINE = re.compile(r"`(segmed [^`]+)`")


def commands_in(text: str) -> Iterator[list[str]]:
    """Every call of `segmed` in fenced shell blocks and in backticks, as words."""
    text = re.sub(r"<!--.*?-->", "", text, flags=re.DOTALL)
    fenced = [body for language, body in FENCE.findall(text) if language in SHELLS]
    found = [line for body in fenced for line in lines_of(body)]
    found += INLINE.findall(FENCE.sub("", text))
    for line in found:
        if re.search(r"\bsegmed\b", line):
            yield from calls_in(line)


def calls_in(line: str) -> Iterator[list[str]]:
    """The words behind `segmed` in each part of a command line."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars="|;&")
    lexer.whitespace_split = True
    for is_operator, group in itertools.groupby(lexer, lambda word: set(word) <= set("|;&")):
        words = list(group)
        if not is_operator and "segmed" in words:
            start = words.index("segmed")
            if all(re.fullmatch(r"[A-Z_]+=.*", word) for word in words[:start]):
                yield words[start + 1 :]


def check(words: list[str], command: Any) -> None:
    """Fails unless `words` name a command, its options, and as many arguments as it takes."""
    command, words = descend(words, command)
    if hasattr(command, "commands") or "--help" in words or not words:
        return  # a command that is only named
    given, used = sorted_out(words, command)
    for parameter in command.params:
        if parameter.required and parameter.param_type_name == "option":
            assert parameter.name in used, f"{command.name} needs {parameter.opts[0]}"
    takes = [p for p in command.params if p.param_type_name == "argument"]
    least = sum(1 for p in takes if p.required)
    most = float("inf") if any(p.nargs == -1 for p in takes) else len(takes)
    assert least <= len(given) <= most, f"{command.name} takes {least}..{most} arguments: {given}"


def descend(words: list[str], command: Any) -> tuple[Any, list[str]]:
    """The command that the first words name, and the words after it."""
    while hasattr(command, "commands") and words:
        options = {name for parameter in command.params for name in parameter.opts} | {"--help"}
        if words[0].startswith("-"):
            assert words[0] in options, f"unknown option {words[0]}"
        elif words[0] == "COMMAND":
            return command, []  # stands for any of them
        else:
            assert words[0] in command.commands, f"unknown command {words[0]!r}"
            command = command.commands[words[0]]
        words = words[1:]
    return command, words


def sorted_out(words: list[str], command: Any) -> tuple[list[str], set[str]]:
    """The arguments among `words`, and the names of the options."""
    options = {name: p for p in command.params if p.param_type_name == "option" for name in p.opts}
    given: list[str] = []
    used = set()
    rest = iter(words)
    for word in rest:
        if not word.startswith("-"):
            given.append(word)
            continue
        name, equals, _ = word.partition("=")
        assert name in options, f"unknown option {name} of {command.name}"
        used.add(options[name].name)
        if not (options[name].is_flag or equals):
            assert next(rest, None) is not None, f"option {name} without its value"
    return given, used


def hidden_calls(page: Path) -> Iterator[list[str]]:
    """Calls of `segmed` that only tests make: before a shown command, or in its place."""
    for shown in shown_on(page):
        lines = shown.values("first")
        if shown.language == "sh" and shown.as_run() != shown.text:
            lines.append(shown.as_run())
        for line in lines:
            yield from calls_in(re.sub(r"\$\(.*?\)", "DIGEST", line))


def all_calls() -> list[tuple[str, list[str]]]:
    return [
        (page.relative_to(REPOSITORY).as_posix(), words)
        for page in PAGES
        for words in commands_in(page.read_text(encoding="utf-8"))
    ]


def test_documentation_shows_every_command() -> None:
    shown = {" ".join(words) for _, words in all_calls()}
    missing = [
        name
        for name in all_commands()
        if not any(call == name or call.startswith(f"{name} ") for call in shown)
    ]
    assert missing == []


def faults_of(calls: Iterable[list[str]]) -> list[str]:
    faults = []
    for words in calls:
        try:
            check(words, root_command())
        except AssertionError as fault:
            faults.append(f"segmed {shlex.join(words)}: {str(fault).splitlines()[0]}")
    return faults


@pytest.mark.parametrize("page", sorted({page for page, _ in all_calls()}))
def test_commands_of_a_page_exist_as_shown(page: str) -> None:
    assert faults_of(words for name, words in all_calls() if name == page) == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_notes_beside_commands_are_about_them_and_name_commands_that_exist(page: Path) -> None:
    assert read_page(page.name, page.read_text(encoding="utf-8"))[1] == []
    assert faults_of(hidden_calls(page)) == []


BLOCK = "```sh\nsegmed plan M.json -o plan.yaml\nsegmed doctor\n```\n"


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (f"<!-- skp: typed wrongly -->\n{BLOCK}", "unknown note"),
        (f"<!-- skip without a reason -->\n{BLOCK}", "unknown note"),
        (f"<!-- first `train`: segmed doctor -->\n{BLOCK}", "about no line of its block"),
        (f"<!-- with: --budget 1h = --epochs 1 -->\n{BLOCK}", "on no line after its note"),
        (f"{BLOCK}<!-- with: M.json = N.json -->\n", "on no line after its note"),
        (f"{BLOCK}<!-- may-fail: of no block -->\n", "before no block"),
        (f"{BLOCK}<!-- skip-page: of no block -->\n", "before no block"),
    ],
)
def test_note_about_nothing_is_found(text: str, fault: str) -> None:
    _, (found,) = read_page("page.md", text)
    assert fault in found


def test_notes_are_about_the_lines_that_they_name() -> None:
    text = "<!-- skip `doctor`: slow -->\n<!-- with: M.json = N.json -->\n" + BLOCK + BLOCK
    shown, faults = read_page("page.md", text)
    assert faults == []
    assert [one.values("skip") for one in shown] == [[], ["slow"], [], []]
    assert shown[2].as_run() == "segmed plan N.json -o plan.yaml"


def test_rest_of_a_page_is_skipped_by_one_note() -> None:
    shown, faults = read_page("page.md", f"{BLOCK}<!-- skip-page: slow -->\n{BLOCK}{BLOCK}")
    assert faults == []
    assert [one.values("skip") for one in shown] == [[], [], *[["slow"]] * 4]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_blocks_that_run_alone_define_their_names(page: Path) -> None:
    alone = [one for one in shown_on(page) if one.language == "python" and not one.values("skip")]
    for block in alone:
        command = [sys.executable, "-m", "ruff", "check", "--isolated", "--select", "F821", "-"]
        done = subprocess.run(
            command, input=block.text, capture_output=True, text=True, check=False, encoding="utf-8"
        )
        assert done.returncode == 0, f"{block}\n{done.stdout}"


def test_a_command_that_does_not_exist_is_found() -> None:
    for text in ("`segmed fly`", "```sh\nsegmed plan M.json --wings 2\n```", "`segmed train -o x`"):
        (words,) = commands_in(text)
        with pytest.raises(AssertionError):
            check(words, root_command())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        place, _, anchor = target.partition("#")
        if place.startswith(("http://", "https://", "mailto:")):
            continue
        found = (page.parent / place).resolve() if place else page
        assert found.exists(), f"{page.name} links to {target}"
        if anchor and found.suffix == ".md":
            heads = re.findall(r"^#+ (.+)$", found.read_text(encoding="utf-8"), flags=re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}
            assert anchor in slugs, f"{page.name} links to {target}"


def test_reference_lists_every_option_of_every_command() -> None:
    text = (REPOSITORY / "docs" / "reference.md").read_text(encoding="utf-8")
    sections = dict(
        re.findall(r"^## (segmed[^\n]*)\n(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    )

    missing = [
        f"{path} {name}"
        for words, command in walk()
        for path in [" ".join(["segmed", *words])]
        for parameter in command.params
        if parameter.param_type_name == "option" and not parameter.hidden
        for name in parameter.opts
        if name not in sections.get(path, "")
    ]
    assert missing == [], "run `python docs/make_reference.py` and commit the result"


@pytest.mark.parametrize("page", ["architecture.md", "contributing.md"])
def test_files_that_a_page_names_exist(page: str) -> None:
    text = FENCE.sub("", (REPOSITORY / "docs" / page).read_text(encoding="utf-8"))
    names = {path.name for folder in PACKAGES for path in (REPOSITORY / folder).rglob("*.py")}
    for named in set(re.findall(r"`([a-z][\w/.]*(?:/|\.py))`", text)):
        if "NAME" in named:
            continue  # of the file that the page tells to write
        there = (REPOSITORY / named).exists() if "/" in named else named in names
        assert there, f"{page} names {named}, which does not exist"


def python_imports() -> list[tuple[str, str, str]]:
    """Every `from MODULE import NAME` in the Python blocks of the pages."""
    found = []
    for page in PAGES:
        for language, body in FENCE.findall(page.read_text(encoding="utf-8")):
            if language == "python":
                for node in ast.walk(ast.parse(body)):
                    if isinstance(node, ast.ImportFrom):
                        found += [(page.name, str(node.module), alias.name) for alias in node.names]
    return found


@pytest.mark.parametrize(("page", "module", "name"), python_imports())
def test_python_of_the_pages_imports_what_exists(page: str, module: str, name: str) -> None:
    assert hasattr(importlib.import_module(module), name), f"{page}: {module} has no {name}"
