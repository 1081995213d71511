"""Plan: every decision taken from the data before training.

`make_plan` looks at every training case and decides; `write_plan` and `read_plan` keep the decision
as YAML that explains itself; `plan_hash` names it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.plan.make import make_plan
    from segmed.plan.networks import plan_networks
    from segmed.plan.schema import (
        Augmentation,
        Inference,
        Intensity,
        NetworkPlan,
        Plan,
        Preprocessing,
        Recipe,
    )
    from segmed.plan.topology import Topology, plan_patch, plan_topology
    from segmed.plan.yaml_form import plan_hash, read_plan, to_yaml, write_plan
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.plan.make": "make_plan",
            "segmed.plan.networks": "plan_networks",
            "segmed.plan.schema": "Augmentation Inference Intensity NetworkPlan "
            "Plan Preprocessing Recipe",
            "segmed.plan.topology": "Topology plan_patch plan_topology",
            "segmed.plan.yaml_form": "plan_hash read_plan to_yaml write_plan",
        },
    )

__all__ = [
    "Augmentation",
    "Inference",
    "Intensity",
    "NetworkPlan",
    "Plan",
    "Preprocessing",
    "Recipe",
    "Topology",
    "make_plan",
    "plan_hash",
    "plan_networks",
    "plan_patch",
    "plan_topology",
    "read_plan",
    "to_yaml",
    "write_plan",
]
