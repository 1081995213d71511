"""A package's network as an ONNX file, for other people's runtimes."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from segmed.package import ModelPackage


def export_onnx(package: ModelPackage, path: Path | str, *, batch: int = 1) -> Path:
    """Write the network, from scaled windows to logits, as ONNX.

    Args:
        package: The package; its plan says the size of a window.
        path: `.onnx` file to write; it appears whole or not at all.
        batch: Windows at once; the size is fixed in the file.

    Returns:
        `path`. Preprocessing and blending are not in the file: they belong to the plan.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    example = torch.zeros((batch, package.plan.in_channels, *package.plan.patch_size))
    beside = path.with_name(f".{path.name}.part")
    with warnings.catch_warnings():
        # The exporter warns of its own internals; the test compares the file's output with ours.
        warnings.simplefilter("ignore")
        program = torch.onnx.export(
            package.build(),
            (example,),
            input_names=["windows"],
            output_names=["logits"],
            dynamo=True,
            verbose=False,
        )
        assert program is not None
        program.save(str(beside), include_initializers=True, external_data=False)
    beside.replace(path)
    return path
