"""Segment many studies, each exactly once: sources, ledger, run, and its records.

```python
for outcome in segment_archive(FolderSource(Path("archive")), predictor=predictor, out_dir=out):
    print(outcome.study, outcome.status, outcome.reason)
```
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from segmed.lazy import lazy_exports

if TYPE_CHECKING:
    from segmed.archive.folder_source import FolderSource
    from segmed.archive.ledger import Entry, Ledger
    from segmed.archive.model import Model, model_of, read_packages
    from segmed.archive.pacs.delivery import Delivery, RetryPolicy
    from segmed.archive.run import RunOptions
    from segmed.archive.segment import WorkerPool, Workers, preview_archive, segment_archive
    from segmed.archive.status import ArchiveStatus, archive_status, places_of, retry_archive
    from segmed.archive.study import NotImage, Study, StudyOutcome, StudySource
    from segmed.archive.workers.persistent import close_idle_pools
    from segmed.package.series_rules import Rules, read_rules
else:
    __getattr__ = lazy_exports(
        __name__,
        {
            "segmed.archive.folder_source": "FolderSource",
            "segmed.archive.ledger": "Entry Ledger",
            "segmed.archive.model": "Model model_of read_packages",
            "segmed.archive.pacs.delivery": "Delivery RetryPolicy",
            "segmed.archive.run": "RunOptions",
            "segmed.archive.segment": "WorkerPool Workers preview_archive segment_archive",
            "segmed.package.series_rules": "Rules read_rules",
            "segmed.archive.status": "ArchiveStatus archive_status places_of retry_archive",
            "segmed.archive.study": "NotImage Study StudyOutcome StudySource",
            "segmed.archive.workers.persistent": "close_idle_pools",
        },
    )

__all__ = [
    "ArchiveStatus",
    "Delivery",
    "Entry",
    "FolderSource",
    "Ledger",
    "Model",
    "NotImage",
    "RetryPolicy",
    "Rules",
    "RunOptions",
    "Study",
    "StudyOutcome",
    "StudySource",
    "WorkerPool",
    "Workers",
    "archive_status",
    "close_idle_pools",
    "model_of",
    "places_of",
    "preview_archive",
    "read_packages",
    "read_rules",
    "retry_archive",
    "segment_archive",
]
