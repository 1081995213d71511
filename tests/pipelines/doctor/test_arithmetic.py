"""Findings about a GPU: the driver's version, and a cuDNN that computes bfloat16 wrongly."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from pipelines.doctor.machine import convolution_error, driver, driver_version, judge_arithmetic


def test_rounding_of_bfloat16_is_no_fault_and_a_wrong_result_is_one() -> None:
    error = convolution_error(torch.device("cpu"))
    assert 0 < error < 1e-2
    assert judge_arithmetic(error, "cuDNN 91900").state == "ok"
    for wrong in (0.02, 0.7, float("nan")):
        finding = judge_arithmetic(wrong, "cuDNN 90800")
        assert finding.state == "problem"
        assert "cuDNN 90800" in finding.fact
        assert finding.repair.startswith("install another cuDNN")


@pytest.mark.parametrize(
    ("line", "version"),
    [
        (
            "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat Aug 19 01:15:15 UTC",
            "535.104.05",
        ),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.133.20  Release Build",
            "570.133.20",
        ),
        ("NVRM version: NVIDIA UNIX aarch64 Kernel Module  440.82  Wed Apr  1 20:04:33", "440.82"),
        ("NVRM version: none", None),
    ],
)
def test_driver_is_named_by_the_version_that_it_states(
    line: str, version: str | None, tmp_path: Path
) -> None:
    place = tmp_path / "version"
    text = f"{line}\nGCC version:  gcc version 12.3.0 (Ubuntu 12.3.0-1ubuntu1)\n"
    place.write_text(text, encoding="utf-8")
    assert driver_version(text) == version
    [finding] = driver(place)
    assert finding.fact.startswith(f"NVIDIA {version or 'unknown'}, PyTorch is built for ")


def test_without_a_driver_there_is_no_finding(tmp_path: Path) -> None:
    assert list(driver(tmp_path / "version")) == []
