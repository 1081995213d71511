"""A training loads a part of MONAI: the whole costs each process four CPU seconds."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

TRAIN = """
import sys
from pathlib import Path
from narrow_training import few_cases, narrow_plan, start
manifest, out = few_cases(Path(sys.argv[1])), Path(sys.argv[2])
assert len(list(start(manifest, narrow_plan(manifest), out / "run", out / "cache"))) == 2
print(*(name for name in sys.modules if name.startswith("monai")))
"""


def test_a_training_loads_neither_networks_nor_engines_of_monai(
    sample_manifest_path: Path, tmp_path: Path
) -> None:
    folders = [str(Path(__file__).parent), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    done = subprocess.run(
        [sys.executable, "-c", TRAIN, str(sample_manifest_path), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(folders)},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "monai.data.meta_tensor" in loaded
    assert not {"monai.networks.nets", "monai.data.dataset", "monai.engines"} & loaded
