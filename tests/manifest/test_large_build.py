"""The work of building a manifest grows with its files, and with nothing else."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from segmed.manifest import build_manifest, census_lines, label_values
from segmed.manifest import content as content_module

NUM_CASES = 60


def test_each_label_is_decoded_once_and_each_file_has_its_digest_taken_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = np.random.default_rng(0)
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    for number in range(NUM_CASES):
        for folder, high in (("images", 256), ("masks", 2)):
            pixels = np.kron(generator.integers(0, high, (4, 4)), np.ones((6, 6)))
            Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / folder / f"c{number}.png")
    decoded: Counter[str] = Counter()
    digested: Counter[str] = Counter()
    real_label, real_digest = label_values.read_label, content_module.sha256_of_file

    def read_label(path: Path, **options: Any) -> Any:
        decoded[str(path)] += 1
        return real_label(path, **options)

    def sha256_of_file(path: Path) -> str:
        digested[str(path)] += 1
        return real_digest(path)

    monkeypatch.setattr(label_values, "read_label", read_label)
    monkeypatch.setattr(content_module, "sha256_of_file", sha256_of_file)
    manifest = build_manifest(tmp_path)
    census_lines(manifest)
    assert len(manifest.training) == NUM_CASES
    assert set(decoded.values()) == {1}
    assert len(decoded) == NUM_CASES
    assert set(digested.values()) == {1}
    assert len(digested) == 2 * NUM_CASES


def test_values_of_a_hundred_thousand_label_files_are_kept() -> None:
    assert label_values._facts_once.cache_parameters()["maxsize"] >= 100_000
