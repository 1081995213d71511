"""What is decided from the data before anything is trained.

`make_plan` looks at every training case and decides; `write_plan` and `read_plan` keep the decision
as YAML that explains itself; `plan_hash` names it.
"""

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

__all__ = [
    "Augmentation",
    "Inference",
    "Intensity",
    "NetworkPlan",
    "Plan",
    "Preprocessing",
    "Recipe",
    "Topology",
    "plan_hash",
    "plan_networks",
    "plan_patch",
    "plan_topology",
    "read_plan",
    "to_yaml",
    "write_plan",
]
