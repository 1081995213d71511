"""Register the winner of a comparison, with the evidence for it on Prefect's page."""

from __future__ import annotations

from typing import Any

from prefect import flow
from prefect.artifacts import create_markdown_artifact

from pipelines.comparing.best_package import package_of_winner
from pipelines.comparing.jobs import Request
from pipelines.comparing.steps import note_of
from pipelines.flows.passing import Passed
from pipelines.registry.registration import register_winner
from pipelines.runs.page import shown_parameter
from pipelines.tracking.runs import ParentLog
from segmed.report.model_comparison import ModelComparison

EVIDENCE_KEY = "evidence-of-registration"


def name_of_registration() -> str:
    """Name of a flow run, such as `register hippocampus`."""
    return f"register {shown_parameter('request', 'register')}"


@flow(name="register", flow_run_name=name_of_registration, validate_parameters=False)
def register(
    request: Request,
    record: Passed[dict[str, Any]],
    compared: Passed[ModelComparison],
    parent: Passed[ParentLog],
) -> str:
    """The winner as a version; champion if there is none yet, else challenger.

    One that has learned nothing is a version without an alias.
    """
    assert request.register is not None
    package = package_of_winner(compared.value, request.out_dir)
    version = register_winner(
        compared.value, package, request.register, parent.value, folder=request.folder
    )
    found = record.value | {"registered": version.reference, "refused": compared.value.doubt}
    create_markdown_artifact(note_of(found), key=EVIDENCE_KEY, description=version.reference)
    return version.reference
