"""Channels, structures and their coded concepts."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
)


class Frozen(BaseModel):
    """A record that neither changes nor takes unknown keys or numbers that are none."""

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


class LabelClass(Frozen):
    """One structure of the label maps.

    Attributes:
        name: Name in reports and metric names, such as `anterior`.
        value: Voxel value in the label files; 0 is background and never listed.
        code: Coded concept, needed for DICOM outputs only.
    """

    name: Annotated[str, Field(min_length=1)]
    value: Annotated[int, Field(ge=1, le=65535)]
    code: Code | None = None


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
