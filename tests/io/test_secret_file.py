"""Secrets are drawn once, readable to their owner alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from segmed.errors import UsageError
from segmed.io.secret_file import secret_in


def test_secret_is_drawn_once_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "config" / "secret"
    assert secret_in(path, "salt", lambda: b"first") == b"first"
    assert secret_in(path, "salt", lambda: b"second") == b"first"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o610])
def test_secret_that_others_may_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "secret"
    path.write_bytes(b"known")
    path.chmod(mode)
    with pytest.raises(UsageError, match=f"others may read the study key .*: `chmod 600 {path}`"):
        secret_in(path, "study key", lambda: b"new")
    assert path.read_bytes() == b"known"


def test_secret_of_another_process_that_was_first_is_taken(tmp_path: Path) -> None:
    path = tmp_path / "secret"

    def late() -> bytes:
        secret_in(path, "salt", lambda: b"theirs")
        return b"ours"

    assert secret_in(path, "salt", late) == b"theirs"
    assert path.read_bytes() == b"theirs"
