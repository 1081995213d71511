"""One rule of grouping: `scan`, `predict` and `archive` find the same series in the same files."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from broken_series import another, only, save
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.uid import generate_uid

from segmed.archive import FolderSource, NotImage, Study
from segmed.inference.inputs import find_cases
from segmed.io import read_image
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.grouping import may_be_image
from segmed.io.dicom.series import scan
from segmed.io.dicom.sort import sort_series

Real = tuple[FileDataset, ...]
Found = set[tuple[str | None, int]]


def copied(series: Sequence[FileDataset], **fields: object) -> list[FileDataset]:
    """The series with some elements changed; None deletes one."""
    changed = [copy.deepcopy(dataset) for dataset in series]
    for dataset in changed:
        for name, value in fields.items():
            if value is None:
                delattr(dataset, name)
            else:
                setattr(dataset, name, value)
    return changed


def second(series: Sequence[FileDataset], **fields: object) -> list[FileDataset]:
    """Another series of the same study."""
    twins = copied(list(map(another, series)), SeriesInstanceUID=generate_uid(), SeriesNumber=99)
    return copied(twins, **fields)


def of(audits: Sequence[SeriesAudit]) -> Found:
    return {(audit.reason, len(audit.files)) for audit in audits if audit.reason != "not_image"}


def found_everywhere(root: Path) -> Found:
    """Reason and number of files of each series, the same for all who look."""
    audits = scan(root)
    cases = [audit for case in find_cases([root], 1) for audit in case.series]
    studies = [item for item in FolderSource(root).studies() if isinstance(item, Study)]
    archived = [audit for study in studies for audit in study.audits]
    assert of(cases) == of(audits)
    assert of(archived) == of(audits)
    assert len(cases) == len(archived) == len(of(audits))
    return of(audits)


def test_series_over_several_folders_is_one(real_series: Real, tmp_path: Path) -> None:
    save(tmp_path / "a", real_series[::2])
    save(tmp_path / "b" / "deep", real_series[1::2])
    assert found_everywhere(tmp_path) == {(None, 8)}
    (case,) = find_cases([tmp_path / "a", tmp_path / "b"], 1)
    assert case.files == (tmp_path,)
    assert len(case.series) == 1
    assert read_image(case.series[0]).shape == (1, 36, 40, 8)


def test_slices_named_one_by_one_are_one_series(real_series: Real, tmp_path: Path) -> None:
    paths = save(tmp_path, real_series)
    (case,) = find_cases(paths, 1)
    assert len(case.series) == 1
    assert len(case.series[0].files) == 8


def test_series_of_one_flat_folder_are_apart(real_series: Real, tmp_path: Path) -> None:
    other = second(real_series[:5])
    for number, dataset in enumerate([*real_series, *other]):
        dataset.save_as(tmp_path / f"{number:03d}")
    assert found_everywhere(tmp_path) == {(None, 8), (None, 5)}
    assert {case.files[0].name for case in find_cases([tmp_path], 1)} == {"000", "008"}


def test_picture_and_volume_beside_a_series_hide_nothing(real_series: Real, tmp_path: Path) -> None:
    save(tmp_path, real_series)
    Image.new("L", (8, 8)).save(tmp_path / "preview.png")
    (tmp_path / "thick.nii.gz").write_bytes(b"")
    (tmp_path / "notes.txt").write_text("no image", encoding="utf-8")
    cases = find_cases([tmp_path], 1)
    assert [case.case for case in cases] == [tmp_path.joinpath("000").name, "preview", "thick"]
    assert len(cases[0].series) == 1
    assert cases[0].series[0].usable


@pytest.mark.parametrize("number", ["4", ""])
def test_images_without_series_uid_are_a_series_by_folder(
    real_series: Real, tmp_path: Path, number: str
) -> None:
    nameless = copied(real_series, SeriesInstanceUID=None, SeriesNumber=number)
    save(tmp_path / "a", nameless)
    save(tmp_path / "b", list(map(another, nameless[:6])))
    assert found_everywhere(tmp_path) == {(None, 8), (None, 6)}


def test_nameless_images_of_two_series_numbers_are_two_series(
    real_series: Real, tmp_path: Path
) -> None:
    first = copied(real_series, SeriesInstanceUID=None, SeriesNumber=1)
    other = copied(map_another(real_series[:4]), SeriesInstanceUID=None, SeriesNumber=2)
    for index, dataset in enumerate(first + other):
        dataset.save_as(tmp_path / f"IM{index:04d}")
    assert found_everywhere(tmp_path) == {(None, 8), (None, 4)}


def map_another(series: Sequence[FileDataset]) -> list[FileDataset]:
    return [another(dataset) for dataset in series]


def test_an_end_slice_that_lost_its_series_uid_is_not_missed(
    real_series: Real, tmp_path: Path
) -> None:
    save(tmp_path, [*copied(real_series[:1], SeriesInstanceUID=None), *real_series[1:]])
    assert found_everywhere(tmp_path) == {(None, 8)}


@pytest.mark.parametrize("length", [0, 90, 133, 400])
@pytest.mark.parametrize("end", ["", ".dcm", ".17"])
def test_empty_and_cut_slices_of_any_name_are_held_against_their_series(
    real_series: Real, tmp_path: Path, length: int, end: str
) -> None:
    for index, dataset in enumerate(real_series):
        dataset.save_as(tmp_path / f"IM_{index:04d}{end}")
    path = tmp_path / f"IM_0000{end}"
    path.write_bytes(path.read_bytes()[:length])
    ((reason, number),) = found_everywhere(tmp_path)
    assert reason in {"empty_file", "truncated", "unreadable"}
    assert number == 8


def test_what_lies_beside_a_series_is_no_fault_of_it(
    real_series: Real, tmp_path: Path, shared_data: Callable[[str], Path]
) -> None:
    for index, dataset in enumerate(real_series):
        dataset.save_as(tmp_path / f"IM{index:04d}")
    for name in ("LOCK", "DICOMDIR", ".lock", "autorun.inf", "study.lock", "_SUCCESS", "log.txt"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "report.pdf").write_bytes(b"%PDF-1.4 1.2.840.10008.1.2 \0\0")
    (tmp_path / "VIEWER.EXE").write_bytes(b"MZ\0\0" + bytes(500))
    seg = shared_data("dicom_seg") / "dcmqi" / "liver.dcm"
    shutil.copy(seg, tmp_path / "IM9000")
    report = copied(map_another(real_series[:1]), Modality="SR", PixelData=None)[0]
    report.SOPClassUID = report.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    report.save_as(tmp_path / "IM9001")  # with the UID of the series of images
    assert found_everywhere(tmp_path) == {(None, 8)}
    assert read_image(tmp_path).shape == (1, 36, 40, 8)
    others = [i for i in FolderSource(tmp_path).studies() if isinstance(i, NotImage)]
    assert len(others) == 11


def test_an_unreadable_file_beside_several_series_is_named_and_noted(
    real_series: Real, tmp_path: Path
) -> None:
    for index, dataset in enumerate([*real_series, *second(real_series[:5])]):
        dataset.save_as(tmp_path / f"IM{index:04d}")
    (tmp_path / "IM0013").write_bytes(b"")
    assert found_everywhere(tmp_path) == {(None, 8), (None, 5), ("empty_file", 1)}
    assert all("may lack" in audit.notes[-1] for audit in scan(tmp_path) if audit.usable)


def test_byte_equal_copies_are_passed_over_and_noted(real_series: Real, tmp_path: Path) -> None:
    save(tmp_path / "a", real_series)
    shutil.copytree(tmp_path / "a", tmp_path / "backup")
    assert found_everywhere(tmp_path) == {(None, 8)}
    (audit,) = scan(tmp_path)
    assert len(audit.copies) == 8
    assert any("copies" in note for note in audit.notes)
    others = [i for i in FolderSource(tmp_path).studies() if isinstance(i, NotImage)]
    assert len(others) == 8


def test_equal_bytes_in_another_transfer_syntax_are_no_copy(
    real_series: Real, tmp_path: Path
) -> None:
    save(tmp_path / "a", real_series)
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for path in (tmp_path / "b").iterdir():
        stated = b"1.2.840.10008.1.2.1\0"
        assert path.read_bytes().count(stated) == 1
        path.write_bytes(path.read_bytes().replace(stated, b"1.2.840.10008.1.2.5\0"))
    audit = only(tmp_path)
    assert not audit.copies
    assert not audit.usable


def test_another_version_of_an_image_is_no_copy(real_series: Real, tmp_path: Path) -> None:
    save(tmp_path / "a", real_series)
    save(tmp_path / "b", copied(real_series[:2], StudyDescription="changed since"))
    assert found_everywhere(tmp_path) == {("duplicate_slice", 10)}


@pytest.mark.parametrize("field", ["PatientID", "StudyInstanceUID"])
def test_equal_series_uids_of_two_owners(real_series: Real, tmp_path: Path, field: str) -> None:
    other = copied(real_series, **{field: "1.2.3"})
    save(tmp_path / "apart" / "one", real_series)
    save(tmp_path / "apart" / "two", other)
    audits = scan(tmp_path / "apart")
    assert [(audit.usable, len(audit.files)) for audit in audits] == [(True, 8)] * 2
    assert all("same SeriesInstanceUID" in audit.notes[-1] for audit in audits)
    assert len(find_cases([tmp_path / "apart"], 1)) == 2
    assert len([s for s in FolderSource(tmp_path / "apart").studies() if isinstance(s, Study)]) == 2
    reason = "mixed_patient" if field == "PatientID" else "mixed_study"
    save(tmp_path / "halves" / "one", real_series[:4])
    save(tmp_path / "halves" / "two", other[4:])
    assert found_everywhere(tmp_path / "halves") == {(reason, 8)}
    for index, dataset in enumerate([*real_series, *other]):
        (tmp_path / "mixed").mkdir(exist_ok=True)
        dataset.save_as(tmp_path / "mixed" / f"{index}")
    assert {reason for reason, _ in found_everywhere(tmp_path / "mixed")} <= {
        "duplicate_slice", reason
    }  # fmt: skip


def test_channels_of_two_patients_are_never_chosen_as_one_study(
    real_series: Real, tmp_path: Path
) -> None:
    save(tmp_path / "one", copied(real_series, PatientID="A", SeriesInstanceUID="1.2.1"))
    save(tmp_path / "two", copied(real_series, PatientID="B", SeriesInstanceUID="1.2.2"))
    source = FolderSource(tmp_path, num_channels=2)
    studies = [item for item in source.studies() if isinstance(item, Study)]
    assert len(studies) == 2
    assert all(len({audit.patient_key for audit in study.audits}) == 1 for study in studies)


def test_a_link_to_a_folder_above_does_not_end_the_search(
    real_series: Real, tmp_path: Path
) -> None:
    save(tmp_path / "a", real_series)
    (tmp_path / "a" / "loop").symlink_to(tmp_path, target_is_directory=True)
    assert len(find_cases([tmp_path], 1)) == 1


@pytest.mark.parametrize(
    ("name", "beside", "expected"),
    [
        ("IM0004", ["IM0001", "IM0002"], True),
        ("1.2.840.7.45", ["1.2.840.7.44"], True),
        ("four", ["one", "two"], True),
        ("x.dcm", ["IM0001"], True),
        ("0004.IMA", ["0001.IMA"], True),
        ("LOCK", ["IM0001"], False),
        ("IM0004.lock", ["IM0001"], False),
        ("transfer2", ["001.dcm", "002.dcm"], False),
        ("IM7", [], True),
        ("README", [], False),
    ],
)
def test_names_of_lost_images(name: str, beside: list[str], expected: bool) -> None:
    assert may_be_image(name, beside) is expected


def test_reading_a_found_series_gives_its_voxels(real_series: Real, tmp_path: Path) -> None:
    save(tmp_path, real_series)
    (case,) = find_cases([tmp_path], 1)
    assert len(case.series) == 1
    expected = np.stack([dataset.pixel_array.T for dataset in real_series], axis=-1)
    np.testing.assert_array_equal(read_image(case.series[0]).numpy()[0], expected)


def test_sorting_gives_each_nameless_series_a_folder(real_series: Real, tmp_path: Path) -> None:
    nameless = copied(real_series, SeriesInstanceUID=None)
    save(tmp_path / "in" / "a", nameless)
    save(tmp_path / "in" / "b", map_another(nameless[:6]))
    audits = scan(tmp_path / "in")
    placed = sort_series(audits, tmp_path / "out")
    assert sorted(len(list(folder.iterdir())) for folder in placed.values()) == [6, 8]
    assert of(scan(tmp_path / "out")) == {(None, 8), (None, 6)}


def test_copies_that_another_program_exported_are_passed_over(
    real_series: Real, tmp_path: Path
) -> None:
    save(tmp_path / "a", real_series)
    again = copied(real_series)
    for dataset in again:
        dataset.file_meta.ImplementationVersionName = "OTHER"
        dataset.file_meta.SourceApplicationEntityTitle = "PACS2"
        dataset.preamble = b"x" * 128
    save(tmp_path / "b", again)
    assert found_everywhere(tmp_path) == {(None, 8)}
    (audit,) = scan(tmp_path)
    assert len(audit.copies) == 8


@pytest.mark.parametrize("name", ["008.dcm", "IM9", "1.2.840.9"])
def test_a_slice_whose_link_leads_nowhere_is_held_against_its_series(
    real_series: Real, tmp_path: Path, name: str
) -> None:
    for number, dataset in enumerate(real_series[:-1]):
        dataset.save_as(tmp_path / name.replace("9", str(number)).replace("008", f"00{number}"))
    (tmp_path / name).symlink_to(tmp_path / "unmounted" / name)
    assert [audit.reason for audit in scan(tmp_path)] == ["unreadable"]
    [case] = find_cases([tmp_path], 1)
    assert [audit.reason for audit in case.series] == ["unreadable"]
    [study] = [item for item in FolderSource(tmp_path).studies() if isinstance(item, Study)]
    assert (study.fault is not None and study.fault.reason) == "no_access"


@pytest.mark.parametrize("name", ["{}.png", "{}.nii", "{}.tif"])
def test_slices_are_known_by_content_whatever_their_suffix(
    real_series: Real, tmp_path: Path, name: str
) -> None:
    for number, dataset in enumerate(real_series):
        dataset.save_as(tmp_path / name.format(number))
    assert found_everywhere(tmp_path) == {(None, 8)}


def test_nameless_series_over_two_folders_are_noted(real_series: Real, tmp_path: Path) -> None:
    halves = copied(real_series, SeriesInstanceUID=None)
    save(tmp_path / "a", halves[:5])
    save(tmp_path / "b", halves[5:])
    save(tmp_path / "c", copied(halves, SeriesNumber=77))
    audits = {audit.files[0].parent.name: audit for audit in scan(tmp_path)}
    noted = {
        name: any("in other folders" in note for note in audit.notes)
        for name, audit in audits.items()
    }
    assert noted == {"a": True, "b": True, "c": False}
    assert found_everywhere(tmp_path) == {(None, 5), (None, 3), (None, 8)}


def test_several_descriptions_of_one_series_are_noted(real_series: Real, tmp_path: Path) -> None:
    series = copied(real_series)
    series[3].SeriesDescription = "another"
    save(tmp_path, series)
    [audit] = scan(tmp_path)
    assert any("descriptions differ" in note for note in audit.notes)


def test_nameless_images_of_another_study_join_no_series(real_series: Real, tmp_path: Path) -> None:
    save(tmp_path, real_series)
    others = copied(real_series[:5], SeriesInstanceUID=None, StudyInstanceUID="1.2.3")
    for number, dataset in enumerate(others):
        dataset.save_as(tmp_path / f"other{number}")
    assert found_everywhere(tmp_path) == {(None, 8), (None, 5)}


def test_nameless_images_of_two_spaces_are_two_series(real_series: Real, tmp_path: Path) -> None:
    save(tmp_path, copied(real_series, SeriesInstanceUID=None))
    others = copied(real_series[:5], SeriesInstanceUID=None, FrameOfReferenceUID="1.2.3")
    for number, dataset in enumerate(others):
        dataset.save_as(tmp_path / f"other{number}")
    assert found_everywhere(tmp_path) == {(None, 8), (None, 5)}
