"""Preparing an image loads a part of MONAI: the whole costs each process two CPU seconds."""

from __future__ import annotations

import subprocess
import sys

from segmed.plan import write_plan

PREPARE = """
import sys
import torch
from segmed.metatensor import MetaTensor
from segmed.plan import read_plan
from segmed.transforms.chain import prepare
image = MetaTensor(torch.rand(1, 9, 9, 9), affine=torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])))
assert prepare(image, read_plan(sys.argv[1])).tensor.shape[1:] == (18, 9, 9)
print(*sys.modules)
"""


def test_preparing_an_image_loads_neither_networks_nor_data_sets_of_monai(tmp_path, make_plan_for):
    plan = write_plan(make_plan_for(), tmp_path / "plan.yaml")
    done = subprocess.run(
        [sys.executable, "-c", PREPARE, str(plan)],
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "monai.transforms.compose" in loaded
    assert not {"monai.networks.nets", "monai.data.dataset", "monai.engines"} & loaded
