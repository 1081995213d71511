"""The blocks of the page on extensions run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest
from documentation import REPOSITORY, shown_on

PAGE = REPOSITORY / "docs" / "extending.md"


@pytest.mark.slow
def test_blocks_of_the_page_run_in_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_registrations: None
) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [shown for shown in shown_on(PAGE) if shown.language == "python"]
    assert len(blocks) >= 6
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block.text, f"{PAGE.name}:{block.line}", "exec"), names)
    assert {path.name for path in tmp_path.glob("scan*")} == {
        "scan.npz", "scan.nii.gz", "scan_segmentation.npz", "scan_segmentation.nii.gz",
    }  # fmt: skip


def test_examples_announce_the_networks_that_they_register(monai_networks: None) -> None:
    import tomllib  # noqa: PLC0415 - this test alone

    from segmed.architectures import GROUP, registered_names  # noqa: PLC0415 - likewise

    project = tomllib.loads(
        (REPOSITORY / "docs" / "examples" / "pyproject.toml").read_text(encoding="utf-8")
    )
    points = project["project"]["entry-points"][GROUP]
    assert set(points) == set(registered_names())
    assert set(points.values()) == {"monai_networks"}
