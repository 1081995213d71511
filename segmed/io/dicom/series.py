"""DICOM series: scan any tree, read the series that are usable.

```python
for series in scan("incoming"):
    if series.usable:
        image = read_series(series)
    else:
        print(series.reason, series.message)
```
"""

from __future__ import annotations

from pathlib import Path

from segmed.io.arrays import load
from segmed.io.dicom.audit import SeriesAudit
from segmed.io.dicom.scan import scan
from segmed.io.limits import DEFAULT_LIMITS, ReadLimits
from segmed.io.read import as_image
from segmed.metatensor import MetaTensor

__all__ = ["SeriesAudit", "read_series", "scan"]


def read_series(
    series: SeriesAudit | Path | str,
    *,
    trusted: bool = False,
    limits: ReadLimits = DEFAULT_LIMITS,
) -> MetaTensor:
    """Read one DICOM series.

    Args:
        series: What `scan` said of it, or the folder or file of exactly one series.
        trusted: As for `read_image`.
        limits: Bounds on its size.

    Returns:
        `[1, columns, rows, slices]` float32 with its RAS+ affine in mm.

    Raises:
        ImageError: The series is refused, or a slice cannot be decoded.
    """
    return as_image(load(series, limits, trusted=trusted))
