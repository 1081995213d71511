"""Notifications of the outcome of a run: by blocks of the Prefect server, or one address by HTTP.

Nothing is sent unless requested. A notice is named by the block that sends it (`segmed-mail/NAME`,
`custom-webhook/NAME`, `slack-webhook/NAME`, any notification block), or by an `http(s)://` address,
which gets `{"subject": ..., "body": ...}` as JSON. Bodies contain counts, hashes and reasons, never
names of patients or files.
"""

from __future__ import annotations

import logging
import smtplib
import ssl
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from email.message import EmailMessage
from typing import Any

import httpx
from prefect.blocks.abstract import NotificationBlock
from prefect.blocks.core import Block
from pydantic import Field, SecretStr

from segmed.errors import SegmedError, UsageError

progress = logging.getLogger("segmed.progress")

TIMEOUT_S = 20.0


class MailBlock(NotificationBlock):
    """Sends notices by e-mail through an SMTP server.

    Attributes:
        server: Host of the SMTP server.
        port: Its port.
        sender: Address that mails come from.
        recipients: Addresses that they go to.
        encryption: `starttls`, `tls` or `none`.
        user: Name to log in with, if the server requires it.
        password: Its password; the Prefect server keeps it encrypted.
    """

    _block_type_name = "Segmed mail"
    _block_type_slug = "segmed-mail"
    _description = "Sends segmed's notices by e-mail through an SMTP server."

    server: str
    port: int = 587
    sender: str
    recipients: list[str] = Field(min_length=1)
    encryption: str = Field(default="starttls", pattern="^(starttls|tls|none)$")
    user: str = ""
    password: SecretStr = SecretStr("")

    def notify(  # type: ignore[override]  # Prefect takes either kind, as its own blocks show
        self, body: str, subject: str | None = None
    ) -> None:
        """Send one mail.

        Raises:
            OSError: The server does not answer, or refuses.
        """
        message = EmailMessage()
        message["From"], message["To"] = self.sender, ", ".join(self.recipients)
        message["Subject"] = subject or "segmed"
        message.set_content(body)
        context = ssl.create_default_context()
        with self._connect(context) as smtp:
            if self.encryption == "starttls":
                smtp.starttls(context=context)
            if self.user:
                smtp.login(self.user, self.password.get_secret_value())
            smtp.send_message(message)

    def _connect(self, context: ssl.SSLContext) -> smtplib.SMTP:
        if self.encryption == "tls":
            return smtplib.SMTP_SSL(self.server, self.port, timeout=TIMEOUT_S, context=context)
        return smtplib.SMTP(self.server, self.port, timeout=TIMEOUT_S)


def check_notices(names: Sequence[str]) -> None:
    """Make sure that each name can be used, before a run depends on it.

    Raises:
        UsageError: The server has no such block.
    """
    for name in names:
        if "://" not in name:
            block_of(name)


def block_of(name: str) -> Any:
    """The notification block of a name such as `custom-webhook/night`.

    Raises:
        UsageError: The server has none, or it is of another kind.
    """
    try:
        block = Block.load(name)
    except ValueError as error:
        raise UsageError(
            f"the Prefect server has no block {name!r} ({_line(error)}); make one on its page "
            "(Blocks) or by Block.save, or give an http(s):// address"
        ) from error
    if not isinstance(block, NotificationBlock):
        raise UsageError(f"the block {name!r} sends no notices; give a notification block")
    return block


def send_notices(names: Sequence[str], subject: str, body: str) -> int:
    """Send a notice to each; one that cannot be sent is logged, for it must not fail a run.

    Returns:
        How many were sent.
    """
    sent = 0
    for name in names:
        try:
            _send(name, subject, body)
        except Exception as error:  # noqa: BLE001 - any block may raise anything; it is logged
            progress.error("notice to %s was not sent: %s", _shown(name), _line(error))
        else:
            sent += 1
    return sent


@contextmanager
def notice_of_failure(names: Sequence[str], what: str) -> Iterator[None]:
    """Send a notice if the block raises; the error is raised further."""
    try:
        yield
    except SegmedError as error:
        send_notices(names, f"segmed: {what} failed", str(error))
        raise
    except Exception as error:  # its text may contain names: the notice has its kind alone
        body = f"{type(error).__name__}; see the log of the run"
        send_notices(names, f"segmed: {what} failed", body)
        raise


def _send(name: str, subject: str, body: str) -> None:
    if "://" in name:
        content = {"subject": subject, "body": body}
        httpx.post(name, json=content, timeout=TIMEOUT_S).raise_for_status()
        return
    block_of(name).notify(body, subject)


def _shown(name: str) -> str:
    """A name without the rest of an address, which may contain a secret."""
    return name.split("://", 1)[0] + "://..." if "://" in name else name


def _line(error: Exception) -> str:
    """Return an error's type, and its text unless that may contain an address, for a log."""
    text = " ".join(str(error).split())
    return f"{type(error).__name__}" if "://" in text else f"{type(error).__name__}: {text[:200]}"
