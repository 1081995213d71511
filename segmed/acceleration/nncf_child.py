"""Child process that quantises a network by NNCF, or compares the layers of two networks.

Run as a file, isolated from the environment, with a JSON request on the command line. A compiler
can die of a segmentation fault, and NNCF prints progress bars and would report its use: none of
this reaches the parent.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

UNROUNDED = ("MaxPool",)
"""Operations that numbers pass in float32 and are rounded after.

OpenVINO 2026.4 has no kernel of max pooling of volumes in int8, and computes a layer behind rounded
numbers that were pooled in float32, too: a U-Net is a tenth slower.
"""

LAYERS_AT_ONCE = 4
"""Layers whose outputs are in memory at the same time."""


def quantise_file(request: dict[str, Any]) -> None:
    """Quantise the float32 model and write it."""
    import nncf  # noqa: PLC0415 - the telemetry must be barred before
    import numpy as np  # noqa: PLC0415 - likewise
    import openvino as ov  # noqa: PLC0415 - likewise

    core = _core(request["hints"])
    windows = np.load(request["windows"], mmap_mode="r")
    quantised = nncf.quantize(
        core.read_model(request["model"]),
        nncf.Dataset([np.ascontiguousarray(window[None]) for window in windows]),
        subset_size=len(windows),
        preset=nncf.QuantizationPreset.MIXED,
        ignored_scope=nncf.IgnoredScope(
            names=request["float32_layers"], types=list(UNROUNDED), validate=False
        ),
    )
    ov.save_model(quantised, request["out"], compress_to_fp16=False)
    versions = {"nncf": nncf.__version__, "openvino": ov.get_version().split("-")[0]}
    Path(request["versions"]).write_text(json.dumps(versions), encoding="utf-8")


def compare_layers(request: dict[str, Any]) -> None:
    """Write the error that each layer adds in int8: that of its output less that of its input."""
    import numpy as np  # noqa: PLC0415 - see `quantise_file`

    core = _core(request["hints"])
    window = np.ascontiguousarray(np.load(request["windows"], mmap_mode="r")[:1])
    names, found = request["layers"], {}
    for first in range(0, len(names), LAYERS_AT_ONCE):
        chosen = names[first : first + LAYERS_AT_ONCE]
        plain = _values(core, core.read_model(request["model"]), chosen, window)
        int8 = _values(core, core.read_model(request["int8"]), chosen, window)
        for name in chosen:
            errors = [
                float(np.linalg.norm(there - here)) / max(float(np.linalg.norm(here)), 1e-12)
                for here, there in zip(plain[name], int8[name], strict=True)
            ]
            found[name] = errors[0] - errors[1]
    Path(request["errors"]).write_text(json.dumps(found), encoding="utf-8")


def _values(core: Any, model: Any, layers: list[str], window: Any) -> dict[str, list[Any]]:
    """Output of each layer, and its input before it is rounded."""
    nodes = {node.get_friendly_name(): node for node in model.get_ops()}
    outputs = []
    for name in layers:
        source = nodes[name].input_value(0)
        while source.get_node().get_type_name() == "FakeQuantize":
            source = source.get_node().input_value(0)
        outputs += [nodes[name].output(0), source]
    count = len(model.outputs)
    model.add_outputs(outputs)
    results = [result.input_value(0) for result in model.get_results()]
    values = list(core.compile_model(model, "CPU")(window).to_tuple())
    place = {
        (value.get_node().get_friendly_name(), value.get_index()): number
        for number, value in enumerate(results)
    }
    assert len(values) >= count
    return {
        name: [
            values[place[(output.get_node().get_friendly_name(), output.get_index())]]
            for output in outputs[2 * number : 2 * number + 2]
        ]
        for number, name in enumerate(layers)
    }


def _core(hints: dict[str, str]) -> Any:
    """OpenVINO's core; every other one of this process, such as NNCF's, compiles like it."""
    import openvino as ov  # noqa: PLC0415 - see `quantise_file`

    class HintedCore(ov.Core):
        def compile_model(self, *args: Any, config: Any = None, **rest: Any) -> Any:
            """Compile with the hints that keep the compiler from a segmentation fault."""
            return super().compile_model(*args, config={**hints, **(config or {})}, **rest)

    ov.Core = HintedCore
    return HintedCore()


if __name__ == "__main__":
    sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]  # forbids the import
    given = json.loads(sys.argv[1])
    {"quantise": quantise_file, "compare": compare_layers}[given["task"]](given)
