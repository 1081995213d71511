"""Hostile packages, manifests, plans, rules and addresses."""

from __future__ import annotations

import hashlib
import io
import json
import stat
import struct
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import torch
import yaml
from table import Hostile, Make, written
from tiny_data import tiny_plan

from segmed.package import CARD_FILE, FILES, PLAN_FILE, WEIGHTS_FILE, ModelPackage

MEBI = 1 << 20
REPOSITORY = Path(__file__).resolve().parents[2]


@cache
def sound_package() -> dict[str, bytes]:
    """Name and content of the files of a sound package."""
    package = ModelPackage("unet", {"widths": [4]}, tiny_plan(), {"weight": torch.ones(6)}, {})
    with tempfile.TemporaryDirectory() as name:
        folder = package.save(Path(name) / "package")
        return {name: (folder / name).read_bytes() for name in FILES}


def forged(**changes: bytes) -> dict[str, bytes]:
    """The files with changes, keys as `weights`, `plan`; the card states their digests."""
    names = {"weights": WEIGHTS_FILE, "plan": PLAN_FILE}
    files = sound_package() | {names[key]: value for key, value in changes.items()}
    card = json.loads(files[CARD_FILE])
    card["files"] = {
        name: hashlib.sha256(files[name]).hexdigest() for name in (WEIGHTS_FILE, PLAN_FILE)
    }
    return files | {CARD_FILE: json.dumps(card).encode()}


def laid(files: Callable[[], Mapping[str, bytes]]) -> Make:
    """A package folder of these files."""

    def make(folder: Path) -> Path:
        for name, content in files().items():
            (folder / name).write_bytes(content)
        return folder

    return make


def zipped(*odd: tuple[str, bytes], sound: bool = True, mode: int = 0) -> Make:
    """A zip of the sound package and of further members, as they are named."""

    def make(folder: Path) -> Path:
        stream = io.BytesIO()
        with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in sound_package().items() if sound else ():
                archive.writestr(name, content)
            for name, content in odd:
                member = zipfile.ZipInfo(name)
                member.external_attr = mode << 16
                member.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(member, content)
        (folder / "a.zip").write_bytes(stream.getvalue())
        return folder / "a.zip"

    return make


def with_link(target: str) -> Make:
    """A package folder whose weights are a link."""

    def make(folder: Path) -> Path:
        laid(sound_package)(folder)
        (folder / WEIGHTS_FILE).unlink()
        (folder / WEIGHTS_FILE).symlink_to(target)
        return folder

    return make


def carded(**fields: Any) -> Callable[[], dict[str, bytes]]:
    """The package's files with fields of the card replaced."""

    def files() -> dict[str, bytes]:
        card = json.loads(sound_package()[CARD_FILE]) | fields
        return sound_package() | {CARD_FILE: json.dumps(card).encode()}

    return files


def tensors(header: Mapping[str, Any] | None, length: int | None = None) -> bytes:
    text = json.dumps(header or {}).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + bytes(24)


