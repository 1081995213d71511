"""HL7 and FHIR messages of results that replace others, or that are withdrawn.

A result that replaces one of the same model is reported as its correction, under the identifiers of
the first report, which the ledger keeps. The messages of a replaced result that no other one
corrects, such as that of another model, are voided: written to the folder `voided` of the output
folder, and removed from there once their receivers have acknowledged them.
"""

from __future__ import annotations

import logging
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pydicom

from segmed.archive.ledger import Entry, Ledger
from segmed.archive.pacs.delivery import Delivery
from segmed.archive.pacs.reporting import ReportedDelivery
from segmed.errors import ServiceError
from segmed.findings.reissue import MESSAGES, Reported, corrected, voided
from segmed.findings.reports import reports_beside
from segmed.formats import REPORT_SUFFIXES
from segmed.io.atomic import write_whole

logger = logging.getLogger(__name__)

VOIDED = "voided"
"""Folder of messages that declare withdrawn results wrong."""

REPORTED = "reported"
"""Measure of an entry: identity of its result in messages."""


def report_as_correction(ledger: Ledger, key: str, output: Path, out_dir: Path) -> dict[str, Any]:
    """Write the messages of a new result as corrections if it replaces a reported one.

    Nothing changes in the ledger, and repetition gives equal files: a run that is killed in between
    does it again.

    Args:
        ledger: The ledger, in which the result is not booked yet.
        key: Key of the study.
        output: The segmentation that was written.
        out_dir: Folder that output names are relative to.

    Returns:
        The measure `reported` of the result; empty without messages.
    """
    messages = reports_beside(output, MESSAGES)
    if not messages:
        return {}
    package = ledger.entry(key).package
    earlier = [
        reported
        for entry in ledger.predecessors(key)
        if entry.package == package and (reported := _reported(entry, out_dir)) is not None
    ]
    reported = Reported(_uid_of(output))
    if earlier:
        reported = Reported(earlier[0].uid, 1 + max(one.revision for one in earlier))
        for path in messages:
            write_whole(path, corrected(path, reported))
    return {REPORTED: asdict(reported)}


def void_messages(ledger: Ledger, out_dir: Path, entry: Entry) -> None:
    """Write messages that void those of a replaced result, unless another result corrects them.

    Args:
        ledger: The ledger.
        out_dir: Folder that output names are relative to.
        entry: The replaced entry, whose output is still there.
    """
    reported = _reported(entry, out_dir)
    if reported is None or ledger.is_shared(str(entry.output), entry.key):
        return
    successors = (measures.get(REPORTED, {}) for measures in ledger.successors(entry.key))
    if any(one.get("uid") == reported.uid for one in successors):
        return
    for path in reports_beside(out_dir / str(entry.output), MESSAGES):
        (out_dir / VOIDED).mkdir(exist_ok=True)
        write_whole(out_dir / VOIDED / path.name, voided(path))


def send_voided(out_dir: Path, delivery: Delivery | None) -> None:
    """Send the voided messages and remove those that were acknowledged.

    Without a receiver they stay, for the site to send; what cannot be sent now is sent at the next
    start.

    Args:
        out_dir: The output folder.
        delivery: Where results are sent now.
    """
    senders = delivery.senders if isinstance(delivery, ReportedDelivery) else ()
    for path in sorted((out_dir / VOIDED).glob("[!.]*")):
        takers = [one for one in senders if path.name.endswith(REPORT_SUFFIXES[one.kind])]
        try:
            for taker in takers:
                taker.send(path)
        except ServiceError as error:
            logger.warning("a result that is withdrawn stays where it was reported: %s", error)
            continue
        if takers:
            path.unlink()


def _reported(entry: Entry, out_dir: Path) -> Reported | None:
    """Identity of a result in messages; None if it has none.

    Results of earlier versions of segmed were reported under the identifier of their segmentation.
    """
    if REPORTED in entry.measures:
        return Reported(**entry.measures[REPORTED])
    if entry.output is None:
        return None
    output = out_dir / entry.output
    has_messages = output.is_file() and bool(reports_beside(output, MESSAGES))
    return Reported(_uid_of(output)) if has_messages else None


def _uid_of(output: Path) -> str:
    return str(pydicom.dcmread(output, specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
