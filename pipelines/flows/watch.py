"""Segment studies as they arrive, until the run is cancelled."""

from __future__ import annotations

import logging
from contextlib import ExitStack
from functools import partial

from prefect import flow

from pipelines.flows.gpu_slot import held_devices
from pipelines.logs import log_outcome
from pipelines.runs.page import name_of_run
from pipelines.runs.watching import WatchJob, open_watch

progress = logging.getLogger("segmed.progress")


@flow(name="watch", flow_run_name=name_of_run)
def watch(job: WatchJob) -> None:
    """Watch an address; each study is segmented once for each content.

    The place of a GPU is taken while there is work, so that other runs have it in between.

    Args:
        job: Address, models, rules and output folder.
    """
    if progress.level == logging.NOTSET:  # a deployment is started by Prefect, not by our runner
        progress.setLevel(logging.INFO)
    place = partial(held_devices, job.devices or ("auto",))
    with ExitStack() as stack:
        found, where = stack.enter_context(open_watch(job, place=place))
        progress.info("watching: %s", where)
        for route, outcome in found.outcomes():
            log_outcome(outcome)
            if outcome.fresh:
                ending = outcome.reason or str(outcome.times)
                progress.info("%s: study %s: %s, %s", route, outcome.study, outcome.status, ending)
