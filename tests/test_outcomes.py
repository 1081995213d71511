"""One classifier of errors: every command gives one error the same status and code."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import get_args

import pytest

from segmed import errors
from segmed.archive.job import failure_result
from segmed.inference.files import bad_outcome
from segmed.outcomes import Status, classify

NAME = "BERTA_MAIER.nii.gz"

ENDS: list[tuple[Exception, str, str]] = [
    (errors.ImageError("cut", reason="truncated"), "refused", "truncated"),
    (errors.GeometryError("other"), "refused", "other_grid"),
    (errors.ImageError("too large", reason="out_of_memory"), "failed", "out_of_memory"),
    (errors.ImageError("no rights", reason="unreadable"), "failed", "unreadable"),
    (errors.ModelError("two channels"), "refused", "model_refuses"),
    (errors.UsageError("no such"), "refused", "model_refuses"),
    (errors.ManifestError("no label"), "refused", "invalid_input"),
    (errors.PackageError("cut"), "failed", "damaged_package"),
    (errors.WeightsError("cut"), "failed", "damaged_package"),
    (errors.ServiceError("silent"), "failed", "service"),
    (errors.RefusedRequestError("404"), "failed", "service_refuses"),
    (errors.AccessDeniedError("401"), "failed", "access_denied"),
    (OSError(errno.ENOSPC, "No space left on device"), "failed", "disk_full"),
    (PermissionError(errno.EACCES, "Permission denied", NAME), "failed", "system"),
    (MemoryError(), "failed", "out_of_memory"),
    (RuntimeError("DefaultCPUAllocator: can't allocate memory"), "failed", "out_of_memory"),
    (KeyError(NAME), "failed", "unexpected"),
]


@pytest.mark.parametrize(("error", "status", "code"), ENDS, ids=lambda value: str(value)[:24])
def test_one_error_has_one_status_and_code_in_every_command(
    error: Exception, status: str, code: str
) -> None:
    why = classify(error)
    assert (why.status, why.code) == (status, code)
    assert why.message
    assert why.reason == f"{code}: {why.message}"
    outcome = bad_outcome(Path(NAME), error)
    assert outcome.status == status
    assert str(outcome.reason).startswith(f"{code}: ")
    result = failure_result("key", error, [Path(NAME)])
    assert (result.reason, result.refused) == (code, status == "refused")
    assert status in get_args(Status)


def test_every_error_of_the_library_has_a_rule() -> None:
    known = {type(error) for error, _, _ in ENDS}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    leaves = [kind for kind in kinds if issubclass(kind, errors.SegmedError)]
    for kind in leaves:
        if not issubclass(kind, errors.ImageError):
            assert classify(kind("text")).code != "unexpected"
    assert len(known) > 10


@pytest.mark.parametrize(
    "error",
    [KeyError(NAME), ValueError(f"no {NAME}"), FileNotFoundError(errno.ENOENT, "No such", NAME)],
)
def test_text_that_may_name_a_patient_is_shown_to_its_user_and_in_no_archive(
    error: Exception,
) -> None:
    assert NAME in classify(error).message
    assert NAME not in classify(error, shows_text=False).message
    assert NAME not in failure_result("key", error, []).message


def test_an_unexpected_error_names_the_line_that_raised_it() -> None:
    with pytest.raises(ZeroDivisionError) as caught:
        _broken()
    message = classify(caught.value, shows_text=False).message
    assert message.startswith("ZeroDivisionError at test_outcomes:")


def _broken() -> float:
    return 1 / 0


def test_a_message_is_one_line() -> None:
    assert classify(ValueError("two\nlines\x1b[31m  and more")).message.count("\n") == 0
