"""The check of bfloat16 passes a sound device and names a cuDNN that computes wrongly."""

from __future__ import annotations

import torch

from pipelines.doctor.machine import convolution_error, judge_arithmetic


def test_rounding_of_bfloat16_is_no_fault_and_a_wrong_result_is_one() -> None:
    error = convolution_error(torch.device("cpu"))
    assert 0 < error < 1e-2
    assert judge_arithmetic(error, "cuDNN 91900").state == "ok"
    for wrong in (0.02, 0.7, float("nan")):
        finding = judge_arithmetic(wrong, "cuDNN 90800")
        assert finding.state == "problem"
        assert "cuDNN 90800" in finding.fact
        assert finding.repair.startswith("install another cuDNN")
