"""Schema of a manifest: cases with their files, labels, channels, groups and folds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from segmed.doors import checked
from segmed.encoding import LabelEncoding
from segmed.errors import UsageError
from segmed.structures import Channel, Code, Frozen, LabelClass, LabelValue

if TYPE_CHECKING:
    from segmed.manifest.labelled_image import LabelledImage

SCHEMA_VERSION = 1
"""Version of the manifest's form; readers refuse any other version."""


MOST_SHOWN = 6
"""Labels that the one-line form of a manifest names."""

FilePlace = Annotated[str, Field(pattern=r"^[^\x00]*$")]
"""Path of a file, without zero bytes, which no system accepts."""


class CaseCorrection(Frozen):
    """Origin of a label that a reviewer of an archive corrected.

    Attributes:
        author: Who corrected it.
        date: Day of the correction, YYYY-MM-DD.
        origin: `page`, `slicer` or `pacs`.
        study: Name of the study in the archive.
        model: Hash of the model package that made the original.
        original: SHA-256 of the original result.
    """

    author: str
    date: str
    origin: str
    study: str
    model: str
    original: str = ""


class AcquisitionFacts(Frozen):
    """Facts of a case by which scores are grouped, where its DICOM header does not state them.

    Attributes:
        scanner: Manufacturer and model, or any other name of the device.
        protocol: Name of the acquisition protocol.
        age: Age of the patient in years.
        sex: `F`, `M` or `O`.
    """

    scanner: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    protocol: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    age: Annotated[float, Field(ge=0, le=130)] | None = None
    sex: Literal["F", "M", "O"] | None = None


class Case(Frozen):
    """One row of a manifest.

    Attributes:
        id: Name of the case, unique in the manifest and safe as a file name.
        group: Patient (or other unit that must not be split over folds).
        image: One file (or DICOM folder) a channel, in the order of the manifest's channels.
            A single channel may be written as a plain string. Relative to the manifest's folder.
        label: The label file, on the grid of the images; absent for cases without a reference.
        fold: Fold in which the case is held out; absent for test cases.
        sha256: Hex digest of each file (of a folder: of its files' sorted digests), keyed by path.
        correction: Origin of a label that a reviewer of an archive corrected; absent for others.
        facts: Scanner, protocol, age and sex, where the header of the image does not state them.
    """

    id: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=128)]
    group: str
    image: tuple[FilePlace, ...]
    label: FilePlace | None = None
    fold: Annotated[int, Field(ge=0)] | None = None
    sha256: dict[str, str] = Field(default_factory=dict)
    correction: CaseCorrection | None = None
    facts: AcquisitionFacts | None = None

    @model_validator(mode="before")
    @classmethod
    def _image_as_tuple(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("image"), str):
            data = {**data, "image": (data["image"],)}
        return data

    def __repr__(self) -> str:
        """Id, group, number of image files, label and fold in one line."""
        images = "1 image" if len(self.image) == 1 else f"{len(self.image)} images"
        label = "no label" if self.label is None else "label"
        group = "" if self.group == self.id else f"group {self.group}, "
        fold = "no fold" if self.fold is None else f"fold {self.fold}"
        return f"Case({self.id!r}: {group}{images}, {label}, {fold})"

    __str__ = __repr__


class StoredLabel(Frozen):
    """One structure as the label files contain it, where that differs from the manifest's labels.

    Attributes:
        name: Name in the files (of a DICOM segmentation: of the segment).
        value: Value in the files; for segments, the number they are given here.
        code: Coded concept of a segment.
        becomes: Value of the label that it is a part of; 0 for background, or the manifest's
            `ignore_value`.
    """

    name: Annotated[str, Field(min_length=1)]
    value: Annotated[int, Field(ge=1, le=65535)]
    code: Code | None = None
    becomes: Annotated[int, Field(ge=0, le=65535)]


