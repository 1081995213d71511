"""Whatever lies in a package folder or archive, it is the package or refused by name."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from damage import ODD_TEXTS, altered, bounded, damaged, require_one_line
from hypothesis import given
from hypothesis import strategies as st
from tiny_data import tiny_plan

from segmed.errors import PackageError
from segmed.package import CARD_FILE, FILES, PLAN_FILE, WEIGHTS_FILE, ModelPackage

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "steps": torch.tensor(7)}
ZIP_NAMES = [*(text for text in ODD_TEXTS if text and text != "\ud800"), "model.pkl"]
SOUND = ModelPackage("unet", {"widths": [4, 8]}, tiny_plan(), STATE, {"seed": 0})


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The content of each file of a sound package."""
    folder = SOUND.save(tmp_path_factory.mktemp("sound") / "package")
    return {name: (folder / name).read_bytes() for name in FILES}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which a package folder, or an archive, is laid for reading."""
    return tmp_path_factory.mktemp("read")


def load_or_refuse(path: Path, place: Path) -> bool:
    """Return whether it was loaded; then it computes what the sound package does."""
    before = sorted(place.rglob("*"))
    try:
        package = ModelPackage.load(path)
    except PackageError as error:
        require_one_line(error)
        return False
    finally:
        assert sorted(place.rglob("*")) == before
    assert package.hash == SOUND.hash
    return True


def laid(place: Path, files: Mapping[str, bytes]) -> Path:
    folder = place / "package"
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def forged(files: Mapping[str, bytes], **changes: bytes) -> dict[str, bytes]:
    """The files with changes, and a card that states the digests of what was put there."""
    found = {**files, **changes}
    card = json.loads(found[CARD_FILE])
    card["files"] = {
        name: hashlib.sha256(found[name]).hexdigest() for name in (WEIGHTS_FILE, PLAN_FILE)
    }
    return found | {CARD_FILE: json.dumps(card).encode()}


def zipped(members: Mapping[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name), content)
    return stream.getvalue()


def test_sound_package_is_loaded_from_folder_and_archive(
    place: Path, sound: dict[str, bytes]
) -> None:
    assert load_or_refuse(laid(place, sound), place)
    assert load_or_refuse(laid(place, forged(sound)), place)
    (place / "a.zip").write_bytes(zipped(sound))
    assert load_or_refuse(place / "a.zip", place)


@bounded
@given(data=st.data(), name=st.sampled_from(FILES))
def test_damaged_file_is_refused_or_says_the_same(
    place: Path, sound: dict[str, bytes], data: st.DataObject, name: str
) -> None:
    load_or_refuse(laid(place, sound | {name: data.draw(damaged(sound[name]))}), place)


@bounded
@given(data=st.data())
def test_forged_weights_are_refused(
    place: Path, sound: dict[str, bytes], data: st.DataObject
) -> None:
    weights = data.draw(damaged(sound[WEIGHTS_FILE]))
    load_or_refuse(laid(place, forged(sound, **{WEIGHTS_FILE: weights})), place)


@bounded
@given(data=st.data(), kind=st.sampled_from(["F4", "F8_E8M0", "BOOL", "I64", "C64", "X9", "U16"]))
def test_forged_tensor_headers_are_refused(
    place: Path, sound: dict[str, bytes], data: st.DataObject, kind: str
) -> None:
    length = int.from_bytes(sound[WEIGHTS_FILE][:8], "little")
    header = json.loads(sound[WEIGHTS_FILE][8 : 8 + length])
    header["weight"]["dtype"] = kind
    text = json.dumps(data.draw(altered(header) | st.just(header))).encode()
    weights = len(text).to_bytes(8, "little") + text + sound[WEIGHTS_FILE][8 + length :]
    load_or_refuse(laid(place, forged(sound, **{WEIGHTS_FILE: weights})), place)


@bounded
@given(data=st.data())
def test_forged_plan_is_refused(place: Path, sound: dict[str, bytes], data: st.DataObject) -> None:
    content = data.draw(altered(yaml.safe_load(sound[PLAN_FILE])))
    plan = yaml.safe_dump(content).encode()
    load_or_refuse(laid(place, forged(sound, **{PLAN_FILE: plan})), place)


@bounded
@given(data=st.data())
def test_forged_card_is_refused_or_says_the_same(
    place: Path, sound: dict[str, bytes], data: st.DataObject
) -> None:
    content: Any = data.draw(altered(json.loads(sound[CARD_FILE])))
    load_or_refuse(laid(place, sound | {CARD_FILE: json.dumps(content).encode()}), place)


@bounded
@given(data=st.data())
def test_damaged_archive_is_refused_or_whole(
    place: Path, sound: dict[str, bytes], data: st.DataObject
) -> None:
    (place / "a.zip").write_bytes(data.draw(damaged(zipped(sound))))
    load_or_refuse(place / "a.zip", place)


@bounded
@given(data=st.data())
def test_archive_with_odd_names_is_refused_and_nothing_is_left(
    place: Path, sound: dict[str, bytes], data: st.DataObject
) -> None:
    odd = st.sampled_from(["../", "/", "C:\\", "..\\", "a/../", "\\\\host\\"])
    name = data.draw(st.tuples(odd, st.sampled_from(FILES)).map("".join))
    name = data.draw(st.sampled_from([name, *ZIP_NAMES]))
    (place / "a.zip").write_bytes(zipped(sound | {name: b"x"}))
    assert not load_or_refuse(place / "a.zip", place)
