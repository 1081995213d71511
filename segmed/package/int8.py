"""The int8 form of a package's network: one file beside the weights, and its acceptance record.

The file contains OpenVINO's intermediate representation of the quantised network as two tensors of
bytes in the safetensors form: nothing in it is executed when it is read. It belongs to the weights
and the plan from which it was made: with others it is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import Field, NonNegativeFloat, PositiveInt
from safetensors import SafetensorError

from segmed.errors import PackageError
from segmed.io.digest import sha256_of_text
from segmed.structures import Frozen

INT8_FILE = "int8.safetensors"
"""Name of the file in a package folder."""

MAX_INT8_BYTES = 4 * 2**30
"""Largest int8 file that is read, in bytes."""

XML, WEIGHTS = "xml", "weights"
"""Names of the two tensors: topology and constants."""


class ChangeLimits(Frozen):
    """Limits that a faster way must keep on held-out cases to be accepted.

    Attributes:
        dice_loss: Largest loss of mean Dice, for each structure: in the mean over the cases, and at
            the lower confidence bound of the paired differences.
        labels_changed: Largest share of changed labels, of the voxels that either way gives to a
            structure.
        confidence: One-sided confidence of the bound.
        min_cases: With fewer held-out cases nothing is accepted.
    """

    dice_loss: NonNegativeFloat = 0.002
    labels_changed: NonNegativeFloat = 0.02
    confidence: float = Field(default=0.95, gt=0.5, lt=1.0)
    min_cases: PositiveInt = 3


class StructureEffect(Frozen):
    """Effect of a faster way on one structure, or on the mean over all, on held-out cases.

    Attributes:
        label: Name of the structure, or `mean`.
        cases: Cases with the structure in prediction or reference.
        dice_before: Mean Dice before, such as in float32.
        dice_after: Mean Dice after, such as in int8.
        difference: Mean paired difference, after minus before.
        bound: Lower confidence bound of the difference.
    """

    label: str
    cases: PositiveInt
    dice_before: float
    dice_after: float
    difference: float
    bound: float


class Int8Record(Frozen):
    """Acceptance record of an int8 network; cases are counted, never named.

    Attributes:
        made_from: Hash of the package in float32.
        sha256: Digest of the int8 file.
        cases: Held-out cases on which both networks were scored.
        structures: Effect on each structure.
        labels_changed: Share of changed labels, of the voxels that either gives to a structure.
        limits: Limits that were kept.
        float32_layers: Layers that compute in float32, by their names in the representation.
        calibration_cases: Training cases that the windows were drawn from.
        calibration_windows: Windows from which the ranges of numbers were found.
        seed: Seed of the draw.
        noise_difference: Mean difference from float32 on a window of noise, relative to the largest
            value; other processors are compared with it before first use.
        generated_kernels: OpenVINO generates kernels for it, which is faster; False where its
            compiler died of that.
        bf16: What is not int8 computes in bfloat16, on processors with units for it.
        versions: Versions of NNCF and OpenVINO.
    """

    made_from: str
    sha256: str
    cases: PositiveInt
    structures: tuple[StructureEffect, ...]
    labels_changed: NonNegativeFloat
    limits: ChangeLimits
    float32_layers: tuple[str, ...]
    calibration_cases: PositiveInt
    calibration_windows: PositiveInt
    seed: int
    noise_difference: NonNegativeFloat
    generated_kernels: bool = False
    bf16: bool = False
    versions: dict[str, str]

    @property
    def form(self) -> str:
        """Digest of the file, with the precision of what is not int8: both decide the values."""
        return f"bf16-{self.sha256}" if self.bf16 else self.sha256


@dataclass(frozen=True, repr=False)
class Int8Network:
    """An accepted int8 network.

    Attributes:
        record: Its acceptance.
        content: Content of the int8 file.
    """

    record: Int8Record
    content: bytes

    def __repr__(self) -> str:
        """Digest and size in one line."""
        return f"Int8Network({self.record.sha256[:12]}, {len(self.content)} bytes)"

    def representation(self) -> tuple[str, bytes]:
        """Topology as XML, and constants, as OpenVINO reads them.

        Raises:
            PackageError: The content is not that of an int8 file.
        """
        from safetensors.numpy import load  # noqa: PLC0415 - cards are read without NumPy

        try:
            tensors = load(self.content)
            return tensors[XML].tobytes().decode(), tensors[WEIGHTS].tobytes()
        except (SafetensorError, KeyError, UnicodeDecodeError) as error:
            raise PackageError(f"{INT8_FILE} is damaged: {error}") from error


def int8_content(xml: bytes, weights: bytes) -> bytes:
    """Content of an int8 file from the two files of a representation."""
    import numpy as np  # noqa: PLC0415 - cards are read without NumPy
    from safetensors.numpy import save  # noqa: PLC0415 - likewise

    parts = {XML: xml, WEIGHTS: weights}
    arrays = {name: np.frombuffer(part, np.uint8) for name, part in parts.items()}
    content: bytes = save(arrays)
    return content


def other_precision(bf16: bool) -> str:
    """Name of the precision of what is not int8."""
    return "bfloat16" if bf16 else "float32"


def hash_with_int8(float32_hash: str, record: Int8Record) -> str:
    """Hash of a package with an int8 network: it computes other labels, so it has another name."""
    return sha256_of_text(f"{float32_hash}|int8|{record.form}")


def require_int8(record: Int8Record, content_sha256: str, float32_hash: str, where: str) -> None:
    """Check that an int8 file is the one of its record, made from these weights and this plan.

    Args:
        record: The record on the card.
        content_sha256: Digest of the file.
        float32_hash: Hash of the package without it.
        where: Name of the package, for the error.

    Raises:
        PackageError: It is not.
    """
    if content_sha256 != record.sha256:
        raise PackageError(
            f"{where}/{INT8_FILE} is not the file that was accepted (its sha256 differs from that "
            "on the card); fetch the package again, or quantise the model again"
        )
    if record.made_from != float32_hash:
        raise PackageError(
            f"{where}/{INT8_FILE} was made from package {record.made_from[:12]}, this one is "
            f"{float32_hash[:12]}; fetch the package again, or quantise the model again"
        )
