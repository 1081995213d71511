"""Plans that a training or a comparison makes, from facts that are kept for the next plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

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
