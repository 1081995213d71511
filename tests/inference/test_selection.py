"""Rules that choose series, and say why."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from segmed.errors import UsageError
from segmed.inference.selection import choose_series
from segmed.io.dicom.series import SeriesAudit
from segmed.package.series_rules import ChannelRule, Rules, read_rules


def audit(number: int, **values: Any) -> SeriesAudit:
    """A sound axial MR series of 20 slices."""
    defaults: dict[str, Any] = {
        "series_uid": f"1.2.{number}",
        "study_uid": "1.2",
        "files": (Path(f"{number}.dcm"),),
        "usable": True,
        "modality": "MR",
        "description": f"T{number} axial",
        "shape": (64, 64, 20),
        "spacing_mm": (1.0, 1.0, 3.0),
        "affine_ras": np.diag([-1.0, -1.0, 3.0, 1.0]),
    }
    return SeriesAudit(**{**defaults, **values})


def test_without_rules_each_series_is_a_study() -> None:
    choices = list(choose_series([audit(1), audit(2)], None))
    assert [choice.audits[0].series_uid for choice in choices] == ["1.2.1", "1.2.2"]


def test_several_channels_without_rules_are_refused() -> None:
    [choice] = choose_series([audit(1), audit(2)], None, num_channels=2)
    assert choice.fault is not None
    assert choice.fault.reason == "needs_rules"


def test_channels_come_in_the_order_of_the_rules_and_the_rest_is_listed() -> None:
    rules = Rules(
        channels=(
            ChannelRule(name="T2", description="^t2"),
            ChannelRule(name="T1", description="^t1"),
        )
    )
    [choice] = choose_series([audit(1), audit(2), audit(3)], rules, num_channels=2)
    assert [chosen.series_uid for chosen in choice.audits] == ["1.2.2", "1.2.1"]
    ((path, why),) = choice.left_out
    assert path == Path("3.dcm")
    assert why.startswith("series not chosen by the rules (")
    assert len(choice.because) == len(choice.audits)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        ({"modality": "CT"}, "modality MR instead of CT"),
        ({"orientation": "sagittal"}, "slices axial instead of sagittal"),
        ({"max_spacing_mm": 2.0}, "voxel edge 3 mm over 2 mm"),
        ({"min_slices": 30}, "20 slices, fewer than 30"),
        ({"description": "flair"}, "another description"),
        ({"body_part": "KNEE"}, "another body part than KNEE"),
        ({"contrast": True}, "no contrast agent"),
    ],
)
def test_misses_are_explained(rule: dict[str, Any], told: str) -> None:
    rules = Rules(channels=(ChannelRule(name="x", **rule),))
    [choice] = choose_series([audit(1)], rules)
    assert choice.fault is not None
    assert choice.fault.reason == "no_series_fits"
    assert told in choice.fault.message
    assert "T1 axial" not in choice.fault.message


def test_ties_are_refused_unless_a_preference_decides() -> None:
    series = [audit(1), audit(2, shape=(64, 64, 40))]
    [tie] = choose_series(series, Rules(channels=(ChannelRule(name="x"),)))
    assert tie.fault is not None
    assert tie.fault.reason == "several_series_fit"
    rules = Rules(channels=(ChannelRule(name="x", prefer="most_slices"),))
    [choice] = choose_series(series, rules)
    assert [chosen.series_uid for chosen in choice.audits] == ["1.2.2"]


def test_unsound_series_that_alone_fits_gives_its_own_reason() -> None:
    gap = audit(1, usable=False, reason="missing_slice", message="1.dcm: a gap", affine_ras=None)
    [choice] = choose_series([gap], Rules(channels=(ChannelRule(name="x", modality="MR"),)))
    assert choice.fault is not None
    assert (choice.fault.reason, choice.fault.message) == ("missing_slice", "file 1 of 1: a gap")


def test_rules_file_with_an_unknown_key_names_it(tmp_path: Path) -> None:
    path = tmp_path / "rules.yaml"
    path.write_text("channels:\n  - name: T1\n    modalty: MR\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"channels\.0\.modalty"):
        read_rules(path)
    path.write_text("channels:\n  - name: T1\n    description: '('\n", encoding="utf-8")
    with pytest.raises(UsageError, match="not a regular expression"):
        read_rules(path)
