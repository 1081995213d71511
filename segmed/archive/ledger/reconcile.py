"""Bring the ledger in line with the files: outputs of done studies must exist, byte for byte."""

from __future__ import annotations

import logging
from pathlib import Path

import pydicom

from segmed.archive.ledger import Entry, Ledger
from segmed.archive.pacs.delivery import Delivery
from segmed.archive.pacs.reporting import withdraw
from segmed.archive.reissued_reports import send_voided, void_messages
from segmed.archive.writing import remove_leftovers
from segmed.errors import ServiceError
from segmed.findings.reports import reports_beside
from segmed.io.digest import sha256_of_file
from segmed.io.scratch import remove_scratch_leftovers

DICOM_SUFFIX = ".dcm"

logger = logging.getLogger(__name__)


def reconcile(ledger: Ledger, out_dir: Path, outputs: Path, delivery: Delivery | None) -> int:
    """Reopen the studies whose output is gone, changed, or no longer where it was delivered.

    Drafts of killed processes are removed, and so are results of replaced studies that a killed run
    left behind, here and where they were sent. Studies in another state are left as they are.

    Args:
        ledger: The ledger.
        out_dir: Folder that output names are relative to.
        outputs: Folder of the segmentations.
        delivery: Where outputs are sent, if they are.

    Returns:
        How many studies were reopened.

    Raises:
        ServiceError: The place of delivery does not answer.
    """
    remove_leftovers(outputs)
    remove_scratch_leftovers()
    for entry in ledger.entries(state="replaced"):
        withdraw_result(ledger, out_dir, entry, delivery)
    send_voided(out_dir, delivery)
    reopened = 0
    for entry in ledger.entries(state="done"):
        if is_intact(entry, out_dir) and _is_delivered(entry, delivery):
            continue
        logger.info("study %s is to be done again: its output is gone or changed", entry.study)
        ledger.reopen(entry.key)
        reopened += 1
    return reopened


def withdraw_result(ledger: Ledger, out_dir: Path, entry: Entry, delivery: Delivery | None) -> None:
    """Remove a replaced result where it was sent, then in the output folder; void its messages.

    A process that was killed between sending and booking left a result under an address that the
    ledger does not have: that of the file counts. What cannot be removed now is tried again at the
    next start.

    Args:
        ledger: The ledger.
        out_dir: Folder that output names are relative to.
        entry: The replaced entry.
        delivery: Where outputs are sent, if they are.
    """
    address = entry.delivered or _address_in(out_dir, entry)
    if address and not ledger.is_delivered_otherwise(address, entry.key):
        try:
            is_gone = withdraw(delivery, address)
        except ServiceError as error:
            logger.warning("a result that is replaced stays where it was sent: %s", error)
            is_gone = False
            ledger.note_delivery(entry.key, address)
        if is_gone:
            ledger.note_delivery(entry.key, None)
    void_messages(ledger, out_dir, entry)
    withdraw_output(ledger, out_dir, entry)


def _address_in(out_dir: Path, entry: Entry) -> str:
    """SOPInstanceUID of the output of an entry; empty unless it is there as a DICOM file."""
    if entry.output is None or not entry.output.endswith(DICOM_SUFFIX):
        return ""
    if not is_intact(entry, out_dir):
        return ""
    dataset = pydicom.dcmread(out_dir / entry.output, specific_tags=["SOPInstanceUID"])
    return str(dataset.SOPInstanceUID)


def withdraw_output(ledger: Ledger, out_dir: Path, entry: Entry) -> None:
    """Remove the output of a replaced entry, unless another entry has the same file.

    A file that was changed since it was written is left alone: it is no longer ours.
    """
    if entry.output is None:
        return
    if not ledger.is_shared(entry.output, entry.key) and is_intact(entry, out_dir):
        output = out_dir / entry.output
        for path in (*reports_beside(output), output):
            path.unlink()
    ledger.forget_output(entry.key)


def is_intact(entry: Entry, out_dir: Path) -> bool:
    """Return whether the output that an entry names is there with the content it had."""
    if entry.output is None:
        return False
    path = out_dir / entry.output
    return path.is_file() and sha256_of_file(path) == entry.output_sha256


def _is_delivered(entry: Entry, delivery: Delivery | None) -> bool:
    if delivery is None:
        return True
    return entry.delivered is not None and delivery.has(entry.delivered)
