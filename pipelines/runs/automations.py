"""Automations of the Prefect server: detect dead runs, continue them, notify people.

- **No heartbeat**: a run whose process and worker both died would stay Running for ever and keep
  its place. Runs send a heartbeat every `HEARTBEAT_S`; one that is silent for `SILENCE_S` is marked
  as crashed.
- **Never began**: a run that was handed out and did not begin within `BEGIN_S` likewise.
- **Continue**: a scheduled run that crashed is run again at once; ledger and checkpoints make it go
  on where it stopped. One that crashes again waits for its next schedule, so nothing loops.
- **Tell** (with notices): a run of ours is late, or crashed.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

from prefect.automations import Automation
from prefect.client.schemas.objects import StateType
from prefect.events import EventTrigger
from prefect.events.actions import ChangeFlowRunState, RunDeployment, SendNotification
from prefect.events.schemas.automations import Posture

from pipelines.runs.notices import block_of

TAG = "segmed"
"""Tag of our deployments, and so of their runs."""

HEARTBEAT_S = 30
HEARTBEAT_VARIABLE = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
SILENCE_S = 90
BEGIN_S = 600

ENDED = frozenset(
    f"prefect.flow-run.{state}" for state in ("Completed", "Failed", "Cancelled", "Crashed")
)
Labels = dict[str, str | list[str]]
"""Labels of a resource that an event is about, or related to."""

OURS: Labels = {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"}
SCHEDULED: Labels = {
    "prefect.resource.id": "prefect.tag.auto-scheduled",
    "prefect.resource.role": "tag",
}
EVERY_RUN: Labels = {"prefect.resource.id": "prefect.flow-run.*"}


def automations(notify: Sequence[str] = ()) -> list[Automation]:
    """All of them; those that notify need blocks which the server itself can use."""
    silent = EventTrigger(
        match=EVERY_RUN,
        for_each={"prefect.resource.id"},
        after={"prefect.flow-run.heartbeat"},
        expect={"prefect.flow-run.heartbeat", *ENDED},
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=SILENCE_S),
    )
    unborn = EventTrigger(
        match=EVERY_RUN,
        match_related=OURS,
        for_each={"prefect.resource.id"},
        after={"prefect.flow-run.Pending"},
        expect={
            "prefect.flow-run.Running",
            "prefect.flow-run.Scheduled",
            "prefect.flow-run.AwaitingConcurrencySlot",
            *ENDED,
        },
        posture=Posture.Proactive,
        threshold=1,
        within=timedelta(seconds=BEGIN_S),
    )
    found = [
        Automation(
            name="crashed-without-heartbeat",  # as docker/heartbeat.yaml calls it
            description=f"Marks a run as crashed that is silent for {SILENCE_S} seconds.",
            trigger=silent,
            actions=[_crashed(f"No heartbeat for {SILENCE_S} seconds.")],
        ),
        Automation(
            name="segmed: never began",
            description=f"Marks a run as crashed that did not begin within {BEGIN_S} seconds.",
            trigger=unborn,
            actions=[_crashed(f"Handed out {BEGIN_S} seconds ago, and never began.")],
        ),
        Automation(
            name="segmed: continue a crashed run",
            description="Runs the deployment of a scheduled run that crashed once more.",
            trigger=_when("Crashed", [OURS, SCHEDULED]),
            actions=[RunDeployment(source="inferred")],
        ),
    ]
    notifications = [action for name in notify if (action := _notification(name)) is not None]
    if notifications:
        for state in ("Late", "Crashed"):
            found.append(
                Automation(
                    name=f"segmed: tell of a {state.lower()} run",
                    description="Sends a notice.",
                    trigger=_when(state, [OURS]),
                    actions=notifications,
                )
            )
    return found


def install(notify: Sequence[str] = ()) -> list[str]:
    """Make or renew them on the Prefect server; returns their names."""
    names = []
    for automation in automations(notify):
        try:
            found: Any = Automation.read(name=automation.name)
        except ValueError:
            automation.create()
        else:
            automation.id = found.id
            automation.update()
        names.append(automation.name)
    return names


def _crashed(message: str) -> ChangeFlowRunState:
    return ChangeFlowRunState(state=StateType.CRASHED, message=message)


def _when(state: str, related: list[Labels]) -> EventTrigger:
    return EventTrigger(
        match=EVERY_RUN,
        match_related=related,
        expect={f"prefect.flow-run.{state}"},
        posture=Posture.Reactive,
        threshold=1,
        within=timedelta(0),
    )


def _notification(name: str) -> SendNotification | None:
    """The server's own notice; None for what only a run can send: an address, or our mail block."""
    if "://" in name or name.startswith("segmed-mail/"):
        return None
    return SendNotification(
        block_document_id=block_of(name)._block_document_id,
        subject="segmed: {{ flow_run.name }} is {{ flow_run.state.name }}",
        body="Run {{ flow_run.name }} of {{ deployment.name }}: {{ flow_run.state.message }}",
    )
