"""Records of the review page: studies, opinions and label maps as plain JSON values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import numpy.typing as npt

from segmed.archive.index import models_of
from segmed.archive.ledger import Entry
from segmed.archive.review.archive import ReviewArchive, ReviewedStudy
from segmed.archive.review.judgement import judge_study, label_words
from segmed.archive.review.store import Correction, Hold, Opinion
from segmed.archive.triage import MEANINGS, WORDS
from segmed.io import grid_of, source_of
from segmed.io.colours import structure_colour
from segmed.metatensor import MetaTensor

RESULT = "result"
"""Name of the model's newest result among the label maps of a study."""

WINDOW_PERCENTILES = (1.0, 99.5)
CT_WINDOW = (-160.0, 240.0)
"""Soft tissue, in HU."""

SHOWN_RANGE = 32767


def study_rows(archive: ReviewArchive) -> list[dict[str, Any]]:
    """One row a study for the list, the worst first."""
    opinions = _by_key(archive.store.opinions())
    corrections = _by_key(archive.store.corrections())
    holds = archive.store.holds()
    rows = []
    for study in archive.studies():
        entry = study.entry
        own = opinions.get(entry.key, [])
        held = holds.get(entry.key)
        rows.append(
            {
                "key": entry.key,
                "study": entry.study,
                "name": (entry.output or "").removeprefix("segmentations/"),
                "priority": study.priority,
                "flags": flag_records(entry),
                "state": judge_study(own).state,
                "opinions": len(own),
                "corrections": len(corrections.get(entry.key, [])),
                "earlier": len(study.earlier),
                "held": None if held is None else held.author,
            }
        )
    return rows


def _by_key(records: Sequence[Any]) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for record in records:
        found.setdefault(record.key, []).append(record)
    return found


def flag_records(entry: Entry) -> list[dict[str, str]]:
    """Quality flags with their words and meanings."""
    found = []
    for flag in dict.fromkeys(entry.measures.get("flags", ())):
        code, _, label = flag.partition(":")
        words = WORDS.get(code, code)
        found.append(
            {"code": code, "label": label, "words": words, "meaning": MEANINGS.get(code, words)}
        )
    return found


def study_record(archive: ReviewArchive, study: ReviewedStudy) -> dict[str, Any]:
    """Everything about one study but its voxels."""
    entry = study.entry
    image = archive.image(study)
    grid, source = grid_of(image), source_of(image)
    opinions = archive.store.opinions(entry.key)
    corrections = archive.store.corrections(entry.key)
    return {
        "key": entry.key,
        "study": entry.study,
        "name": entry.output,
        "shape": [*grid.shape, 1][:3],
        "affine": grid.affine_ras.tolist(),
        "channels": int(image.shape[0]),
        "states_spacing": source is None or source.states_spacing,
        "structures": structure_records(archive, entry),
        "flags": flag_records(entry),
        "notes": entry.measures.get("notes", []),
        "volumes_ml": entry.measures.get("volumes_ml", {}),
        "judgement": asdict(judge_study(opinions)),
        "opinions": [opinion_record(one) for one in opinions],
        "corrections": [correction_record(one) for one in corrections],
        "maps": map_records(archive, study, corrections),
    }


def structure_records(archive: ReviewArchive, entry: Entry) -> list[dict[str, Any]]:
    """Value, name and colour of each structure."""
    return [
        {"value": label.value, "name": label.name, "colour": list(structure_colour(place))}
        for place, label in enumerate(archive.structures(entry).labels)
    ]


def opinion_record(opinion: Opinion) -> dict[str, Any]:
    """An opinion, with the label map that it is about in words."""
    return {**asdict(opinion), "about": label_words(opinion.correction)}


def correction_record(correction: Correction) -> dict[str, Any]:
    """A correction without its place on the disk."""
    return {
        name: getattr(correction, name) for name in ("id", "author", "made", "origin", "sha256")
    }


def hold_record(hold: Hold) -> dict[str, Any]:
    """A hold without the session that has it."""
    return {"author": hold.author, "until": hold.until}


def map_records(
    archive: ReviewArchive, study: ReviewedStudy, corrections: Sequence[Correction]
) -> list[dict[str, Any]]:
    """The label maps of a study that can be shown, in words."""
    models = models_of(archive.out_dir)

    def named(entry: Entry) -> str:
        version = models.get(entry.package, {}).get("version")
        name = archive.structures(entry).name or entry.package[:12]
        return f"{name} version {version}" if version else name

    return [
        {"id": RESULT, "name": f"result of {named(study.entry)}"},
        *(
            {"id": f"c{one.id}", "name": f"{label_words(one.id)} by {one.author}"}
            for one in reversed(corrections)
        ),
        *({"id": one.key, "name": f"earlier: {named(one)}"} for one in study.earlier),
    ]


def voxels_of(image: MetaTensor, channel: int) -> tuple[bytes, dict[str, str]]:
    """One channel as 16-bit integers, first axis fastest, and the headers that scale them.

    Args:
        image: `[C, *spatial]`.
        channel: Number of the channel, from 0.
    """
    values = np.asarray(image)[channel]
    low, high = (float(value) for value in (values.min(), values.max()))
    is_whole = abs(low) <= SHOWN_RANGE and abs(high) <= SHOWN_RANGE
    is_whole = is_whole and bool((values == np.rint(values)).all())
    slope = 1.0 if is_whole else (high - low) / (2.0 * SHOWN_RANGE) or 1.0
    centre = 0.0 if is_whole else (high + low) / 2.0
    stored = np.rint((values - centre) / slope).astype("<i2")
    source = source_of(image)
    is_ct = source is not None and source.modality == "CT"
    sample = values.reshape(-1)[:: max(1, values.size // 200_000)]
    window = CT_WINDOW if is_ct else np.percentile(sample, WINDOW_PERCENTILES)
    headers = {
        "x-slope": repr(slope),
        "x-intercept": repr(centre),
        "x-window": f"{float(window[0])!r} {float(window[1])!r}",
    }
    return stored.tobytes(order="F"), headers


def label_voxels(values: npt.NDArray[Any]) -> bytes:
    """A label map as unsigned 16-bit integers, first axis fastest."""
    return values.astype("<u2").tobytes(order="F")
