"""A signal after OpenVINO came and went: it is handled, and ends nothing."""

from __future__ import annotations

import subprocess
import sys

import pytest


def test_signal_stack_is_given_back() -> None:
    pytest.importorskip("openvino", reason="openvino is an optional dependency")
    code = """
import ctypes, gc, os, signal, sys, warnings
warnings.simplefilter("ignore")
sys.modules["openvino_telemetry"] = None
import numpy as np, openvino as ov, torch
from segmed.inference.signal_stack import _SignalStack, unchanged_signal_stack
with unchanged_signal_stack():
    model = ov.convert_model(torch.nn.Conv2d(1, 2, 3), example_input=torch.zeros(1, 1, 8, 8))
    compiled = ov.Core().compile_model(model, "CPU")
compiled(np.zeros((1, 1, 8, 8), np.float32))
now = _SignalStack()
ctypes.CDLL(None).sigaltstack(None, ctypes.byref(now))
assert not now.pointer, "a foreign signal stack is left behind"
del compiled, model
gc.collect()
signal.signal(signal.SIGTERM, lambda *_: print("handled", flush=True))
os.kill(os.getpid(), signal.SIGTERM)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        timeout=360,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr[-500:]
    assert done.stdout.strip() == "handled"
