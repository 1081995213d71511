"""A small image set for commands that build a manifest, and commands with all that they said."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from small_sets import paired_set, save_nifti
from typer.testing import CliRunner

from pipelines.cli.app import app

__all__ = ["paired_set", "save_nifti"]


@pytest.fixture
def run(
    caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> Callable[..., bytes]:
    """Gives a function that runs `segmed` and returns all that it said, in logs too."""
    caplog.set_level(logging.INFO)
    caplog.set_level(logging.DEBUG, logger="segmed")

    def call(*words: str | Path, status: int) -> bytes:
        caplog.clear()
        result = CliRunner().invoke(app, [str(word) for word in words])
        assert result.exit_code == status, result.output
        streams = capfd.readouterr()
        return "\n".join((result.output, caplog.text, streams.out, streams.err)).encode()

    return call
