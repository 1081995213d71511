"""Digests name what files hold, not how files are called."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest

from segmed.manifest import (
    Case,
    Channel,
    LabelClass,
    Manifest,
    case_hash,
    data_hash,
    digest,
)


def manifest_of(root: Path, *cases: Case) -> Manifest:
    return Manifest(
        name="tried",
        labels=(LabelClass(name="spot", value=1),),
        channels=(Channel(name="T1"),),
        training=cases,
        root=root,
    )


def test_a_file_has_its_sha256(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"abc" * 1_000_000)
    assert digest(path) == hashlib.sha256(b"abc" * 1_000_000).hexdigest()


def test_what_has_no_end_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "pipe", Path("/dev/zero")):
        with pytest.raises(FileNotFoundError):
            digest(path)
    assert digest(tmp_path) == hashlib.sha256(b"").hexdigest()


def test_a_folder_is_its_files_whatever_their_names(tmp_path: Path) -> None:
    for folder, names in (("a", "xy"), ("b", "zw")):
        (tmp_path / folder).mkdir()
        for name, text in zip(names, ("one", "two"), strict=True):
            (tmp_path / folder / name).write_text(text, encoding="utf-8")
    (tmp_path / "b" / "._z").write_text("a double that macOS left", encoding="utf-8")
    assert digest(tmp_path / "a") == digest(tmp_path / "b")
    (tmp_path / "b" / "z").write_text("three", encoding="utf-8")
    assert digest(tmp_path / "a") != digest(tmp_path / "b")


def test_the_data_hash_follows_content_and_not_order_or_place(tmp_path: Path) -> None:
    for name in ("i", "j", "l"):
        (tmp_path / name).write_text(name, encoding="utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "i").write_text("i", encoding="utf-8")
    one = Case(id="a", group="a", image=("i",), label="l")
    two = Case(id="b", group="b", image=("j",))
    manifest = manifest_of(tmp_path, one, two)
    whole = data_hash(manifest, [one, two])
    assert whole == data_hash(manifest, [two, one])
    assert case_hash(manifest, one) == case_hash(
        manifest, one.model_copy(update={"image": ("sub/i",)})
    )
    assert whole != data_hash(manifest, [one])
    assert whole != data_hash(manifest, [one.model_copy(update={"label": None}), two])
    (tmp_path / "i").write_text("changed", encoding="utf-8")
    assert whole != data_hash(manifest, [one, two])
