"""Files get a second name by a link, or a copy where there are no links."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from segmed.io.links import link_or_copy


def test_file_on_one_disk_is_linked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"voxels")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").samefile(tmp_path / "a")


def test_target_of_a_symbolic_link_is_linked(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"voxels")
    (tmp_path / "s").symlink_to("a")
    link_or_copy(str(tmp_path / "s"), str(tmp_path / "b"))
    assert not (tmp_path / "b").is_symlink()
    assert (tmp_path / "b").samefile(tmp_path / "a")


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_file_is_copied_where_links_do_not_reach(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    (tmp_path / "a").write_bytes(b"voxels")
    link_or_copy(tmp_path / "a", tmp_path / "b")
    assert (tmp_path / "b").read_bytes() == b"voxels"
    assert not (tmp_path / "b").samefile(tmp_path / "a")
