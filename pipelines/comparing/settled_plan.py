"""The plan of a training or a comparison: the one that was named, the one that is there, or new."""

from __future__ import annotations

from pathlib import Path

from pipelines.comparing.jobs import CACHE
from pipelines.comparing.kinds import Kind, plan_of_kind, wishes_of
from pipelines.comparing.progress import progress
from pipelines.comparing.resources import memory_for, remark_on_budget, size_for
from segmed.manifest import read_manifest
from segmed.plan import read_plan
from segmed.plan.agreement import require_same_channels, require_same_labels
from segmed.plan.networks import size_of
from segmed.plan.resources import Resources


def settle_plan(
    manifest_path: Path,
    plan_path: Path | None,
    out_dir: Path,
    *,
    size: str | None = None,
    resources: Resources | None = None,
    device: str = "cpu",
    is_fresh: bool = False,
    kind: Kind | None = None,
) -> Path:
    """The plan to use: the one that was named, the one in `out_dir`, or a new one there.

    Args:
        manifest_path: The manifest.
        plan_path: The plan that was named, if one was.
        out_dir: Folder of the comparison.
        size: Size of the networks of a plan that is made; a plan of another size in `out_dir` is
            used with a remark.
        resources: Time and device of one training, for a plan that is made; a plan that was made
            for another time is used with a remark.
        device: Device of the trainings; decides size and memory of a plan that is made.
        is_fresh: All is trained anew: a plan of another size in `out_dir` is replaced.
        kind: Kind of a plan that is made, in a file of its own.

    Raises:
        ManifestError: The manifest cannot be read.
        UsageError: The plan cannot be read, or was made for another image set.
    """
    manifest = read_manifest(manifest_path)
    place = plan_path or plan_of_kind(out_dir / "plan.yaml", kind)
    remark = "" if plan_path else _remark_on_size(place, size)
    if plan_path is None and (not place.exists() or (is_fresh and remark)):
        from pipelines.comparing.planning import write_made_plan  # noqa: PLC0415 - reads images

        write_made_plan(
            manifest,
            place,
            out_dir / CACHE,
            **wishes_of(kind),
            size=size_for(size, device),
            memory_gb=memory_for(device),
            resources=resources,
        )
    elif remark:
        progress.warning("%s", remark)
    plan = read_plan(place)
    require_same_labels(plan, manifest)
    require_same_channels(plan, manifest)
    if remark := remark_on_budget(plan, resources):
        progress.warning("%s: %s", place, remark)
    return place


def _remark_on_size(place: Path, size: str | None) -> str:
    """A sentence for a plan whose networks have another size than was requested."""
    if size is None or not place.exists():
        return ""
    planned = size_of(read_plan(place).networks)
    if planned == size:
        return ""
    return (
        f"--size {size} is not used: {place} was made with {planned or 'other'} networks and is "
        "kept for the trainings in this folder; give another --out, or with `segmed compare` "
        "--fresh to train all anew"
    )
