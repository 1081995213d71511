"""Received instances: whole or not at all, once, and found again by the next process."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Callable
from pathlib import Path

import pydicom
import pytest

from segmed.archive.watch.inbox import DRAFTS, Inbox
from segmed.errors import ImageError


@pytest.fixture
def contents(tmp_path: Path, write_dicom: Callable[..., list[Path]]) -> list[bytes]:
    return [path.read_bytes() for path in write_dicom(tmp_path / "sent", 3)]


def changed(content: bytes, **values: str) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(content))
    for name, value in values.items():
        setattr(dataset, name, value)
    out = io.BytesIO()
    dataset.save_as(out, enforce_file_format=True)
    return out.getvalue()


def test_copy_changes_nothing_and_other_bytes_replace(
    tmp_path: Path, contents: list[bytes]
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    assert inbox.store(contents[0])
    [ref] = [one.ref for one in inbox.arrivals()]
    state = inbox.state_of(ref)
    assert not inbox.store(contents[0])
    assert inbox.state_of(ref) == state
    assert inbox.store(changed(contents[0], ImageComments="corrected"))
    assert inbox.state_of(ref) != state
    assert [one.instances for one in inbox.arrivals()] == [1]


def test_settled_study_is_open_again_when_it_grows_and_after_a_restart(
    tmp_path: Path, contents: list[bytes]
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    for content in contents[:3]:
        inbox.store(content)
    [study] = inbox.arrivals()
    inbox.settle(study.ref, inbox.state_of(study.ref))
    assert inbox.arrivals() == []
    assert Inbox(tmp_path / "inbox").arrivals() == []
    inbox.store(contents[0])  # a copy
    assert inbox.arrivals() == []
    inbox.store(contents[3])
    assert [one.instances for one in inbox.arrivals()] == [4]
    assert [one.instances for one in Inbox(tmp_path / "inbox").arrivals()] == [4]


def test_study_that_changed_meanwhile_is_not_settled(tmp_path: Path, contents: list[bytes]) -> None:
    inbox = Inbox(tmp_path / "inbox")
    inbox.store(contents[0])
    [study] = inbox.arrivals()
    state = inbox.state_of(study.ref)
    inbox.store(contents[1])
    inbox.settle(study.ref, state)
    assert len(inbox.arrivals()) == 1


def test_two_patients_with_equal_uids_are_two_studies(
    tmp_path: Path, contents: list[bytes]
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    inbox.store(contents[0])
    inbox.store(changed(contents[0], PatientID="another"))
    assert len(inbox.arrivals()) == 2


def test_drafts_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    root = tmp_path / "inbox"
    Inbox(root)
    (root / DRAFTS / "half.dcm").write_bytes(b"half")
    Inbox(root)
    assert list((root / DRAFTS).iterdir()) == []


@pytest.mark.parametrize("content", [b"", b"no DICOM", b"\0" * 128 + b"DICM" + b"\xff" * 40])
def test_bytes_that_are_no_instance_are_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(ImageError):
        Inbox(tmp_path / "inbox").store(content)


def test_instance_without_a_study_or_of_another_name_is_refused(
    tmp_path: Path, contents: list[bytes]
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    with pytest.raises(ImageError, match="no UID"):
        inbox.store(changed(contents[0], StudyInstanceUID=""))
    with pytest.raises(ImageError, match="another instance"):
        inbox.store(contents[0], "1.2.3")
    assert inbox.arrivals() == []


def test_files_are_private_and_their_names_have_no_identifier(
    tmp_path: Path, contents: list[bytes]
) -> None:
    Inbox(tmp_path / "inbox").store(contents[0])
    [path] = (tmp_path / "inbox").rglob("[!.]*.dcm")
    assert path.stat().st_mode & 0o077 == 0
    header = pydicom.dcmread(path, stop_before_pixels=True)
    for value in (header.PatientID, header.StudyInstanceUID, header.SOPInstanceUID):
        assert str(value) not in str(path)


def test_images_of_settled_studies_are_removed_when_they_are_old(
    tmp_path: Path, contents: list[bytes]
) -> None:
    inbox = Inbox(tmp_path / "inbox")
    inbox.store(contents[0])
    [study] = inbox.arrivals()
    assert inbox.remove_settled(0.0) == 0
    inbox.settle(study.ref, inbox.state_of(study.ref))
    assert inbox.remove_settled(60.0) == 0
    mark = tmp_path / "inbox/.settled" / study.ref
    os.utime(mark, (time.time() - 100, time.time() - 100))
    assert inbox.remove_settled(60.0) == 1
    assert not (tmp_path / "inbox" / study.ref).exists()
