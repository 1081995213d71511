"""Notices reach a real web server and a real mail server, and never fail a run."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.testing.utilities import prefect_test_harness

sys.path.append(str(Path(__file__).parents[2] / "integration"))

from listener import MailServer, WebHook, listening

from pipelines.runs.notices import MailBlock, check_notices, notice_of_failure, send_notices
from segmed.errors import ServiceError, UsageError


@pytest.fixture(scope="module")
def temporary_server() -> Iterator[None]:
    with prefect_test_harness(server_startup_timeout=120):
        yield


def test_address_gets_subject_and_body_as_json() -> None:
    with listening(WebHook()) as hook:
        assert send_notices([hook.url], "12 done", "a line") == 1
    assert hook.got == [{"subject": "12 done", "body": "a line"}]


def test_mail_arrives_with_its_subject() -> None:
    with listening(MailServer()) as post:
        mail = MailBlock(
            server="127.0.0.1",
            port=post.port,
            sender="segmed@example.org",
            recipients=["night@example.org"],
            encryption="none",
        )
        mail.notify("two lines\nof text", "1 refused")
    [got] = post.got
    assert "Subject: 1 refused" in got
    assert "of text" in got


def test_notice_that_cannot_be_sent_is_logged_without_its_address(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert send_notices(["http://127.0.0.1:9/secret-token"], "subject", "body") == 0
    assert "was not sent" in caplog.text
    assert "secret-token" not in caplog.text


def test_failure_is_told_and_goes_on() -> None:
    with listening(WebHook()) as hook:
        with pytest.raises(ServiceError), notice_of_failure([hook.url], "archive run"):
            raise ServiceError("the PACS does not answer")
        with pytest.raises(ZeroDivisionError), notice_of_failure([hook.url], "archive run"):
            raise ZeroDivisionError("patient Smith")
    assert [notice["subject"] for notice in hook.got] == ["segmed: archive run failed"] * 2
    assert hook.got[0]["body"] == "the PACS does not answer"
    assert "Smith" not in hook.got[1]["body"], "the text of an unexpected error left the house"


@pytest.mark.slow
def test_blocks_of_the_server_send_notices(temporary_server: None) -> None:
    with listening(WebHook()) as hook, listening(MailServer()) as post:
        CustomWebhookNotificationBlock(
            name="night", url=hook.url, json_data={"text": "{{subject}}: {{body}}"}
        ).save("night")
        MailBlock(
            server="127.0.0.1",
            port=post.port,
            sender="segmed@example.org",
            recipients=["night@example.org"],
            encryption="none",
        ).save("night")
        names = ["custom-webhook/night", "segmed-mail/night"]
        check_notices(names)
        assert send_notices(names, "12 done", "all well") == 2
    assert hook.got == [{"text": "12 done: all well"}]
    assert "all well" in post.got[0]


@pytest.mark.slow
def test_block_that_is_not_there_or_sends_nothing_is_refused(temporary_server: None) -> None:
    with pytest.raises(UsageError, match="no block 'custom-webhook/absent'"):
        check_notices(["custom-webhook/absent"])
    Secret(value="x").save("night")
    with pytest.raises(UsageError, match="sends no notices"):
        check_notices(["secret/night"])
