"""MLflow: whether it answers, its permissions, version and clock."""

from __future__ import annotations

import datetime as dt
import os
import re
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from pathlib import Path
from urllib.parse import urlsplit

from pipelines.doctor.finding import Finding
from pipelines.doctor.versions import version_of
from pipelines.tracking.address import tracking_uri, without_password
from segmed.errors import SegmedError

HERE = {"localhost", "127.0.0.1", "::1"}
MAX_CLOCK_SECONDS = 60.0
"""Clocks further apart than this make runs and tokens look older or younger than they are."""


def look_at_tracking(folder: Path, model: str | None) -> Iterator[Finding]:
    """Report the tracking address, and whether the named model can be loaded."""
    uri = tracking_uri(folder)
    shown = without_password(uri)
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        yield Finding("tracking", f"embedded, {shown}")
    else:
        found = _connect(uri, shown)
        yield found
        if found.state == "problem":
            return
        if uri.startswith(("http://", "https://")):
            yield from _ask(uri, shown)
            yield from clear_text("tracking", uri, variable="MLFLOW_TRACKING_PASSWORD")
    if model is not None:
        yield _model(model, folder)


def _connect(uri: str, shown: str) -> Finding:
    from pipelines.tracking.runs import connect_quietly  # noqa: PLC0415 - imports MLflow

    try:
        connect_quietly(uri)
    except SegmedError as error:
        repair = "start the server, or correct MLFLOW_TRACKING_URI and its login"
        return Finding("tracking", str(error), "problem", repair)
    return Finding("tracking", f"{shown} answers")


def _ask(uri: str, shown: str) -> Iterator[Finding]:
    """The server's version and clock; its database answered already."""
    from mlflow.utils.credentials import get_default_host_creds  # noqa: PLC0415 - imports MLflow
    from mlflow.utils.rest_utils import http_request  # noqa: PLC0415 - imports MLflow

    answer = http_request(get_default_host_creds(uri), "/version", "GET")
    theirs, ours = answer.text.strip(), str(version_of("mlflow"))
    if answer.status_code == 200 and re.match(r"\d+\.\d+", theirs):
        if theirs.split(".")[:2] != ours.split(".")[:2]:
            repair = "bring server and client to one version"
            yield Finding(
                "tracking", f"server has MLflow {theirs}, client {ours}", "warning", repair
            )
        else:
            yield Finding("tracking", f"server has MLflow {theirs}")
    yield from clocks(f"MLflow at {shown}", answer.headers.get("Date"))


def clocks(server: str, stated: str | None) -> Iterator[Finding]:
    """Compare our clock with the time that a server's answer states.

    Args:
        server: What the server is called.
        stated: The `Date` header, if there was one.
    """
    if stated is None:
        return
    apart = (dt.datetime.now(dt.UTC) - parsedate_to_datetime(stated)).total_seconds()
    fact = f"{abs(apart):.0f} s {'before' if apart > 0 else 'behind'} {server}"
    if abs(apart) > MAX_CLOCK_SECONDS:
        yield Finding("clock", fact, "problem", "keep both clocks right (chrony, NTP)")
    else:
        yield Finding("clock", f"within {MAX_CLOCK_SECONDS:.0f} s of {server}")


def clear_text(what: str, uri: str, *, variable: str) -> Iterator[Finding]:
    """A warning where a password crosses a network that others may read.

    Args:
        what: What is connected to.
        uri: Its address.
        variable: Variable with the password, if it is set.
    """
    parts = urlsplit(uri)
    is_near = parts.hostname in HERE or "." not in (parts.hostname or "")
    if parts.scheme == "http" and os.environ.get(variable) and not is_near:
        fact = f"the password goes to {parts.hostname} unencrypted"
        yield Finding(what, fact, "warning", "put TLS before the server and use https://")


def _model(reference: str, folder: Path) -> Finding:
    from pipelines.registry.loading import resolve_model  # noqa: PLC0415 - imports MLflow

    try:
        found = resolve_model(reference, folder=folder)
    except SegmedError as error:
        repair = "register it, or name another one (`segmed model list`)"
        return Finding("model", str(error), "problem", repair)
    return Finding("model", f"{reference} is {found.hash[:12]}, at {found.path}")
