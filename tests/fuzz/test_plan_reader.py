"""Whatever stands in its file, a plan is read right or refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from damage import altered, bounded, damaged, require_one_line, values
from hypothesis import given
from hypothesis import strategies as st
from tiny_data import tiny_plan

from segmed.errors import UsageError
from segmed.plan import plan_hash, read_plan, to_yaml, write_plan

SOUND_BYTES = to_yaml(tiny_plan()).encode()
SOUND = yaml.safe_load(SOUND_BYTES)

UNFOLDING = "fingerprint:\n  a0: &a0 [x, x]\n" + "".join(
    f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
"""A few hundred bytes that unfold to 9**11 lists (the laughs that came by the billion)."""

CORPUS = [
    b"",
    b"a: [",
    b"? {a: b}\n: c\n",
    b"name: !!python/object/apply:os.getcwd []",
    b"name: !!timestamp never",
    b'name: !!int ""',
    b"name: !!bool perhaps",
    b"name: 2024-99-99",
    b"name: 0x_",
    b"name: " + b"9" * 5000,
    b"name: " + b"[" * 3000,
    b"&a [*a]",
    b"&a {name: *a}",
    SOUND_BYTES.replace(b"fingerprint: {}\n", UNFOLDING.encode()),
    SOUND_BYTES + b"".join(b"k%d: 0\n" % number for number in range(3000)),
    b"#" * (2**20 + 1),
    SOUND_BYTES.replace(b"1.0", b".inf", 1),
    SOUND_BYTES.replace(b"cubes", b'"\\ud800"', 1),
    SOUND_BYTES.replace(b"fingerprint: {}", b'fingerprint: {"\\udc80": 1}'),
    SOUND_BYTES.replace(b"planned_for: {}", b'planned_for: {a: ["x\\ud8ff"]}'),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("plans")


def read_or_refuse(folder: Path, content: bytes) -> bool:
    """Return whether it was read; a round trip must then change nothing that decides."""
    path = folder / "plan.yaml"
    path.write_bytes(content)
    try:
        plan = read_plan(path)
    except UsageError as error:
        require_one_line(error)
        return False
    again = read_plan(write_plan(plan, folder / "again.yaml"))
    assert plan_hash(again) == plan_hash(plan)
    assert repr(again.model_dump(exclude={"reasons"})) == repr(plan.model_dump(exclude={"reasons"}))
    assert sorted(entry.name for entry in folder.iterdir()) == ["again.yaml", "plan.yaml"]
    return True


def test_sound_plan_is_read(folder: Path) -> None:
    assert read_or_refuse(folder, SOUND_BYTES)


@pytest.mark.timeout(60)  # some would take for ever
@pytest.mark.parametrize("content", CORPUS, ids=range(len(CORPUS)))
def test_known_hostile_plan_is_refused_at_once(folder: Path, content: bytes) -> None:
    assert not read_or_refuse(folder, content)


@bounded
@given(content=damaged(SOUND_BYTES))
def test_damaged_plan_is_refused_or_whole(folder: Path, content: bytes) -> None:
    read_or_refuse(folder, content)


@bounded
@given(content=altered(SOUND) | values)
def test_plan_of_odd_values_is_refused_or_whole(folder: Path, content: Any) -> None:
    read_or_refuse(folder, yaml.safe_dump(content).encode())


@bounded
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_random_file_is_a_plan(folder: Path, content: bytes) -> None:
    assert not read_or_refuse(folder, content)