BILLION = "fingerprint:\n  a0: &a0 [x, x]\n" + "".join(
    f"  a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)

PACKAGES = [
    Hostile("zip: a member above its folder", "package", "would be outside",
            zipped(("../../evil.txt", b"x"))),
    Hostile("zip: a member with an absolute path", "package", "would be outside",
            zipped(("/tmp/evil.txt", b"x"))),
    Hostile("zip: a member above its folder, Windows' way", "package", "would be outside",
            zipped(("..\\..\\evil.txt", b"x"))),
    Hostile("zip: a member on another drive", "package", "would be outside",
            zipped(("C:\\evil.txt", b"x"))),
    Hostile("zip: a link", "package", "is a link",
            zipped(("evil", b"/etc/passwd"), mode=stat.S_IFLNK | 0o777)),
    Hostile("zip: a pickle besides", "package", "a package contains only",
            zipped(("evil.pkl", b"cos\nsystem\n(S'true'\ntR."))),
    Hostile("zip: one member twice", "package", "a package contains only",
            zipped((f"again/{PLAN_FILE}", b"x"))),
    Hostile("zip: a plan of 256 MB of zeros", "package", "unpacks to",
            zipped((PLAN_FILE, bytes(256 * MEBI)), sound=False)),
    Hostile("zip: weights of 256 MB of zeros", "package", "as no weights do",
            zipped((WEIGHTS_FILE, bytes(256 * MEBI)), sound=False)),
    Hostile("zip: a zip in a zip", "package", "a package contains only",
            zipped(("inner.zip", b"PK\x03\x04"))),
    Hostile("zip: cut short", "package", "neither a package folder nor a zip",
            written("a.zip", b"PK\x03\x04" + bytes(200))),
    Hostile("a pickle in place of a package", "package", "may be a pickle",
            written("model.pt", b"\x80\x04cos\nsystem\n(S'true'\ntR.")),
    Hostile("package: a pickle beside the weights", "package", "may be a pickle",
            laid(lambda: sound_package() | {"extra.pkl": b"cos\nsystem\n(S'true'\ntR."})),
    Hostile("package: a card of 17 MB", "package", "at most",
            laid(lambda: sound_package() | {CARD_FILE: b" " * (17 * MEBI)})),
    Hostile("package: a card nested 100000 deep", "package", "is damaged",
            laid(lambda: sound_package() | {CARD_FILE: b"[" * 100_000})),
    Hostile("package: a card of another schema", "package", "schema version",
            laid(carded(schema_version=99))),
    Hostile("package: weights not those of the card", "package", "is not the file",
            laid(lambda: sound_package() | {WEIGHTS_FILE: b"x"})),
    Hostile("package: an architecture put into the card by hand", "package", "was changed",
            laid(carded(architecture="../../os.system"))),
    Hostile("package: weights with a header of 2^63 bytes", "package", "is damaged",
            laid(lambda: forged(weights=tensors({}, 2**63)))),
    Hostile("package: a tensor that lies behind its file", "package", "is damaged",
            laid(lambda: forged(weights=tensors(
                {"weight": {"dtype": "F32", "shape": [6], "data_offsets": [0, 2**40]}})))),
    Hostile("package: a plan that runs Python", "package", "is damaged",
            laid(lambda: forged(plan=b"name: !!python/object/apply:os.system [reboot]"))),
    Hostile("package: weights that link to /dev/zero", "package", "is missing",
            with_link("/dev/zero")),
    Hostile("package: weights that link to the users of this machine", "package",
            "is not the file", with_link("/etc/passwd")),
]  # fmt: skip


@cache
def sample() -> dict[str, Any]:
    text = (REPOSITORY / "data_manifests" / "hippocampus_sample.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    found["training"], found["test"] = found["training"][:2], []
    return found


def manifest_with(**case: Any) -> Make:
    """A manifest with fields of its first case replaced."""

    def make(folder: Path) -> Path:
        content = sample() | {"training": [sample()["training"][0] | case, sample()["training"][1]]}
        return written("a.json", json.dumps(content).encode())(folder)

    return make


MANIFESTS = [
    Hostile("manifest: an id above its folder", "manifest", "id", manifest_with(id="../../evil")),
    Hostile("manifest: an absolute path as id", "manifest", "id", manifest_with(id="/etc/passwd")),
    Hostile("manifest: an id of two lines", "manifest", "id", manifest_with(id="a\nb")),
    Hostile("manifest: an id twice", "manifest", "id",
            manifest_with(id=sample()["training"][1]["id"])),
    Hostile("manifest: a path with a zero byte", "manifest", "image", manifest_with(image="a\0b")),
    Hostile("manifest: nested 100000 deep", "manifest", "",
            written("a.json", b'{"training": ' + b"[" * 100_000)),
    Hostile("manifest: a number of 5000 digits", "manifest", "",
            written("a.json", b'{"schema_version": ' + b"1" * 5000 + b"}")),
    Hostile("manifest: no text", "manifest", "", written("a.json", b"\xff\xfe\0\xd8" * 100)),
]  # fmt: skip

PLANS = [
    Hostile("plan: lists that unfold to 31 billion", "plan", "",
            written("a.yaml", lambda: yaml.safe_dump({"name": "x"}).encode() + BILLION.encode())),
    Hostile("plan: runs Python", "plan", "",
            written("a.yaml", b"name: !!python/object/apply:os.system [reboot]")),
    Hostile("plan: nested 3000 deep", "plan", "", written("a.yaml", b"name: " + b"[" * 3000)),
    Hostile("plan: two megabytes of comment", "plan", "", written("a.yaml", b"#" * (2 * MEBI))),
    Hostile("plan: a list that holds itself", "plan", "", written("a.yaml", b"&a [*a]")),
]  # fmt: skip

RULES = [
    Hostile("rules: lists that unfold to 31 billion", "rules", "",
            written("a.yaml", b"channels: []\n" + BILLION.encode())),
    Hostile("rules: run Python", "rules", "",
            written("a.yaml", b"channels: !!python/object/apply:os.system [reboot]")),
    Hostile("rules: nested 3000 deep", "rules", "", written("a.yaml", b"channels: " + b"[" * 3000)),
    Hostile("rules: no text", "rules", "", written("a.yaml", b"\xff\xfe\0\xd8" * 100)),
    Hostile("rules: an expression that is none", "rules", "regular expression",
            written("a.yaml", b"channels: [{name: a, description: '(('}]")),
]  # fmt: skip


def address(text: str) -> Make:
    return lambda folder: text


ADDRESSES = [
    Hostile("address: a password for all to see", "address", "carries a password",
            address("dicomweb://user:hunter2@host/x")),
    Hostile("address: a file of this machine", "address", "unknown kind", address("file:///etc")),
    Hostile("address: a port beyond all ports", "address", "Port",
            address("dicomweb://host:99999/x")),
    Hostile("address: a port that is a word", "address", "Port", address("dimse://A@host:evil")),
    Hostile("address: no host", "address", "names no host", address("dicomwebs:///x")),
    Hostile("address: a second request behind a line end", "address", "line",
            address("dicomweb://host/x\r\nHost: evil")),
    Hostile("address: an AE title of 40 letters", "address", "AE title",
            address(f"dimse://{'A' * 40}@host:104")),
    Hostile("address: a bracket left open", "address", "address", address("dicomweb://[::1/x")),
]  # fmt: skip

DOCUMENTS = [*PACKAGES, *MANIFESTS, *PLANS, *RULES, *ADDRESSES]
