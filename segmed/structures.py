"""Channels, structures and their coded concepts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)


class Frozen(BaseModel):
    """Immutable record that refuses unknown keys, NaN and infinity."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Code(Frozen):
    """A coded concept, such as a SNOMED CT term.

    Attributes:
        scheme: Coding scheme designator, `SCT` for SNOMED CT.
        value: Code value in that scheme.
        meaning: The concept in words.
    """

    scheme: str
    value: str
    meaning: str


LabelValue = Annotated[int, Field(ge=1, le=65535)]
"""Voxel value of a structure in label maps."""


class Maker(Frozen):
    """Model that draws a structure of a label map that several models draw.

    Attributes:
        name: Name of the model.
        version: Hash of its package.
    """

    name: str
    version: str


class LabelClass(Frozen):
    """One structure of the label maps: the voxels of one value, or a region of several values.

    Attributes:
        name: Name in reports and metric names, such as `anterior`.
        value: Voxel value in the label files; 0 is background and never listed. Of a region the
            value of its own voxels, those in no region within it.
        code: Coded concept, needed for DICOM outputs only.
        region: Values of all voxels that belong to a region, its own among them; empty for a
            structure of one value.
        made_by: Model that draws it, where several models draw one label map.
    """

    name: Annotated[str, Field(min_length=1)]
    value: LabelValue
    code: Code | None = None
    region: tuple[LabelValue, ...] = ()
    made_by: Maker | None = None

    @model_validator(mode="after")
    def _require_own_value(self) -> LabelClass:
        if self.region and self.value not in self.region:
            raise ValueError(f"region {list(self.region)} does not contain its own value")
        return self

    @property
    def values(self) -> tuple[int, ...]:
        """Values of all voxels that belong to the structure."""
        return self.region or (self.value,)

    @property
    def contract(self) -> tuple[str, int, tuple[int, ...]]:
        """Name, value and region: what two lists of labels must agree in."""
        return self.name, self.value, tuple(sorted(self.region))

    def mask(self, label_map: Any) -> Any:
        """Voxels of a label map (array or tensor) that belong to the structure."""
        found = label_map == self.values[0]
        for value in self.values[1:]:
            found = found | (label_map == value)
        return found

    @model_serializer(mode="wrap")
    def _without_unused(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out region and maker where there are none: hashes of plans stay as they were."""
        fields: dict[str, Any] = serialize(self)
        if not self.region:
            fields.pop("region", None)
        if self.made_by is None:
            fields.pop("made_by", None)
        return fields


class Channel(Frozen):
    """One input channel of every case.

    Attributes:
        name: Name of the channel, such as `T1`.
        modality: DICOM modality (`MR`, `CT`, ...) or `OT`; decides how intensities are scaled.
        body_part: BodyPartExamined of all training images, where they agree; else empty.
    """

    name: str
    modality: str = "OT"
    body_part: str = ""

    @model_serializer(mode="wrap")
    def _without_empty_body_part(self, serialize: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave an empty body part out: hashes of plans that have none stay as they were."""
        fields: dict[str, Any] = serialize(self)
        if not self.body_part:
            fields.pop("body_part", None)
        return fields
