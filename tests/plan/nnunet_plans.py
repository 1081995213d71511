"""Plans of nnU-Net's own planner from the published facts, as `nnunet_plans.json`.

Run where nnU-Net is installed (`tests/benchmarks/nnunet.txt`): python tests/plan/nnunet_plans.py.
Its `3d_fullres` configuration is planned at the spacing of the facts: by `ExperimentPlanner` for
`full` networks and by the ResEnc planner for `residual` ones.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from importlib import metadata
from math import prod
from pathlib import Path
from typing import Any

TARGET = Path(__file__).with_name("nnunet_plans.json")
MEMORIES_GB = (8, 11, 24, 80)


def plans_of(name: str, folder: Path) -> dict[str, Any]:
    """Patch, patches a step and levels by size and memory; axes in the order of segmed."""
    # Imported here: nnU-Net reads the folders from the environment when it is imported.
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import (  # noqa: PLC0415 - see above
        ExperimentPlanner,
    )
    from nnunetv2.experiment_planning.experiment_planners.residual_unets.residual_encoder_unet_planners import (  # noqa: PLC0415, E501 - see above
        nnUNetPlannerResEncM,
    )
    from published_facts import published_facts  # noqa: PLC0415 - beside this file

    _, manifest, facts = published_facts(name)
    dataset = write_dataset(folder, manifest, facts)
    filled = facts.background_zero > 0.25
    shape = [round(n) for n in (facts.median_filled_shape if filled else facts.median_shape)]
    found = {}
    for size, planner in (("full", ExperimentPlanner), ("residual", nnUNetPlannerResEncM)):
        sizes: dict[str, Any] = {}
        for memory_gb in MEMORIES_GB:
            plan = planner(dataset, gpu_memory_target_in_gb=memory_gb).get_plans_for_configuration(
                facts.median_spacing_mm[::-1], shape[::-1], "", facts.num_cases * prod(shape), sizes
            )
            found[f"{size} {memory_gb}"] = {
                "patch": [int(n) for n in plan["patch_size"]][::-1],
                "batch": int(plan["batch_size"]),
                "levels": int(plan["architecture"]["arch_kwargs"]["n_stages"]),
            }
    return found


def write_dataset(folder: Path, manifest: Any, facts: Any) -> str:
    """Write what nnU-Net's planner reads of a set; returns its name."""
    name = f"Dataset{100 + len(list((folder / 'raw').iterdir()))}_{manifest.name}"
    for kind in ("imagesTr", "labelsTr"):
        (folder / "raw" / name / kind).mkdir(parents=True)
    (folder / "preprocessed" / name).mkdir(parents=True)
    record = {
        "channel_names": {str(n): item.modality for n, item in enumerate(manifest.channels)},
        "labels": {"background": 0, **{item.name: item.value for item in manifest.labels}},
        "numTraining": 0,
        "file_ending": ".nii.gz",
    }
    fingerprint = {"median_relative_size_after_cropping": 1 - facts.background_zero}
    (folder / "raw" / name / "dataset.json").write_text(json.dumps(record), encoding="utf-8")
    place = folder / "preprocessed" / name / "dataset_fingerprint.json"
    place.write_text(json.dumps(fingerprint), encoding="utf-8")
    return name


def main() -> None:
    """Plan all sets and write the record."""
    sys.path.append(str(TARGET.parent))
    from published_facts import PUBLISHED  # noqa: PLC0415 - beside this file

    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        for kind in ("raw", "preprocessed", "results"):
            (folder / kind).mkdir()
            os.environ[f"nnUNet_{kind}"] = str(folder / kind)
        plans = {name: plans_of(name, folder) for name in (*PUBLISHED, "hippocampus")}
    record = {"nnunetv2": metadata.version("nnunetv2"), "plans": plans}
    TARGET.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
