"""Environment variables that Prefect and MLflow read while they are imported.

They are set when `pipelines` is imported, before either, and never over a value of the user's.
"""

from __future__ import annotations

import os

DEFAULTS = {
    # No dependency reports home.
    "DO_NOT_TRACK": "1",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    # A server that is away is noticed in seconds; the outbox does the waiting.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    # Standard output belongs to our own results, above all to `--json`.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # Progress lines of artifact transfers are not for us to print.
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    # Records of the library reach the flow's log (with the level set in flows/runner.py).
    "PREFECT_LOGGING_EXTRA_LOGGERS": "segmed",
    # The same code also runs outside of flows, where there is no run whose log it could reach.
    "PREFECT_LOGGING_TO_API_WHEN_MISSING_FLOW": "ignore",
    # The temporary server needs seconds to start on a loaded machine.
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
}
"""Name and value of each; a name that is already set keeps its value."""


def settle() -> None:
    """Set every default that the environment leaves open."""
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
