"""Plans that a training or a comparison makes, from facts that are kept for the next plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipelines.comparing.kinds import STAGES, Kind
from segmed.manifest import Manifest
from segmed.plan import write_plan
from segmed.plan.fingerprint import survey
from segmed.plan.known_facts import KnownFacts
from segmed.plan.make import plan_of_cases


def write_made_plan(manifest: Manifest, place: Path, cache_dir: Path, **wishes: Any) -> None:
    """Make a plan and write it; images whose facts are known are not read again.

    Nothing is written where no plan can be made.

    Args:
        manifest: The image set.
        place: File of the plan.
        cache_dir: Folder of prepared cases, which also keeps their facts.
        wishes: As for `segmed.plan.make.decide_plan`.

    Raises:
        UsageError: The wishes contradict the images.
        ManifestError: A training case cannot be read.
    """
    known = KnownFacts(cache_dir)
    plan = plan_of_cases(manifest, survey(manifest, known=known), **wishes)
    place.parent.mkdir(parents=True, exist_ok=True)
    write_plan(plan, place)
    known.save()


def stages_for(manifest: Manifest, cache_dir: Path, **wishes: Any) -> tuple[Kind, ...]:
    """Stages of a cascade for an image set.

    A single stage at the images' own spacing is among them, unless the first stage is what a single
    network would have: then that is what the cascade is held against.

    Args:
        manifest: The image set.
        cache_dir: Folder of prepared cases, which also keeps their facts.
        wishes: As for `segmed.plan.make.decide_plan`.

    Raises:
        UsageError: The set has no use for a cascade, or the wishes contradict the images.
        ManifestError: A training case cannot be read.
    """
    known = KnownFacts(cache_dir)
    cases = survey(manifest, known=known)
    plan_of_cases(manifest, cases, stage="cascade", **wishes)
    single, own = (plan_of_cases(manifest, cases, stage=s, **wishes) for s in (None, "fullres"))
    known.save()
    is_coarse = single.preprocessing.spacing_mm != own.preprocessing.spacing_mm
    return STAGES[1:] if is_coarse else STAGES
