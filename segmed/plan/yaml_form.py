"""A plan as YAML, with each reason as a comment above its field."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from textwrap import wrap

import yaml
from pydantic import ValidationError

from segmed.errors import UsageError
from segmed.io.atomic import write_whole
from segmed.io.digest import sha256_of_json
from segmed.io.valid_text import require_valid_text
from segmed.plan.schema import SCHEMA_VERSION, Plan
from segmed.validation import first_fault

COMMENT_COLUMNS = 92

MAX_PLAN_BYTES = 2**20
"""Largest plan file that is read, in bytes; a plan has a few thousand."""

LATER_FIELDS = (
    ("inference", "remove_small"),
    ("inference", "fill_holes"),
    ("recipe", "extra_augmentation"),
)
"""Fields that joined plans after the first packages were written; empty, they have no effect."""


class _Loader(yaml.SafeLoader):
    """Plain values only: no aliases, which can unfold without bound, and no explicit tags."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()  # type: ignore[no-untyped-call]  # PyYAML's own
        if isinstance(event, yaml.AliasEvent) or getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(
                None, None, "a plan has neither aliases nor tags", event.start_mark
            )
        node: yaml.Node | None = super().compose_node(parent, index)
        return node


class _Dumper(yaml.SafeDumper):
    """Lists of numbers, and lists of such lists, on one line."""


def _represent_list(dumper: yaml.SafeDumper, items: list[object]) -> yaml.Node:
    has_mappings = any(isinstance(item, dict) for item in items)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", items, flow_style=not has_mappings)


def _represent_dict(dumper: yaml.SafeDumper, items: dict[str, object]) -> yaml.Node:
    has_nested = any(isinstance(item, dict | list) for item in items.values())
    is_short = not has_nested and len(items) < 8 and "schema_version" not in items
    return dumper.represent_mapping("tag:yaml.org,2002:map", items, flow_style=is_short)


_Dumper.add_representer(list, _represent_list)
_Dumper.add_representer(dict, _represent_dict)


def write_plan(plan: Plan, path: Path | str) -> Path:
    """Write a plan as commented YAML; the file appears whole or not at all.

    Args:
        plan: The plan.
        path: File to write.

    Returns:
        The path written.
    """
    return write_whole(Path(path), to_yaml(plan))


def to_yaml(plan: Plan) -> str:
    """The YAML text of a plan, its reasons as comments."""
    content = plan.model_dump(mode="json", exclude={"reasons"})
    text = yaml.dump(content, Dumper=_Dumper, sort_keys=False, width=100)
    lines = text.splitlines()
    keys = dict(_key_lines(yaml.compose(text, Loader=yaml.SafeLoader)))
    for field in sorted(plan.reasons, key=lambda name: -keys.get(name, 0)):
        if field not in keys:
            continue
        line = keys[field]
        indent = lines[line][: len(lines[line]) - len(lines[line].lstrip())]
        lines[line:line] = [
            f"{indent}# {part}" for part in wrap(plan.reasons[field], COMMENT_COLUMNS)
        ]
    return "\n".join(lines) + "\n"


def read_plan(path: Path | str) -> Plan:
    """Read a plan from YAML.

    Args:
        path: A file that `write_plan` wrote, perhaps edited by hand.

    Returns:
        The plan, with its reasons.

    Raises:
        UsageError: The file is missing, is not a YAML mapping, has an unknown or wrong key, or is
            of another schema version.
    """
    path = Path(path)
    try:
        text = _bounded_text(path)
        content = yaml.load(text, Loader=_Loader)  # noqa: S506 - a stricter SafeLoader
        require_valid_text(content)
        reasons = _comments(text)
    except (OSError, ValueError, OverflowError, RecursionError, yaml.YAMLError) as error:
        # ValueError: no UTF-8, or a number or date that YAML's form allows and Python does not.
        detail = " ".join(str(error).split())
        raise UsageError(f"cannot read the plan {path}: {detail}") from error
    if not isinstance(content, dict):
        raise UsageError(
            f"{path} is not a plan: expected a YAML mapping; make one by `segmed plan`"
        )
    version = content.get("schema_version")
    if version != SCHEMA_VERSION:
        raise UsageError(
            f"{path} has plan schema version {version!r}, this segmed reads {SCHEMA_VERSION}; "
            "make the plan again by `segmed plan`"
        )
    try:
        return Plan.model_validate({**content, "reasons": reasons})
    except ValidationError as error:
        raise UsageError(f"{path}: {first_fault(error)}") from error


def _bounded_text(path: Path) -> str:
    """The file's text; UsageError where it is too large to be a plan."""
    size = path.stat().st_size
    if size > MAX_PLAN_BYTES:
        raise UsageError(f"it has {size} bytes; a plan has at most {MAX_PLAN_BYTES}")
    return path.read_text(encoding="utf-8")


def plan_hash(plan: Plan) -> str:
    """Hex digest of everything in a plan that changes a result; what it was made from does not.

    Nor does a later field that says nothing: a plan of last year keeps its hash.
    """
    content = plan.model_dump(mode="json", exclude={"reasons", "fingerprint", "planned_for"})
    for part, name in LATER_FIELDS:
        if not content[part][name]:
            del content[part][name]
    return sha256_of_json(content)


def _key_lines(node: yaml.Node | None, prefix: str = "") -> Iterator[tuple[str, int]]:
    """Dotted name and line of every key of a block mapping."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            name = f"{prefix}{key.value}"
            if not node.flow_style:
                yield name, key.start_mark.line
            yield from _key_lines(value, f"{name}.")


def _comments(text: str) -> dict[str, str]:
    """The comment above each key, by dotted name."""
    lines = text.splitlines()
    reasons = {}
    for name, line in _key_lines(yaml.compose(text, Loader=_Loader)):
        upwards = (lines[number].lstrip() for number in range(line - 1, -1, -1))
        above = list(takewhile(lambda text: text.startswith("#"), upwards))
        if line > 0 and above:
            reasons[name] = " ".join(part.lstrip("# ") for part in reversed(above))
    return reasons
