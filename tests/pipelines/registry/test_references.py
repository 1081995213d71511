"""The one parser of references to registered models."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from pipelines.registry.reference import (
    ModelName,
    is_registered,
    parse_reference,
    short_name,
)
from segmed.errors import UsageError

REPOSITORY = Path(__file__).resolve().parents[3]


@pytest.mark.parametrize(
    ("text", "name", "selector"),
    [
        ("models:/hippocampus@champion", "hippocampus", "champion"),
        ("models:/a.b-c_d/12", "a.b-c_d", "12"),
        ("models:/spleen@previous", "spleen", "previous"),
    ],
)
def test_a_reference_has_a_name_and_a_selector(text: str, name: str, selector: str) -> None:
    found = parse_reference(text)
    assert found == (name, selector)
    assert str(found) == text
    assert str(ModelName(name, selector)) == text
    assert short_name(text) == text.removeprefix("models:/")
    assert parse_reference(short_name(text), needs_scheme=False) == found
    assert is_registered(text)


@pytest.mark.parametrize(
    "text", ["models:hip@a", "models:/hip", "models:/hip/x", "models:/@a", "hip@a", "models:/a/b/3"]
)
def test_another_form_is_refused_with_the_two_that_do(text: str) -> None:
    with pytest.raises(UsageError, match="write models:/NAME@champion or models:/NAME/3"):
        parse_reference(text)


def test_a_path_is_called_by_its_last_part() -> None:
    assert short_name("runs/best/package") == "package"
    assert short_name("models:/hip/3") == "hip/3"
    assert not is_registered("models/hip")


def test_no_other_module_takes_references_apart() -> None:
    found = set()
    for path in (REPOSITORY / "pipelines").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            is_call = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)
            if is_call and any(
                isinstance(one, ast.Constant) and str(one.value) in {"models:", "models:/"}
                for one in node.args
            ):
                found.add(path.name)
    assert not found
