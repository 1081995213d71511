"""A hundred inputs made to do harm: each is refused by name, in bounded time and memory."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dicoms import DICOM, HARMLESS_DICOM
from documents import DOCUMENTS
from pictures import HARMLESS_PICTURES, PICTURES
from table import Hostile
from volumes import HARMLESS_VOLUMES, VOLUMES
from watch import forget_peak, peak_bytes, watching

from segmed.archive import read_rules
from segmed.archive.pacs.address import open_address
from segmed.errors import ImageError, SegmedError
from segmed.io import read_label
from segmed.io.read import read_image
from segmed.manifest import read_manifest
from segmed.package import ModelPackage
from segmed.plan import read_plan

INPUTS = [*VOLUMES, *PICTURES, *DICOM, *DOCUMENTS]
READERS: dict[str, Callable[[Any], object]] = {
    "image": read_image,
    "label": read_label,
    "package": ModelPackage.load,
    "manifest": read_manifest,
    "plan": read_plan,
    "rules": read_rules,
    "address": open_address,
}
MAX_BYTES = 200 * 2**20
"""Memory beyond what the process held before."""


def test_list_has_a_hundred_inputs() -> None:
    assert len({entry.name for entry in INPUTS}) == len(INPUTS)
    assert len(INPUTS) >= 100


@pytest.mark.timeout(60)  # a bound of the work; a busy machine takes 20 s
@pytest.mark.parametrize("entry", INPUTS, ids=lambda entry: entry.name)
def test_hostile_input_is_refused_by_name_and_within_bounds(
    entry: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place, scratch = tmp_path / "input", tmp_path / "scratch"
    place.mkdir()
    scratch.mkdir()
    given = entry.make(place)
    monkeypatch.setattr(tempfile, "tempdir", str(scratch))
    forget_peak()
    before = peak_bytes()
    with watching() as seen, pytest.raises(SegmedError) as refusal:
        READERS[entry.kind](given)
    assert peak_bytes() - before < MAX_BYTES
    message = str(refusal.value)
    assert message.isprintable(), repr(message)
    if entry.kind in {"image", "label"}:
        assert isinstance(refusal.value, ImageError)
        assert re.fullmatch(entry.reason, refusal.value.reason), message
    assert entry.kind in {"image", "label"} or entry.reason in message, message
    assert seen.outside(scratch) == []
    assert list(scratch.iterdir()) == []
    assert seen.called == []


@pytest.mark.parametrize(
    "entry",
    [*HARMLESS_VOLUMES, *HARMLESS_PICTURES, *HARMLESS_DICOM],
    ids=lambda entry: entry.name,
)
def test_odd_but_sound_input_is_read(entry: Hostile, tmp_path: Path) -> None:
    image = read_image(entry.make(tmp_path))
    assert image.isfinite().all()
