"""Device and precision of a network."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import torch

from segmed.errors import UsageError


@dataclass(frozen=True)
class Device:
    """A device and why it was chosen.

    Attributes:
        torch_device: What PyTorch calls it.
        autocast_dtype: Reduced precision for the forward pass; absent for float32.
        why: The choice in words, for logs and `segmed doctor`.
    """

    torch_device: torch.device
    autocast_dtype: torch.dtype | None
    why: str

    @property
    def is_cuda(self) -> bool:
        """Return whether this is an NVIDIA (or ROCm) GPU."""
        return self.torch_device.type == "cuda"


def choose_device(name: str = "auto") -> Device:
    """The device for a name, or the best one there is.

    Args:
        name: `auto`, `cpu`, `cuda` or `cuda:N`. Under `torchrun`, `cuda` means the local rank's.

    Returns:
        The device. GPUs with bfloat16 use it; older ones use float16; CPUs stay in float32.

    Raises:
        UsageError: The name is unknown, or names a GPU that is not there.
    """
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", name):
        raise UsageError(f"unknown device {name!r}: known are auto, cpu, cuda, cuda:N")
    if name == "cpu":
        return Device(torch.device("cpu"), None, "cpu, as requested")
    if not torch.cuda.is_available():
        if name != "auto":
            raise UsageError(
                f"device {name!r} requested, but PyTorch {torch.__version__} finds no GPU; "
                "use --device cpu, or install a CUDA build of PyTorch and check `nvidia-smi`"
            )
        threads = torch.get_num_threads()
        return Device(torch.device("cpu"), None, f"cpu ({threads} threads): no GPU is visible")
    index = int(os.environ.get("LOCAL_RANK", "0")) if ":" not in name else int(name[5:])
    if index >= torch.cuda.device_count():
        raise UsageError(f"device {name!r}: only {torch.cuda.device_count()} GPUs are visible")
    with torch.cuda.device(index):
        # PyTorch emulates bfloat16 on GPUs before Ampere, slower than float32.
        is_native = torch.cuda.is_bf16_supported(including_emulation=False)
    dtype = torch.bfloat16 if is_native else torch.float16
    label = torch.cuda.get_device_name(index)
    return Device(torch.device("cuda", index), dtype, f"cuda:{index} ({label}), {dtype} autocast")
