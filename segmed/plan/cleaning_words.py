"""Steps of post-processing in words, for cards, reports and read-me files."""

from __future__ import annotations

from segmed.plan.schema import Plan


def step_in_words(step: str, structure: str, *, min_voxels: int = 0, min_ml: float = 0.0) -> str:
    """A step in words, such as `keep the largest component of anterior`.

    Args:
        step: `keep_largest`, `remove_small` or `fill_holes`.
        structure: Name of the structure.
        min_voxels: Voxels of the smallest component that stays (`remove_small`).
        min_ml: The same in millilitres; larger than 0 it comes before `min_voxels`.
    """
    if step == "keep_largest":
        return f"keep the largest component of {structure}"
    if step == "fill_holes":
        return f"fill the holes of {structure}"
    size = f"{min_ml:g} ml" if min_ml else f"{min_voxels} voxels"
    return f"remove components of {structure} below {size}"


def rules_in_words(plan: Plan) -> list[str]:
    """Post-processing by the rules of a plan, one text a step, in the order of the steps."""
    names, rules = {label.value: label.name for label in plan.labels}, plan.inference

    def name(value: int) -> str:
        return names.get(value, f"label {value}")

    return [
        *(step_in_words("keep_largest", name(value)) for value in rules.keep_largest),
        *(
            step_in_words("remove_small", name(value), min_voxels=size)
            for value, size in rules.remove_small.items()
        ),
        *(
            step_in_words("remove_small", name(value), min_ml=size)
            for value, size in rules.remove_small_ml.items()
        ),
        *(step_in_words("fill_holes", name(value)) for value in rules.fill_holes),
    ]
