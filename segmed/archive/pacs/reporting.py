"""Delivery of a segmentation with its reports: all of them, or it does not count as delivered."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from segmed.archive.pacs.delivery import Delivery, RevocableDelivery
from segmed.errors import ServiceError
from segmed.findings.reports import report_path, reports_beside, sr_uids
from segmed.findings.sending import ReportSender
from segmed.formats import ReportKind

REPORTS_ALONE = "reports"
"""Address of a delivery whose segmentation stays in the output folder."""


@dataclass(frozen=True)
class ReportedDelivery:
    """Delivers a segmentation, then its DICOM SR to the same PACS, then its messages.

    A delivery that breaks off is repeated whole: every receiver replaces what it has, or knows it.

    Attributes:
        pacs: Takes segmentation and SR; None where only messages are sent.
        has_sr: An SR is written beside each segmentation.
        senders: Takers of the messages.
    """

    pacs: Delivery | None
    has_sr: bool = False
    senders: Sequence[ReportSender] = ()

    def deliver(self, path: Path) -> str:
        """Send a segmentation and its reports.

        Returns:
            The address of the segmentation in the PACS.

        Raises:
            ServiceError: A receiver does not answer or refuses, or a report is not there.
        """
        address = REPORTS_ALONE
        if self.pacs is not None:
            address = self.pacs.deliver(path)
            for report in _required(path, "sr") if self.has_sr else ():
                self.pacs.deliver(report)
        for sender in self.senders:
            for report in _required(path, sender.kind):
                sender.send(report)
        return address

    def has(self, address: str) -> bool:
        """Return whether the PACS has a segmentation and its SR; messages were acknowledged.

        Raises:
            ServiceError: The PACS does not answer.
        """
        if self.pacs is None:
            return True
        if address == REPORTS_ALONE or not self.pacs.has(address):
            return False
        return not self.has_sr or self.pacs.has(address_of_sr(address))


def with_sr(delivery: Delivery) -> ReportedDelivery:
    """A delivery that also sends the SR of each segmentation."""
    if isinstance(delivery, ReportedDelivery):
        return replace(delivery, has_sr=True)
    return ReportedDelivery(delivery, has_sr=True)


def address_of_sr(address: str) -> str:
    """Address of the SR of a segmentation in the PACS that has the segmentation.

    Args:
        address: That of the segmentation: its SOPInstanceUID, alone or behind those of study and
            series.
    """
    places, _, instance = address.rpartition("/")
    series, report = sr_uids(instance)
    return "/".join([places.split("/")[0], series, report]) if places else report


def withdraw(delivery: Delivery | None, address: str) -> bool:
    """Remove a delivered segmentation and its SR, the SR first: none is left without its images.

    Args:
        delivery: Where results are sent now.
        address: Address that the segmentation was delivered under.

    Returns:
        False where nothing can be removed, or messages alone were sent.

    Raises:
        ServiceError: The place does not answer, or refuses.
    """
    pacs = delivery.pacs if isinstance(delivery, ReportedDelivery) else delivery
    if address == REPORTS_ALONE or not isinstance(pacs, RevocableDelivery):
        return False
    pacs.withdraw(address_of_sr(address))
    pacs.withdraw(address)
    return True


def _required(output: Path, kind: ReportKind) -> list[Path]:
    found = reports_beside(output, (kind,))
    if not found:
        raise ServiceError(
            f"{report_path(output, kind).name} is not beside its segmentation; remove that and run "
            "again"
        )
    return found