class Manifest(Frozen):
    """A labelled image set: what `segmed` trains on and compares with.

    The JSON form is also a MONAI data list (`training`, `test`, `image`, `label`, `fold`).

    Attributes:
        name: Name of the set; experiments and registered models take it.
        labels: Structures, background excluded, in the order of the network's classes 1, 2, ...;
            regions in the order in which they are painted, each before those within it.
        channels: Input channels, in order.
        training: Cases with labels, each in a fold.
        test: Cases kept out of every training.
        ignore_value: Value of unannotated voxels: they enter neither training nor scores.
        stored_labels: The structures of the label files, all of them, if some are merged, dropped
            or renamed; else empty: the files have the labels' own values and names.
        licence: Licence of the images, as stated by their source.
        source: Where the images come from.
        schema_version: Version of this form.
        root: Folder that relative paths start from; set by the reader and never written.
        remarks: What the builder kept, dropped or took for something else; never written.
    """

    name: Annotated[str, Field(min_length=1)]
    labels: Annotated[tuple[LabelClass, ...], Field(min_length=1)]
    channels: Annotated[tuple[Channel, ...], Field(min_length=1)]
    training: tuple[Case, ...]
    test: tuple[Case, ...] = ()
    stored_labels: tuple[StoredLabel, ...] = ()
    licence: str = ""
    source: str = ""
    schema_version: int = SCHEMA_VERSION
    ignore_value: LabelValue | None = None
    root: Path = Field(default=Path(), exclude=True)
    remarks: tuple[str, ...] = Field(default=(), exclude=True)

    @property
    def encoding(self) -> LabelEncoding:
        """Encoding of the labels as channels of a network."""
        return LabelEncoding(self.labels, self.ignore_value)

    @property
    def num_channels(self) -> int:
        """Input channels of every case."""
        return len(self.channels)

    @property
    def folds(self) -> tuple[int, ...]:
        """The fold numbers that occur, in order."""
        return tuple(sorted({case.fold for case in self.training if case.fold is not None}))

    def split(self, fold: int) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
        """Training cases and held-out cases of one fold."""
        inside = tuple(case for case in self.training if case.fold != fold)
        held_out = tuple(case for case in self.training if case.fold == fold)
        return inside, held_out

    def image_paths(self, case: Case) -> tuple[Path, ...]:
        """Absolute path of each channel's file."""
        return tuple(self.root / name for name in case.image)

    def label_path(self, case: Case) -> Path | None:
        """Absolute path of the label file, if the case has one."""
        return None if case.label is None else self.root / case.label

    def case(self, name: str) -> Case:
        """The case of an id.

        Raises:
            UsageError: No case has it.
        """
        cases = {case.id: case for case in (*self.training, *self.test)}
        if name not in cases:
            known = ", ".join([*list(cases)[:MOST_SHOWN], *["..."] * (len(cases) > MOST_SHOWN)])
            raise UsageError(
                f"no case {name!r} in manifest {self.name!r}: its {len(cases)} cases are {known}"
            )
        return cases[name]

    @checked()
    def read(self, case: Case | str) -> LabelledImage:
        """Read image and label of a case: `image, label = manifest.read(case)`.

        Args:
            case: A case, or its id.

        Returns:
            Both as MetaTensors on one grid; the label is None for a case without a reference.

        Raises:
            UsageError: No case has the id.
            ManifestError: A file cannot be read correctly, or label and image differ in their
                grids.
        """
        # Reading loads PyTorch, which a list of cases does without.
        from segmed.manifest.labelled_image import read_labelled  # noqa: PLC0415 - see above

        return read_labelled(self, self.case(case) if isinstance(case, str) else case)

    def __repr__(self) -> str:
        """Name, cases, folds, labels and channels in one line."""
        labels = ", ".join(label.name for label in self.labels[:MOST_SHOWN])
        more = ", ..." if len(self.labels) > MOST_SHOWN else ""
        channels = ", ".join(channel.name for channel in self.channels)
        cases = _counted(len(self.training), "training case")
        folds, test = _counted(len(self.folds), "fold"), _counted(len(self.test), "test case")
        return (
            f"Manifest({self.name!r}: {cases} in {folds}, {test}; labels {labels}{more}; "
            f"channels {channels})"
        )

    __str__ = __repr__


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
