"""Everything that a manifest or a plan takes from names alone, with the reason of each guess."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from segmed.errors import UsageError, unknown_name
from segmed.formats import RASTER_SUFFIXES
from segmed.manifest.schema import Manifest
from segmed.naming import (
    guess_modality,
    guess_sides,
    guess_subjects,
    may_mean_ignored,
    modality,
    subjects,
)
from segmed.structures import Channel

COLOURS = {1: ("grey",), 3: ("red", "green", "blue")}
"""Channel names of rasters, by their number; they name no modality and need none."""


@dataclass(frozen=True)
class Guess:
    """One thing that names decided.

    Attributes:
        subject: The thing, such as `channel 'T1'`.
        value: What it is taken for.
        why: The words that decided, in one clause.
        is_sure: False where the words may mean something else, or say nothing.
        correction: What to do if the guess is wrong.
    """

    subject: str
    value: str
    why: str
    is_sure: bool
    correction: str

    @property
    def line(self) -> str:
        """The guess in one line; unsure ones begin with `unsure`."""
        head = "guessed" if self.is_sure else "unsure"
        return f"{head}: {self.subject}: {self.value}, since {self.why}; {self.correction}"


def guesses_of(manifest: Manifest) -> list[Guess]:
    """List the facts guessed from names: modalities, groups, sides, doubtful labels.

    Args:
        manifest: As built, or written by hand; what it states against the names is said too.
    """
    names = tuple(channel.name for channel in manifest.channels)
    found = [] if COLOURS.get(len(names)) == names else _modalities(manifest.channels)
    found += [*_groups(manifest), *_sides(manifest)]
    return [*found, *_unnamed(manifest), *_ignored(manifest)]


def state_modalities(manifest: Manifest, stated: Mapping[str, str]) -> Manifest:
    """The manifest with modalities as stated instead of guessed.

    Args:
        manifest: As built.
        stated: Modality by channel name; the empty name means all channels.

    Raises:
        UsageError: A name is not a channel, or a modality is not a code of two or more letters.
    """
    names = [channel.name for channel in manifest.channels]
    for name, code in stated.items():
        if name and name not in names:
            raise unknown_name("channel", name, names)
        if not re.fullmatch(r"[A-Z]{2,16}", code):
            raise UsageError(
                f"modality {code!r}: write a DICOM code in capitals, such as CT, MR, PT or OT"
            )
    channels = tuple(
        channel.model_copy(
            update={"modality": stated.get(channel.name, stated.get("", channel.modality))}
        )
        for channel in manifest.channels
    )
    return manifest.model_copy(update={"channels": channels})


def _modalities(channels: Sequence[Channel]) -> list[Guess]:
    found = []
    for channel in channels:
        guess = guess_modality(channel.name)
        subject = f"channel {channel.name!r}"
        repair = f"if not, build with {modality.CORRECTION} {channel.name}=MODALITY"
        if guess.modality == channel.modality:
            found.append(Guess(subject, channel.modality, guess.why, guess.is_sure, repair))
        elif guess.modality != "OT" and channel.modality != "OT":
            value = f"{channel.modality}, as the manifest states"
            why = f"that is stated, although {guess.why}"
            found.append(Guess(subject, value, why, False, repair))
    return found


def _groups(manifest: Manifest) -> list[Guess]:
    group_of = {case.id: case.group for case in (*manifest.training, *manifest.test)}
    guess = guess_subjects(tuple(group_of))
    if guess is None:
        return []
    apart = {
        name: ids
        for name, ids in guess.repeated.items()
        if len({group_of[case_id] for case_id in ids}) > 1
    }
    shown = apart or guess.repeated
    name, ids = next(iter(shown.items()))
    why = f"{', '.join(map(repr, ids[:3]))} look like scans of one patient ({name!r})"
    if len(shown) > 1:
        why += f", and so do the cases of {len(shown) - 1} more"
    if apart:
        repair = (
            f"one patient may be trained on and held out: build with {subjects.CORRECTION} "
            f"'{guess.pattern}' to keep them together"
        )
        return [Guess("groups", "cases of one name in several groups", why, False, repair)]
    if any(group != name for name, ids in guess.groups.items() for group in map(group_of.get, ids)):
        return []  # grouped by something else that names do not say, such as DICOM patients
    repair = f"if not, build with {subjects.CORRECTION} '.+' for a group a case"
    return [Guess("groups", f"{len(guess.groups)} patients", why, guess.is_sure, repair)]


def _sides(manifest: Manifest) -> list[Guess]:
    flat = any(case.image[0].lower().endswith(RASTER_SUFFIXES) for case in manifest.training[:1])
    guess = guess_sides([label.name for label in manifest.labels], flat=flat)
    if guess is None:
        return []
    repair = "if not, plan with --flips 0"
    return [Guess("sides", "images are not mirrored", guess.why, guess.is_sure, repair)]


def _unnamed(manifest: Manifest) -> list[Guess]:
    bare = [label for label in manifest.labels if label.name == f"label_{label.value}"]
    if not bare:
        return []
    values = ", ".join(str(label.value) for label in bare[:8]) + (" ..." if len(bare) > 8 else "")
    shown = ",".join(f"{label.value}=NAME" for label in bare[:3]) + (",..." if bare[3:] else "")
    return [
        Guess(
            "labels",
            f"{len(bare)} structures called by their values ({values})",
            "the source does not name them",
            False,
            f"build with --label-names {shown}",
        )
    ]


def _ignored(manifest: Manifest) -> list[Guess]:
    return [
        Guess(
            f"label {label.name!r}",
            "a structure like others",
            f"{label.name!r} may also mean voxels that were not annotated",
            False,
            f"if so, build with --ignore-value {label.value}: its voxels then enter neither "
            "training nor scores",
        )
        for label in manifest.labels
        if may_mean_ignored(label.name)
    ]
