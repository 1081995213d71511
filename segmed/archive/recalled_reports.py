"""Reports of an archive whose intervals drift has withdrawn: written and sent again without them.

A report is sent as soon as its study is segmented, and drift is judged when the records of a run
are written. So intervals of volumes are stated in reports under a condition, never while a
withdrawal is in force, and the reports whose intervals drift withdraws are replaced then.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pydicom

from segmed.archive.ledger import Entry, Ledger
from segmed.archive.pacs.delivery import Delivery, RetryPolicy, RevocableDelivery
from segmed.archive.pacs.reporting import ReportedDelivery
from segmed.archive.quality_bound import ArchiveBound
from segmed.errors import ServiceError
from segmed.findings.reports import report_path, reports_beside
from segmed.findings.withdrawal import without_intervals
from segmed.io.atomic import write_whole

logger = logging.getLogger(__name__)


def recall_intervals(
    ledger: Ledger,
    bound: ArchiveBound,
    out_dir: Path,
    delivery: Delivery | None,
    retry: RetryPolicy,
) -> int:
    """Replace the reports of withdrawn runs by ones without intervals, where they were sent, too.

    A report that cannot be replaced where it was sent keeps its intervals here, and the next run
    tries again.

    Args:
        ledger: The ledger.
        bound: The bound of the archive, settled.
        out_dir: Output folder of the archive.
        delivery: Where outputs are sent, if they are.
        retry: How long networks are waited for.

    Returns:
        Number of studies whose reports were replaced.
    """
    replaced = failed = 0
    if not bound.withdrawn_runs:
        return 0
    for entry in ledger.entries(state="done"):
        if entry.package != bound.model or str(entry.worked) not in bound.withdrawn_runs:
            continue
        changed = _changed(out_dir, entry, is_kept=_keeps_objects(delivery))
        if not changed:
            continue
        if _replace(changed, entry, out_dir, delivery, retry):
            replaced += 1
        else:
            failed += 1
    if failed:
        logger.warning(
            "reports of %d studies still state intervals that drift has withdrawn where they were "
            "sent; run again with the same destination to replace them",
            failed,
        )
    if replaced:
        logger.info("reports of %d studies were replaced: drift withdrew intervals", replaced)
    return replaced


def _keeps_objects(delivery: Delivery | None) -> bool:
    """Return whether results are sent to a PACS that does not take objects back."""
    pacs = _pacs_of(delivery)
    return pacs is not None and not isinstance(pacs, RevocableDelivery)


def _pacs_of(delivery: Delivery | None) -> Delivery | None:
    return delivery.pacs if isinstance(delivery, ReportedDelivery) else delivery


def _changed(out_dir: Path, entry: Entry, *, is_kept: bool) -> dict[Path, bytes]:
    """Reports of a result that state intervals, with their content without them."""
    found = {
        path: without_intervals(path, is_kept=is_kept and bool(entry.delivered))
        for path in reports_beside(out_dir / str(entry.output))
    }
    return {path: content for path, content in found.items() if content is not None}


def _replace(
    changed: dict[Path, bytes],
    entry: Entry,
    out_dir: Path,
    delivery: Delivery | None,
    retry: RetryPolicy,
) -> bool:
    """Write the changed reports and send them; as before if they cannot be sent."""
    if entry.delivered and delivery is None:
        return False
    before = {path: path.read_bytes() for path in changed}
    for path, content in changed.items():
        write_whole(path, content)
    if delivery is None:
        return True
    output = out_dir / str(entry.output)
    try:
        retry.call(lambda: _resend(delivery, output))
    except ServiceError as error:
        logger.warning("a report whose intervals are withdrawn was not replaced: %s", error)
        for path, content in before.items():
            write_whole(path, content)
        return False
    return True


def _resend(delivery: Delivery, output: Path) -> None:
    """Remove the SR where that can be done, and deliver the result again."""
    pacs = _pacs_of(delivery)
    report = report_path(output, "sr")
    if report.is_file() and isinstance(pacs, RevocableDelivery):
        pacs.withdraw(str(pydicom.dcmread(report, stop_before_pixels=True).SOPInstanceUID))
    delivery.deliver(output)
