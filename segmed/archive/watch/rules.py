"""Rules of a watch: which studies, which model, which output, and how urgent.

```yaml
off_peak: "20:00-06:00"           # local hours of rules with priority off-peak
rules:
  - name: hippocampus             # folder of its results, and name in lists
    modalities: [MR]              # series that it takes: modality,
    description: "t1.*"           # regular expression in SeriesDescription, whatever the case,
    body_part: BRAIN              # BodyPartExamined
    models: [models:/hippocampus@champion]
    several: joined               # of several models: ensemble, each or joined, the first wins
    same_names: refuse            # structures of one name in two joined models: refuse or prefix
    format: dicom-seg
    seg: binary                   # its form: binary, labelmap or fractional
    reports: [sr]                 # beside each segmentation: sr, hl7, fhir
    send: dimse://PACS@pacs:104
    send_reports: []              # addresses that HL7 and FHIR reports are sent to
    channels: channels.yaml       # rules that assign series to channels
    priority: urgent              # urgent, normal or off-peak
    complete:
      quiet_s: 20                 # nothing arrived for so long
      series: ["t1", "flair"]     # descriptions of series that must be there
      min_series: 1
      min_instances: 100
      longest_wait_s: 3600        # then a study without these is refused as incomplete
```
"""

from __future__ import annotations

from datetime import time
from pathlib import Path
from typing import Annotated, Literal, get_args

import yaml
from pydantic import Field, StringConstraints, ValidationError, field_validator, model_validator

from segmed.archive.query import SeriesQuery
from segmed.archive.reissued_reports import VOIDED
from segmed.archive.watch.arrival import Completeness, is_expression
from segmed.archive.watch.route import NIGHT, Hours, Priority
from segmed.errors import UsageError
from segmed.formats import ARCHIVE_OUTPUTS, ReportKind, SegKind
from segmed.structures import Frozen
from segmed.validation import first_fault

MAX_RULES_BYTES = 1 << 18
"""Largest file of rules that is read."""

Several = Literal["ensemble", "each", "joined"]
"""Use of several models: outputs averaged to one, an output of each, or one joined label map."""

SEVERAL: tuple[Several, ...] = get_args(Several)
RuleName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]
FEED_FOLDER = "server"
"""Folder of what is settled of a server, in the output folder of a watch."""

RESERVED = {"inbox", "segmentations", "reports", "pictures", VOIDED, FEED_FOLDER}
"""Folders that the output folder of a watch may have besides those of its rules."""


class WatchRule(Frozen):
    """One rule.

    Attributes:
        name: Name in lists, and folder of the results.
        modalities: Modalities of the series that it takes; empty for all images.
        description: Regular expression searched in SeriesDescription, whatever the case.
        body_part: BodyPartExamined, whatever the case.
        models: Model references; empty for those of the command line.
        several: Use of several models.
        same_names: Rule of structures that have one name in two joined models: `refuse` or
            `prefix`.
        format: Format of the outputs; None for that of the command line.
        seg: Form of DICOM segmentations; None for that of the command line.
        all_frames: Also write their empty frames; None as the command line says.
        reports: Reports beside each DICOM segmentation; None for those of the command line.
        send_reports: Addresses that reports are sent to; None for those of the command line.
        send: Address that outputs are sent to; None for that of the command line.
        channels: YAML file with rules that assign series to channels, relative to this file.
        priority: `urgent`, `normal` or `off-peak`.
        complete: Rules by which a study is complete.
    """

    name: RuleName
    modalities: tuple[str, ...] = ()
    description: str | None = None
    body_part: str | None = None
    models: tuple[str, ...] = ()
    several: Several = "ensemble"
    same_names: Literal["refuse", "prefix"] | None = None
    format: str | None = None
    seg: SegKind | None = None
    all_frames: bool | None = None
    reports: tuple[ReportKind, ...] | None = None
    send_reports: tuple[str, ...] | None = None
    send: str | None = None
    channels: Path | None = None
    priority: Priority = "normal"
    complete: Completeness = Completeness()

    @field_validator("description")
    @classmethod
    def _is_expression(cls, value: str | None) -> str | None:
        if value is not None:
            is_expression(value)
        return value

    @field_validator("format")
    @classmethod
    def _is_format(cls, value: str | None) -> str | None:
        if value is not None and value not in ARCHIVE_OUTPUTS:
            raise ValueError(f"unknown output format {value!r}: known are {known(ARCHIVE_OUTPUTS)}")
        return value

    @property
    def query(self) -> SeriesQuery:
        """Conditions on series."""
        return SeriesQuery(self.modalities, self.description, self.body_part)


class WatchRules(Frozen):
    """All rules of a watch; a study goes to each rule that takes one of its series.

    Attributes:
        rules: The rules.
        off_peak: Local hours in which rules of priority `off-peak` begin work, `HH:MM-HH:MM`.
    """

    rules: Annotated[tuple[WatchRule, ...], Field(min_length=1)]
    off_peak: str = str(NIGHT)

    @field_validator("off_peak")
    @classmethod
    def _are_hours(cls, value: str) -> str:
        hours_of(value)
        return value

    @model_validator(mode="after")
    def _require_own_names(self) -> WatchRules:
        names = [rule.name.casefold() for rule in self.rules]
        for name in names:
            if names.count(name) > 1:
                raise ValueError(f"two rules are called {name!r}; each needs a folder of its own")
            if name in RESERVED:
                raise ValueError(f"no rule can be called {name!r}: choose another name")
        return self

    @property
    def hours(self) -> Hours:
        """The off-peak hours."""
        return hours_of(self.off_peak)


def hours_of(text: str) -> Hours:
    """Hours of a day in `HH:MM-HH:MM`.

    Raises:
        ValueError: The text has another form, or both times are equal.
    """
    start, _, end = text.partition("-")
    try:
        hours = Hours(time.fromisoformat(start.strip()), time.fromisoformat(end.strip()))
    except ValueError as error:
        raise ValueError(f"{text!r} are no hours; write HH:MM-HH:MM") from error
    if hours.start == hours.end:
        raise ValueError(f"{text!r} are no hours: start and end are equal")
    return hours


def known(names: tuple[str, ...] | list[str] | frozenset[str]) -> str:
    """Names in a sentence."""
    return ", ".join(sorted(names))


def read_watch_rules(path: Path) -> WatchRules:
    """Rules from a YAML file; paths in it are relative to its folder.

    Raises:
        UsageError: The file is missing or invalid; the message names the field.
    """
    try:
        if path.stat().st_size > MAX_RULES_BYTES:
            raise UsageError(f"{path.name}: rules have at most {MAX_RULES_BYTES} bytes")
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        found = WatchRules.model_validate(content)
    except (OSError, UnicodeDecodeError, RecursionError, yaml.YAMLError) as error:
        raise UsageError(f"{path.name}: no YAML file of rules: {_in_a_line(error)}") from error
    except ValidationError as error:
        raise UsageError(f"{path.name}: {first_fault(error)}") from error
    rules = []
    for rule in found.rules:
        channels = rule.channels and path.parent / rule.channels
        if channels is not None and not channels.is_file():
            raise UsageError(f"{path.name}: rule {rule.name}: there is no file {rule.channels}")
        rules.append(rule.model_copy(update={"channels": channels}))
    return found.model_copy(update={"rules": tuple(rules)})


def _in_a_line(error: Exception) -> str:
    """An error of reading with its line, if it has one."""
    mark = getattr(error, "problem_mark", None)
    where = f" in line {mark.line + 1}" if mark is not None else ""
    return f"{getattr(error, 'problem', None) or type(error).__name__}{where}"
