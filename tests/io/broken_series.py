"""Ways to break a DICOM series, and oddities that break nothing: changes of a real series."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import UID, generate_uid

from segmed.io.dicom.series import SeriesAudit, scan

Series = list[FileDataset]
Change = Callable[[Series], None]


def save(folder: Path, series: Sequence[Dataset]) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{(7 * index) % 31:03d}" for index in range(len(series))]  # no order
    for path, dataset in zip(paths, series, strict=True):
        dataset.save_as(path)
    return paths


def only(folder: Path) -> SeriesAudit:
    audits = scan(folder)
    assert len(audits) == 1, [(audit.name, audit.reason) for audit in audits]
    return audits[0]


def shift(dataset: Dataset, offset: np.ndarray) -> None:
    moved = np.asarray(dataset.ImagePositionPatient, dtype=float) + offset
    dataset.ImagePositionPatient = [f"{value:.6f}" for value in moved]


def normal(series: Series) -> np.ndarray:
    return np.cross(*np.reshape(series[0].ImageOrientationPatient, (2, 3)).astype(float))


def another(dataset: FileDataset) -> FileDataset:
    twin = copy.deepcopy(dataset)
    twin.SOPInstanceUID = twin.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    return twin


def missing(series: Series) -> None:
    del series[3]


def two_missing(series: Series) -> None:
    del series[3:5]


def every_second_missing(series: Series) -> None:
    for number, dataset in enumerate(series):
        dataset.InstanceNumber = number + 1
        dataset.SpacingBetweenSlices = 6.5
    del series[1::2]


def all_but_two_missing(series: Series) -> None:
    for number, dataset in enumerate(series):
        dataset.InstanceNumber = number + 1
        dataset.SpacingBetweenSlices = 6.5
    del series[1:5], series[2:]


def duplicate_position(series: Series) -> None:
    series.append(another(series[2]))


def duplicate_instance(series: Series) -> None:
    series.append(copy.deepcopy(series[2]))
    series[-1].ProtocolName = "sent again"


def uneven(series: Series) -> None:
    shift(series[4], normal(series) * 2.1)


def tilted(series: Series) -> None:
    across = np.asarray(series[0].ImageOrientationPatient[3:], dtype=float)
    for index, dataset in enumerate(series):
        shift(dataset, across * 1.5 * index)


def pushed_aside(series: Series) -> None:
    shift(series[4], np.asarray(series[0].ImageOrientationPatient[:3], dtype=float) * 5)


def other_orientation(series: Series) -> None:
    series[5].ImageOrientationPatient = [1, 0, 0, 0, 1, 0]


def slightly_other_orientation(series: Series) -> None:
    values = np.asarray(series[5].ImageOrientationPatient, dtype=float)
    series[5].ImageOrientationPatient = [f"{value + 0.002:.6f}" for value in values]


def other_matrix(series: Series) -> None:
    series[5].Rows -= 2
    series[5].PixelData = series[5].PixelData[: -4 * series[5].Columns]


def other_spacing(series: Series) -> None:
    series[5].PixelSpacing = [0.7, 0.7]


def two_volumes(series: Series, **fields: object) -> None:
    for dataset in list(series):
        twin = another(dataset)
        for name, value in fields.items():
            setattr(twin, name, value)
        series.append(twin)


def time_points(series: Series) -> None:
    two_volumes(series, TemporalPositionIdentifier=2)


def echoes(series: Series) -> None:
    two_volumes(series, EchoTime=99.0)


def diffusion(series: Series) -> None:
    two_volumes(series, DiffusionBValue=1000.0)


def localiser(series: Series) -> None:
    for dataset in series:
        dataset.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]


def one_localiser_among(series: Series) -> None:
    series[1].ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
    series[1].ImageOrientationPatient = [0, 1, 0, 0, 0, -1]


def mosaic(series: Series) -> None:
    del series[1:]
    series[0].ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]


def frames_without_positions(series: Series) -> None:
    first = series[0]
    first.NumberOfFrames = len(series)
    first.PixelData = b"".join(dataset.PixelData for dataset in series)
    del series[1:]


def secondary_capture(series: Series) -> None:
    for dataset in series:
        dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.7"
        del dataset.ImagePositionPatient, dataset.ImageOrientationPatient


def colour(series: Series) -> None:
    for dataset in series:
        dataset.SamplesPerPixel = 3
        dataset.PhotometricInterpretation = "RGB"
        dataset.PlanarConfiguration = 0
        dataset.PixelData = dataset.PixelData * 3


def look_up_table(series: Series) -> None:
    table = Dataset()
    table.LUTDescriptor = [1, 0, 16]
    table.LUTData = b"\0\0"
    series[0].ModalityLUTSequence = [table]


def foreign_syntax(series: Series) -> None:
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.4.102")  # MPEG-4
        dataset.PixelData = pydicom.encaps.encapsulate([dataset.PixelData])
        dataset["PixelData"].VR = "OB"


def without(name: str) -> Change:
    def change(series: Series) -> None:
        delattr(series[3], name)

    return change


def crooked_cosines(series: Series) -> None:
    for dataset in series:
        dataset.ImageOrientationPatient = [1, 0, 0, 0.5, 0.5, 0]


def nan_position(series: Series) -> None:
    series[2]["ImagePositionPatient"]._value = pydicom.multival.MultiValue(str, ["nan", "0", "0"])


def other_space(series: Series) -> None:
    series[5].FrameOfReferenceUID = generate_uid()


def other_patient(series: Series) -> None:
    series[5].PatientID = "somebody else"


def other_study(series: Series) -> None:
    series[5].StudyInstanceUID = generate_uid()


def other_modality(series: Series) -> None:
    series[5].Modality = "CT"


def one_inverted(series: Series) -> None:
    series[5].PhotometricInterpretation = "MONOCHROME1"


def huge_pixels(series: Series) -> None:
    for dataset in series:
        dataset.PixelSpacing = [900, 900]


def pixels_cut_short(series: Series) -> None:
    series[2].PixelData = series[2].PixelData[:-10]


FAULTS: dict[str, tuple[Change, str]] = {
    "missing": (missing, "missing_slice"),
    "two missing": (two_missing, "missing_slice"),
    "every second missing": (every_second_missing, "missing_slice"),
    "all but two missing": (all_but_two_missing, "missing_slice"),
    "duplicate position": (duplicate_position, "duplicate_slice"),
    "duplicate instance": (duplicate_instance, "duplicate_slice"),
    "uneven": (uneven, "uneven_slices"),
    "tilted": (tilted, "tilt"),
    "pushed aside": (pushed_aside, "shifted_slices"),
    "other orientation": (other_orientation, "mixed_orientation"),
    "slightly other orientation": (slightly_other_orientation, "mixed_orientation"),
    "other matrix": (other_matrix, "mixed_size"),
    "other spacing": (other_spacing, "mixed_spacing"),
    "time points": (time_points, "several_time_points"),
    "echoes": (echoes, "several_echoes"),
    "diffusion": (diffusion, "several_b_values"),
    "localiser": (localiser, "localiser"),
    "one localiser among": (one_localiser_among, "localiser"),
    "mosaic": (mosaic, "mosaic"),
    "frames without positions": (frames_without_positions, "no_frame_positions"),
    "secondary capture": (secondary_capture, "secondary_capture"),
    "colour": (colour, "colour"),
    "look-up table": (look_up_table, "modality_lut"),
    "foreign syntax": (foreign_syntax, "transfer_syntax"),
    "no position": (without("ImagePositionPatient"), "missing_geometry"),
    "no orientation": (without("ImageOrientationPatient"), "missing_geometry"),
    "no pixel spacing": (without("PixelSpacing"), "missing_geometry"),
    "no rows": (without("Rows"), "mixed_size"),
    "no pixels": (without("PixelData"), "no_pixels"),
    "crooked cosines": (crooked_cosines, "bad_orientation"),
    "other space": (other_space, "mixed_frame_of_reference"),
    "other patient": (other_patient, "mixed_patient"),
    "other study": (other_study, "mixed_study"),
    "other modality": (other_modality, "mixed_modality"),
    "one inverted": (one_inverted, "mixed_photometric"),
    "huge pixels": (huge_pixels, "absurd_spacing"),
    "pixels cut short": (pixels_cut_short, "truncated"),
}


def shuffled_numbers(series: Series) -> None:
    for index, dataset in enumerate(series):
        dataset.InstanceNumber = (index * 5) % 8


def no_numbers(series: Series) -> None:
    for dataset in series:
        del dataset.InstanceNumber


def last_digit_of_orientation(series: Series) -> None:
    values = np.asarray(series[5].ImageOrientationPatient, dtype=float)
    series[5].ImageOrientationPatient = [f"{value + 4e-6:.7f}" for value in values]


def positions_of_two_decimals(series: Series) -> None:
    for dataset in series:
        values = np.asarray(dataset.ImagePositionPatient, dtype=float)
        dataset.ImagePositionPatient = [f"{value:.2f}" for value in values]


def varied_echo_times_at_distinct_places(series: Series) -> None:
    for index, dataset in enumerate(series):
        dataset.EchoTime = 8.9 + 0.001 * index


def stated_gap_instead_of_distance(series: Series) -> None:
    for number, dataset in enumerate(series):
        dataset.InstanceNumber = number + 1
        dataset.SpacingBetweenSlices = 3.25


def numbers_of_interleaved_echoes(series: Series) -> None:
    for number, dataset in enumerate(series):
        dataset.InstanceNumber = 2 * number + 1


def without_thickness(series: Series) -> None:
    for dataset in series:
        del dataset.SliceThickness, dataset.SpacingBetweenSlices


def two_slices(series: Series) -> None:
    del series[2:]


def one_slice(series: Series) -> None:
    del series[1:]


SOUND: tuple[Change, ...] = (
    shuffled_numbers, no_numbers, last_digit_of_orientation, positions_of_two_decimals,
    varied_echo_times_at_distinct_places, stated_gap_instead_of_distance,
    numbers_of_interleaved_echoes, without_thickness, two_slices, one_slice,
)  # fmt: skip
