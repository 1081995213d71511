"""The blocks of the page on MONAI run from top to bottom."""

from __future__ import annotations

from pathlib import Path

import pytest
from documentation import REPOSITORY, shown_on

PAGE = REPOSITORY / "docs" / "monai.md"


# MONAI's `LoadImage` makes all of its readers, one of which lacks NVIDIA's decoder.
@pytest.mark.filterwarnings("ignore:NvImgCodecPydicomReader:UserWarning")
def test_blocks_of_the_page_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    blocks = [shown for shown in shown_on(PAGE) if shown.language == "python"]
    assert len(blocks) == 6
    names: dict[str, object] = {"__name__": "__main__"}
    for block in blocks:
        exec(compile(block.text, f"{PAGE.name}:{block.line}", "exec"), names)
    assert set(names["evaluator"].state.metrics) == {"dice", "hd95_mm"}
