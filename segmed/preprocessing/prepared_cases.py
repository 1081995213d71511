"""Prepared cases of an image set: which are missing, preparing them, reading parts of them."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from segmed.doors import checked
from segmed.errors import UsageError
from segmed.manifest.schema import Case, Manifest
from segmed.plan.schema import Plan
from segmed.preprocessing.cache import PreparedCache, PreparedCase
from segmed.preprocessing.filling import prepare_cases
from segmed.transforms.first_stage import needs_first_stage


class PreparedCases:
    """The cases that training reads, prepared once and mapped from disk.

    `segmed preprocess` and `segmed train` fill and read their cache by this class, which needs
    nothing of MONAI but its images; `PreparedDataset` gives whole cases to a MONAI loader.

    Args:
        manifest: The image set.
        plan: How its cases are prepared.
        cache: Folder of prepared cases; made where it is missing.
        cases: Cases, or their ids, in order; `manifest.training` where not given.
        label_maps: For a plan that refines a first stage: the label map of each case by it, a file.

    Raises:
        UsageError: No case has an id, there is no case, or a label map is missing.
    """

    @checked()
    def __init__(
        self,
        manifest: Manifest,
        plan: Plan,
        cache: Path | str,
        *,
        cases: Sequence[Case | str] | None = None,
        label_maps: Mapping[str, Path] | None = None,
    ) -> None:
        chosen = manifest.training if cases is None else _cases_of(manifest, cases)
        if not chosen:
            raise UsageError(f"{type(self).__name__} needs at least one case, none was given")
        self.data = list(chosen)
        self.manifest = manifest
        self.plan = plan
        self.cache = Path(cache)
        if plan.refines and not label_maps:
            raise needs_first_stage(plan)
        self.label_maps = label_maps

    def __len__(self) -> int:
        """Number of cases."""
        return len(self.data)

    def __repr__(self) -> str:
        """Number of cases and name of the plan."""
        return f"{type(self).__name__}({len(self)} cases, plan {self.plan.name!r})"

    @cached_property
    def _entries(self) -> PreparedCache:
        """The cache, opened at first use in each process."""
        return PreparedCache(self.manifest, self.plan, self.cache, self.label_maps)

    def __getstate__(self) -> dict[str, Any]:
        """Everything but the open cache: a worker process opens its own."""
        return {name: value for name, value in self.__dict__.items() if name != "_entries"}

    def missing(self) -> list[Case]:
        """Cases that are not in the cache.

        Raises:
            ManifestError: A file is missing, or differs from the manifest's digest.
        """
        return self._entries.missing(self.data)

    def prepare(
        self,
        *,
        on_case: Callable[[], None] | None = None,
        stop: threading.Event | None = None,
    ) -> list[PreparedCase]:
        """Prepare the cases that are not in the cache, several at once.

        Args:
            on_case: Called after each case, prepared or found.
            stop: Ends the preparation after the cases in hand.

        Returns:
            The cases in order, of which parts can be read; if stopped, only those prepared.

        Raises:
            ManifestError: A case cannot be read; the message names it. Cases before it are kept.
        """
        return prepare_cases(self._entries, self.data, on_case=on_case, stop=stop)

    def case(self, index: int) -> PreparedCase:
        """One case of which parts can be read, prepared first if it is missing.

        Args:
            index: Number of the case.

        Raises:
            ManifestError: A file is missing, or differs from the manifest's digest.
            ImageError: A file cannot be read correctly, or does not fit the plan.
        """
        return self._entries.case(self.data[index])


def _cases_of(manifest: Manifest, listed: Sequence[Case | str]) -> list[Case]:
    by_id = {case.id: case for case in (*manifest.training, *manifest.test)}
    return [
        one if isinstance(one, Case) else by_id.get(one) or manifest.case(one) for one in listed
    ]
