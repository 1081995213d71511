"""Names of prepared cases: content of their files, and all that decides how they are prepared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from segmed.errors import ManifestError
from segmed.io.digest import sha256_of_json
from segmed.manifest import Case, Manifest
from segmed.manifest.content import encoding_parts, is_as_listed, repair_of, stored_parts
from segmed.manifest.known_digests import KnownDigests
from segmed.plan.schema import Plan
from segmed.transforms.labels import index_dtype

CACHE_FORM = 4
"""Version of what `prepare` does and of how it is kept; raise it when either changes."""


def cache_key(manifest: Manifest, case: Case, plan: Plan) -> str:
    """Hex digest of a case's content and of what the plan does to it before training.

    Raises:
        ManifestError: A file is missing, or its digest is not the manifest's.
    """
    return key_of(manifest, case, rules_of(manifest, plan), KnownDigests().digest)


def rules_of(manifest: Manifest, plan: Plan) -> str:
    """Digest of all that decides how a case of the set is prepared."""
    return sha256_of_json(
        {
            "form": CACHE_FORM,
            "labels": [(label.value, label.name) for label in plan.labels],
            **encoding_parts(plan.encoding),
            **_index_type(plan),
            **stored_parts(manifest),
            "preprocessing": plan.preprocessing.model_dump(mode="json"),
            **({"refines": True} if plan.refines else {}),
        }
    )


def _index_type(plan: Plan) -> dict[str, str]:
    """The type of class indices where it is not uint8: earlier versions wrapped more classes."""
    dtype = index_dtype(len(plan.encoding.stored_values))
    return {} if dtype is torch.uint8 else {"index_type": str(dtype)}


def key_of(
    manifest: Manifest,
    case: Case,
    rules: str,
    digest: Callable[[Path], str],
    label_map: Path | None = None,
) -> str:
    """Name of a case's record.

    Args:
        manifest: Where the case comes from.
        case: One of its cases.
        rules: From `rules_of`.
        digest: Hex digest of a file.
        label_map: Its label map by a first stage, where the plan refines one.

    Raises:
        ManifestError: A file is missing, or its digest is not the manifest's.
    """
    files = [*case.image, *([case.label] if case.label else [])]
    parts = {
        "rules": rules,
        "files": [_checked_digest(manifest, case, name, digest) for name in files],
        "label": case.label is not None,
        **({} if label_map is None else {"first_stage": digest(label_map)}),
    }
    return sha256_of_json(parts)[:32]


def _checked_digest(
    manifest: Manifest, case: Case, name: str, digest: Callable[[Path], str]
) -> str:
    path = manifest.root / name
    try:
        found = digest(path)
    except FileNotFoundError:
        raise ManifestError(
            f"case {case.id!r}: {name} does not exist; `segmed manifest check` lists every fault"
        ) from None
    expected = case.sha256.get(name)
    if expected is not None and not is_as_listed(path, expected, found):
        raise ManifestError(
            f"case {case.id!r}: {name} does not have the content that the manifest states (sha256 "
            f"{found[:12]}, expected {expected[:12]}); {repair_of(path, expected)}"
        )
    return found
