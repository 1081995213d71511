"""Queries by what series say of themselves, in folders and of what a PACS lists."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest

from segmed.archive import FolderSource, NotImage, Study, segment_archive
from segmed.archive.pacs.remote import RemoteSeries
from segmed.archive.query import SeriesQuery
from segmed.errors import UsageError
from segmed.inference import Predictor
from segmed.package.series_rules import ChannelRule, Rules

T1 = RemoteSeries("1", "1.1", "MR", "T1 post contrast", "BRAIN")
CT = RemoteSeries("1", "1.2", "CT", "thorax", "CHEST")
SEG = RemoteSeries("1", "1.3", "SEG", "segmentation", "BRAIN")


@pytest.mark.parametrize(
    ("query", "wanted"),
    [
        (SeriesQuery(), [T1, CT]),
        (SeriesQuery(modalities=("CT", "PT")), [CT]),
        (SeriesQuery(description="t1.*POST"), [T1]),
        (SeriesQuery(body_part="chest"), [CT]),
        (SeriesQuery(not_segmented=True), []),
    ],
)
def test_series_are_chosen_by_what_they_say(query: SeriesQuery, wanted: list[RemoteSeries]) -> None:
    assert query.select([T1, CT, SEG]) == wanted


def test_study_without_a_segmentation_is_not_segmented_yet() -> None:
    assert SeriesQuery(not_segmented=True).select([T1, CT]) == [T1, CT]


def test_description_that_is_no_expression_is_refused() -> None:
    with pytest.raises(UsageError, match="not a regular expression"):
        SeriesQuery(description="(")


def descriptions(source: FolderSource) -> set[str]:
    return {
        audit.description
        for item in source.studies()
        if isinstance(item, Study)
        for audit in item.audits
    }


@pytest.fixture(scope="module")
def pgbm(shared_data: Callable[[str], Path]) -> Path:
    return shared_data("pgbm")


def test_real_series_of_a_folder_are_found_by_description_and_body_part(pgbm: Path) -> None:
    flair = SeriesQuery(description="flair", body_part="brain", modalities=("MR",))
    assert descriptions(FolderSource(pgbm, query=flair)) == {"FLAIR_reg"}
    assert descriptions(FolderSource(pgbm, query=SeriesQuery(body_part="KNEE"))) == set()


def test_contrast_is_read_from_real_series(pgbm: Path) -> None:
    for contrast, found in ((True, {"T1post"}), (False, {"FLAIR_reg"})):
        rule = ChannelRule(name="image", contrast=contrast, description="T1|FLAIR")
        source = FolderSource(pgbm, rules=Rules(channels=(rule,)))
        assert descriptions(source) == found
        assert len([item for item in source.studies() if isinstance(item, Study)]) == 2


def test_channels_of_several_real_series_come_in_the_order_of_the_rules(pgbm: Path) -> None:
    rules = Rules(
        channels=(
            ChannelRule(name="FLAIR", description="flair"),
            ChannelRule(name="T1post", contrast=True),
        )
    )
    studies = list(FolderSource(pgbm, num_channels=2, rules=rules).studies())
    chosen = [
        [audit.description for audit in study.audits]
        for study in studies
        if isinstance(study, Study)
    ]
    assert chosen == [["FLAIR_reg", "T1post"]] * 2
    left_out = [item.why for item in studies if isinstance(item, NotImage)]
    assert sum("series not chosen by the rules" in why for why in left_out) == 2 * (22 + 24)


def test_studies_that_hold_a_segmentation_are_left_out_when_asked(
    tmp_path: Path, predictor: Predictor, write_dicom: Callable[..., list[Path]]
) -> None:
    for seed in range(2):
        write_dicom(tmp_path / f"archive/{seed}", seed)
    source = FolderSource(tmp_path / "archive", query=SeriesQuery(not_segmented=True))
    run = segment_archive(source, predictor=predictor, out_dir=tmp_path / "out", format="dicom-seg")
    first, second = (tmp_path / "out" / str(outcome.output) for outcome in run)
    shutil.copy(first, tmp_path / "archive" / "result-of-somebody")
    [left] = [item for item in source.studies() if isinstance(item, Study)]
    assert second.name.startswith(left.name)


def test_folder_is_asked_by_the_days_on_which_files_changed(
    tmp_path: Path, write_nifti: Callable[..., Path]
) -> None:
    for day in (1, 2, 3):
        path = write_nifti(tmp_path / f"{day}.nii.gz", day)
        moment = datetime(2026, 5, day, 12).timestamp()
        os.utime(path, (moment, moment))
    source = FolderSource(tmp_path, since=datetime(2026, 5, 2), until=datetime(2026, 5, 3))
    assert [study.place for study in source.studies() if isinstance(study, Study)] == ["2.nii.gz"]


def test_damaged_dicom_is_refused_by_name_whatever_is_asked_for(
    tmp_path: Path, write_dicom: Callable[..., list[Path]]
) -> None:
    [first, *_] = write_dicom(tmp_path / "whole", 1)
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "1.dcm").write_bytes(first.read_bytes()[:140])
    source = FolderSource(tmp_path, query=SeriesQuery(modalities=("CT",)))
    [study] = [item for item in source.studies() if isinstance(item, Study)]
    assert study.fault is not None
    assert study.place.startswith("part/1.dcm")
