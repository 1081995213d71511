"""Whatever stands in its file, a manifest is read right or refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from damage import altered, bounded, damaged, require_one_line, values
from hypothesis import given
from hypothesis import strategies as st

from segmed.errors import ManifestError
from segmed.manifest import read_manifest, write_manifest

REPOSITORY = Path(__file__).resolve().parents[2]
SOUND = json.loads(
    (REPOSITORY / "data_manifests" / "hippocampus_sample.json").read_text(encoding="utf-8")
)
SOUND["training"], SOUND["test"] = SOUND["training"][:2], SOUND["test"][:1]
SOUND_BYTES = json.dumps(SOUND, indent=1).encode()

CORPUS = [
    b"",
    b"\xff\xfe{}",
    b"[]",
    b"NaN",
    b'{"schema_version": [1]}',
    b'{"schema_version": ' + b"1" * 5000 + b"}",
    b'{"training": ' + b"[" * 100_000,
    SOUND_BYTES.replace(b'"training"', b'"trai\\nning"'),
    SOUND_BYTES.replace(b'"name"', b'"name": "\\ud800", "also"', 1),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("manifests")


def read_or_refuse(folder: Path, content: bytes) -> bool:
    """Return whether it was read; then writing and reading again must change nothing."""
    path = folder / "manifest.json"
    path.write_bytes(content)
    try:
        manifest = read_manifest(path)
    except ManifestError as error:
        require_one_line(error)
        return False
    again = read_manifest(write_manifest(manifest, folder / "again.json"))
    assert again == manifest
    assert sorted(entry.name for entry in folder.iterdir()) == ["again.json", "manifest.json"]
    return True


def test_sound_manifest_is_read(folder: Path) -> None:
    assert read_or_refuse(folder, SOUND_BYTES)


@pytest.mark.parametrize("content", CORPUS, ids=range(len(CORPUS)))
def test_known_hostile_manifest_is_refused(folder: Path, content: bytes) -> None:
    assert not read_or_refuse(folder, content)


@bounded
@given(content=damaged(SOUND_BYTES))
def test_damaged_manifest_is_refused_or_whole(folder: Path, content: bytes) -> None:
    read_or_refuse(folder, content)


@bounded
@given(content=altered(SOUND) | values)
def test_manifest_of_odd_values_is_refused_or_whole(folder: Path, content: Any) -> None:
    read_or_refuse(folder, json.dumps(content).encode())


@bounded
@given(content=st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
def test_no_random_file_is_a_manifest(folder: Path, content: bytes) -> None:
    assert not read_or_refuse(folder, content)
