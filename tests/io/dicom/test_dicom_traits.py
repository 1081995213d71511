"""Several volumes in one series are refused by what tells them apart, one image a place or more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import pytest
from broken_series import Series, another, only, save
from pydicom.dataset import Dataset, FileDataset

from segmed.errors import ImageError
from segmed.io import read_image
from segmed.io.dicom.frames import Slice
from segmed.io.dicom.stack import StackFault, stack
from segmed.io.dicom.traits import TRAITS, several_volumes

TWO_VALUES: dict[str, tuple[str, object, object, str]] = {
    "echo": ("EchoTime", 4.6, 9.2, "several_echoes"),
    "echo number": ("EchoNumbers", 1, 2, "several_echoes"),
    "b-value": ("DiffusionBValue", 0.0, 800.0, "several_b_values"),
    "temporal position": ("TemporalPositionIdentifier", 3, 4, "several_time_points"),
    "magnitude and phase": (
        "ImageType",
        ["ORIGINAL", "PRIMARY", "M", "ND"],
        ["ORIGINAL", "PRIMARY", "P", "ND"],
        "several_image_types",
    ),
    "water and fat": (
        "ImageType",
        ["DERIVED", "PRIMARY", "W"],
        ["DERIVED", "PRIMARY", "F"],
        "several_image_types",
    ),
    "trigger": ("TriggerTime", 20.0, 340.0, "several_trigger_times"),
    "cardiac phase": ("NominalPercentageOfCardiacPhase", 35.0, 75.0, "several_cardiac_phases"),
    "contrast phase": (
        "ContrastBolusAgentPhase",
        "PRE_CONTRAST",
        "POST_CONTRAST",
        "several_contrast_phases",
    ),
    "contrast agent": ("ContrastBolusAgent", "NONE", "Gadovist", "several_contrast_phases"),
    "kernel": ("ConvolutionKernel", "B30f", "B70f", "several_kernels"),
    "kernel of two values": ("ConvolutionKernel", ["I31f", "3"], ["I50f", "3"], "several_kernels"),
    "pulse sequence": ("ScanningSequence", "SE", ["SE", "IR"], "several_sequences"),
    "sequence name": ("SequenceName", "*ep_b0", "*ep_b1000t", "several_sequences"),
    "fat saturation": ("ScanOptions", "PFP", ["PFP", "FS"], "several_scan_options"),
    "inversion": ("InversionTime", 150.0, 900.0, "several_inversion_times"),
    "flip angle": ("FlipAngle", 3, 18, "several_flip_angles"),
    "tube voltage": ("KVP", 80, 140, "several_tube_voltages"),
    "filter": ("FilterType", "BODY FILTER", "HEAD FILTER", "several_filters"),
    "patient position": ("PatientPosition", "HFS", "FFS", "several_patient_positions"),
    "manufacturer": ("Manufacturer", "SIEMENS", "GE MEDICAL SYSTEMS", "several_scanners"),
    "scanner model": ("ManufacturerModelName", "Avanto", "Skyra", "several_scanners"),
    "scanner": ("DeviceSerialNumber", "40112", "40113", "several_scanners"),
    "day": ("AcquisitionDate", "20240131", "20240301", "several_days"),
}


def copied(real_series: tuple[FileDataset, ...]) -> Series:
    return [copy.deepcopy(dataset) for dataset in real_series]


@pytest.mark.parametrize("arrangement", ["halves", "alternating", "both at each place"])
@pytest.mark.parametrize("name", TWO_VALUES)
def test_two_values_are_refused_by_their_own_name(
    real_series: tuple[FileDataset, ...], tmp_path: Path, name: str, arrangement: str
) -> None:
    keyword, first, second, reason = TWO_VALUES[name]
    series = copied(real_series)
    for index, dataset in enumerate(series):
        is_second = index >= 4 if arrangement == "halves" else index % 2
        setattr(dataset, keyword, second if is_second else first)
    if arrangement == "both at each place":
        series += [another(dataset) for dataset in series]
        for index, dataset in enumerate(series):
            setattr(dataset, keyword, second if index >= 8 else first)
    save(tmp_path, series)
    audit = only(tmp_path)
    assert (audit.usable, audit.reason) == (False, reason), audit.message
    assert "Gadovist" not in audit.message
    with pytest.raises(ImageError) as caught:
        read_image(tmp_path)
    assert caught.value.reason == reason


@pytest.mark.parametrize("keyword", ["EchoTime", "DiffusionBValue", "ConvolutionKernel"])
def test_a_value_that_only_some_images_state_is_two_values(
    real_series: tuple[FileDataset, ...], tmp_path: Path, keyword: str
) -> None:
    series = copied(real_series)
    for index, dataset in enumerate(series):
        setattr(dataset, keyword, None if index < 3 else 700.0 if "V" in keyword else "55")
    save(tmp_path, series)
    audit = only(tmp_path)
    assert str(audit.reason).startswith("several_")
    assert "not stated" in audit.message


def test_acquisition_times_name_volumes_only_where_places_are_shared(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = copied(real_series)
    for index, dataset in enumerate(series):
        dataset.AcquisitionTime = f"10{index:02d}00"
    save(tmp_path / "single", series)
    assert only(tmp_path / "single").usable
    later = [another(dataset) for dataset in series]
    for dataset in later:
        dataset.AcquisitionTime = "110000"
    save(tmp_path / "double", series + later)
    assert only(tmp_path / "double").reason == "several_time_points"


def test_volumes_that_nothing_tells_apart_are_not_called_time_points(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = copied(real_series)
    save(tmp_path, series + [another(dataset) for dataset in series])
    assert only(tmp_path).reason == "several_volumes"


def test_trigger_times_that_drift_from_slice_to_slice_are_a_note(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = copied(real_series)
    for index, dataset in enumerate(series):
        dataset.TriggerTime = 400 + 37 * index
        dataset.EchoTime = 8.9 + 0.004 * index
    save(tmp_path, series)
    audit = only(tmp_path)
    assert audit.usable, audit.message
    assert "trigger times differ from slice to slice" in audit.notes


@pytest.mark.parametrize(
    ("keyword", "values", "note"),
    [
        ("AcquisitionNumber", [1] * 4 + [2] * 4, "several acquisition numbers (1, 2)"),
        ("AcquisitionNumber", [3, 4] * 4, "several acquisition numbers (3, 4)"),
        ("AcquisitionNumber", [7] * 7 + [None], "several acquisition numbers (7, not stated)"),
        ("AcquisitionNumber", list(range(1, 9)), ""),
        ("AcquisitionDate", ["20231231"] * 4 + ["20240101"] * 4, "several acquisition dates"),
        ("AcquisitionDate", ["20231231"] * 4 + [None] * 4, ""),
        ("Manufacturer", ["SIEMENS"] * 7 + [None], "manufacturers that only some images state"),
        (
            "ManufacturerModelName",
            [None, "Avanto"] * 4,
            "scanner models that only some images state",
        ),
        (
            "DeviceSerialNumber",
            ["40112"] * 4 + [""] * 4,
            "serial numbers of scanners that only some images state",
        ),
    ],
)
def test_breath_holds_midnight_and_removed_devices_are_a_note(
    real_series: tuple[FileDataset, ...],
    tmp_path: Path,
    keyword: str,
    values: list[object],
    note: str,
) -> None:
    series = copied(real_series)
    for dataset, value in zip(series, values, strict=True):
        setattr(dataset, keyword, value)
    save(tmp_path, series)
    audit = only(tmp_path)
    assert audit.usable, audit.message
    found = [remark for remark in audit.notes if remark.endswith("check that it is one volume")]
    assert found == ([f"{note} in one series: check that it is one volume"] if note else [])


def stated(series: Series, *, slope: bool = True, intercept: bool = True, unit: str = "") -> None:
    for dataset in series:
        if slope:
            dataset.RescaleSlope = 2
        if intercept:
            dataset.RescaleIntercept = -1024
        if unit:
            dataset.RescaleType = unit


def test_rescaling_that_only_some_images_state_is_refused(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    for name, first, second in (
        ("both", {"slope": False, "intercept": False}, {}),
        ("slope", {"slope": False}, {}),
        ("unit", {"unit": "HU"}, {"unit": "US"}),
    ):
        series = copied(real_series)
        stated(series[:3], **first)
        stated(series[3:], **second)
        save(tmp_path / name, series)
        audit = only(tmp_path / name)
        assert audit.reason == "mixed_rescale", name
        assert len(audit.offending) == 3


def test_rescaling_of_another_size_on_each_image_is_sound(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = copied(real_series)
    for index, dataset in enumerate(series):
        dataset.RescaleSlope, dataset.RescaleIntercept = 1 + index, -10 * index
    save(tmp_path, series)
    last = real_series[-1].pixel_array.T * 8.0 - 70
    np.testing.assert_array_equal(read_image(tmp_path).numpy()[0, ..., -1], last)


def test_a_ct_without_rescaling_is_noted(
    real_series: tuple[FileDataset, ...], tmp_path: Path
) -> None:
    series = copied(real_series)
    for dataset in series:
        dataset.Modality = "CT"
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = (
            "1.2.840.10008.5.1.4.1.1.2"
        )
    save(tmp_path / "bare", series)
    assert any("Hounsfield" in note for note in only(tmp_path / "bare").notes)
    stated(series)
    save(tmp_path / "scaled", series)
    assert not any("Hounsfield" in note for note in only(tmp_path / "scaled").notes)


def frame_group(macro: str, keyword: str, value: object) -> Dataset:
    inner, outer = Dataset(), Dataset()
    setattr(inner, keyword, value)
    setattr(outer, macro, [inner])
    return outer


@pytest.mark.parametrize(
    ("macro", "keyword", "first", "second", "reason"),
    [
        ("MREchoSequence", "EffectiveEchoTime", 10.0, 80.0, "several_echoes"),
        ("MRDiffusionSequence", "DiffusionBValue", 0.0, 1000.0, "several_b_values"),
        ("CTReconstructionSequence", "ConvolutionKernel", "SOFT", "BONE", "several_kernels"),
        ("MRImageFrameTypeSequence", "ComplexImageComponent", "MAGNITUDE", "PHASE",
         "several_image_types"),
        ("FrameContentSequence", "TemporalPositionIndex", 1, 2, "several_time_points"),
    ],
)  # fmt: skip
def test_frames_of_an_enhanced_file_differ_by_the_same_table(
    shared_data: Callable[[str], Path],
    tmp_path: Path,
    macro: str,
    keyword: str,
    first: object,
    second: object,
    reason: str,
) -> None:
    path = next((shared_data("dicom_seg") / "dcmqi/23x38x3/multiframe").iterdir())
    dataset = pydicom.dcmread(path)
    for index, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        value = second if index == 1 else first
        if macro in group:
            setattr(group[macro].value[0], keyword, value)
        else:
            group.update(frame_group(macro, keyword, value))
    shared = dataset.SharedFunctionalGroupsSequence[0]
    if macro in shared:
        del shared[macro]
    dataset.save_as(tmp_path / "enhanced.dcm")
    audit = only(tmp_path)
    assert audit.reason == reason, audit.message


def test_every_trait_has_a_reason_of_its_kind_and_tells_two_values_apart() -> None:
    blank: list[tuple[object, ...]] = [tuple(None for _ in TRAITS)] * 4
    assert several_volumes(blank) is None
    for place, trait in enumerate(TRAITS):
        assert trait.reason.startswith("several_")
        values = (1.0, 900.0) if trait.kind in {"number", "day"} else ("A", "B")
        rows = [
            tuple(values[n % 2] if at == place else None for at in range(len(TRAITS)))
            for n in range(4)
        ]
        found = several_volumes(rows)
        assert (found is None) == (trait.rule in {"shared", "noted"})
        assert found is None or found[0] == trait.reason


@pytest.mark.parametrize(
    "none", ["", "NO", "none", "N", "0", "No contrast", "OHNE", "kein", "aucun", "W/O"]
)
def test_words_for_no_contrast_agent_name_none(
    real_series: tuple[FileDataset, ...], tmp_path: Path, none: str
) -> None:
    series = copied(real_series)
    for index, dataset in enumerate(series):
        dataset.ContrastBolusAgent = none if index % 2 else None
    save(tmp_path / "native", series)
    audit = only(tmp_path / "native")
    assert (audit.usable, audit.has_contrast) == (True, False), audit.message
    for index, dataset in enumerate(series):
        dataset.ContrastBolusAgent = none if index % 2 else "Gadovist"
    save(tmp_path / "mixed", series)
    audit = only(tmp_path / "mixed")
    assert (audit.reason, audit.has_contrast) == ("several_contrast_phases", True)


@pytest.mark.parametrize(("change", "is_sound"), [(0.01, True), (0.05, False)])
def test_steps_that_drift_away_from_the_even_stack_are_uneven(
    change: float, *, is_sound: bool
) -> None:
    heights = np.cumsum([0.0] + [3.0] * 20 + [3.0 + change] * 20)
    parts = [
        Slice(position=(0.0, 0.0, float(height)), orientation=(1, 0, 0, 0, 1, 0), spacing=(1, 1))
        for height in heights
    ]
    pairs = [(Path(f"{number}"), part) for number, part in enumerate(parts)]
    if is_sound:
        assert stack(pairs)[1] == pytest.approx((1, 1, 3 + change / 2))
        return
    with pytest.raises(StackFault) as caught:
        stack(pairs)
    assert caught.value.reason == "uneven_slices"
