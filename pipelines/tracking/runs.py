"""MLflow runs: the only place that logs.

```
with comparison("hippocampus", manifest, plan, folder=out) as parent:
    with parent.child("unet", fold=0) as run:
        for result in fit(...):
            run.epoch(result)
        run.scores(table, step=101)
        run.artifact(out / "curves.png", "plots")
```
A parent run for a comparison, a child for each model and fold. Values go to a local outbox first
and from there to the server, one request an epoch, while training goes on.
"""

from __future__ import annotations

import functools
import logging
import math
import os
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import segmed
from pipelines.tracking.address import tracking_uri, without_password
from pipelines.tracking.delivery import (
    RunDelivery,
    connect,
    experiment_id,
    translated,
)
from pipelines.tracking.held_out import held_out_scores, metric_values
from pipelines.tracking.outbox import Flusher, Outbox
from pipelines.tracking.pyfunc_form import MODEL_FOLDER, package_hash, save_pyfunc
from pipelines.tracking.tags import HASH_TAG
from segmed.errors import ServiceError
from segmed.manifest import Manifest, data_hash
from segmed.metrics import summarise
from segmed.plan import Plan, plan_hash, to_yaml
from segmed.report import curves_png

if TYPE_CHECKING:
    import pandas as pd

    from segmed.training import EpochResult

logger = logging.getLogger(__name__)

OUTBOX_FOLDER = "mlflow-outbox"
"""Folder of the outboxes inside the working folder."""

WAIT_SECONDS = 60.0
"""How long the end of a run waits for a server that went away.

`SEGMED_TRACKING_WAIT_S` in the environment changes it.
"""

DIGEST_LENGTH = 32
"""MLflow keeps at most 36 characters of a data set's digest."""

MAX_PARAM_LENGTH = 5000
"""Characters of a parameter's value that are logged."""


@dataclass(frozen=True)
class _Place:
    """Tracking address, experiment and parent run of one comparison."""

    uri: str
    experiment: str
    outbox_folder: Path
    wait_s: float


class RunLog:
    """One run of MLflow, written to without waiting for it.

    Attributes:
        key: Names the run's outbox; also a tag of the run.
    """

    def __init__(
        self,
        place: _Place,
        name: str,
        tags: Mapping[str, str],
        *,
        parent: str | None = None,
    ) -> None:
        client = connect_quietly(place.uri)
        self._place = place
        self._outbox = Outbox.create(place.outbox_folder)
        self._hold = self._outbox.claim()
        self._delivery = RunDelivery(client, place.uri, self._outbox)
        self.key = self._outbox.key
        nested = {"mlflow.parentRunId": parent} if parent else {}
        self._append("run", name=name, tags={**tags, **nested})
        self._flusher = Flusher(self._outbox, self._delivery)
        self._flusher.notify()

    def run_id(self, *, wait_s: float = WAIT_SECONDS) -> str:
        """The id that MLflow gave the run.

        Raises:
            ServiceError: The server has not made it within `wait_s`.
        """
        deadline = time.monotonic() + wait_s
        while self._delivery.run_id is None:
            if self._flusher.failure is not None:
                raise self._flusher.failure
            if time.monotonic() > deadline:
                raise ServiceError(
                    f"MLflow at {without_password(self._place.uri)} did not take the run within "
                    f"{wait_s:.0f} s; its values are kept, deliver them by `segmed model sync`"
                )
            time.sleep(0.01)
        return self._delivery.run_id

    def metrics(self, values: Mapping[str, float], *, step: int = 0) -> None:
        """Log values at one step; infinite and undefined ones are left out."""
        finite = {name: float(value) for name, value in values.items() if math.isfinite(value)}
        if finite:
            self._append("metrics", values=finite, step=step)

    def epoch(self, result: EpochResult) -> None:
        """Log one epoch: losses, Dice of each label, learning rate, time by phase and memory."""
        dice = {f"val/dice/{label}": value for label, value in result.val_dice.items()}
        losses = {"train/loss": result.train_loss, "val/loss": result.val_loss}
        rest = {"train/learning_rate": result.learning_rate, "train/seconds": result.seconds}
        times = {f"time/{phase}_s": seconds for phase, seconds in result.phases_s.items()}
        memory = {"train/peak_memory_mb": result.peak_memory_mb}
        known = {**losses, **dice, **rest, **times, **memory}
        self.metrics(
            {name: value for name, value in known.items() if value is not None}, step=result.epoch
        )

    def scores(self, table: pd.DataFrame, *, step: int) -> None:
        """Log the scores of the finished model on held-out cases, on the images' own grids.

        Their means continue the curves of the epochs (`val/dice/anterior`, `val/hd95_mm/anterior`)
        as the last point; all statistics are the artifact `scores/summary.csv`.

        Args:
            table: One row a case and structure; no case is named in what is logged.
            step: Step of the values, one behind the last epoch.
        """
        self.metrics(dict(metric_values(held_out_scores(table))), step=step)
        path = self._outbox.files / "scores" / "summary.csv"
        path.parent.mkdir(parents=True, exist_ok=True)
        summarise(table).to_csv(path, index=False, float_format="%.6g")
        self._append("artifact", file="scores/summary.csv", folder="scores")

    def note(self, markdown: str) -> None:
        """Set the description of the run, which MLflow's page of it shows."""
        self.tags({"mlflow.note.content": markdown[:MAX_PARAM_LENGTH]})

    def params(self, values: Mapping[str, Any]) -> None:
        """Log parameters."""
        texts = {name: str(value)[:MAX_PARAM_LENGTH] for name, value in values.items()}
        self._append("params", values=texts)

    def tags(self, values: Mapping[str, str]) -> None:
        """Set tags."""
        self._append("tags", values=dict(values))

    def artifact(self, path: Path, folder: str = "") -> None:
        """Log a file or the content of a folder under `folder` of the run's artifacts."""
        self._append("artifact", file=self._outbox.keep(path), folder=folder)

    def text(self, content: str, name: str) -> None:
        """Log a text file."""
        path = self._outbox.files / "texts" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")
        self._append("artifact", file=f"texts/{name}", folder="")

    def curves(self, history: Sequence[Mapping[str, Any]], title: str) -> None:
        """Log a plot of losses and Dice over the epochs as `plots/curves.png`."""
        self.picture(curves_png({title: history}), "curves.png")

    def picture(self, png: bytes, name: str) -> None:
        """Log a PNG under `plots/`."""
        path = self._outbox.files / "plots" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png)
        self._append("artifact", file=f"plots/{name}", folder="plots")

    def package(self, folder: Path) -> None:
        """Log a model package, once, in the form that MLflow serves (`model/`).

        The tag with its hash lets a registration find the run and use the package there.
        """
        save_pyfunc(folder, self._outbox.files / MODEL_FOLDER)
        self._append("artifact", file=MODEL_FOLDER, folder=MODEL_FOLDER)
        self.tags({HASH_TAG: package_hash(folder)})

    def dataset(self, manifest: Manifest, digest: str, cases: int, *, context: str) -> None:
        """Log cases of a data set as an input: name, digest, count; never paths or case ids."""
        self._append(
            "dataset",
            name=manifest.name,
            digest=digest[:DIGEST_LENGTH],
            source=f'{{"manifest": "{digest}"}}',
            profile=f'{{"cases": {cases}}}',
            context=context,
        )

    def close(self, status: str = "FINISHED") -> bool:
        """End the run.

        Returns:
            Whether the server took everything; if not, the outbox stays for `segmed model sync`.
        """
        self._append("end", status=status)
        delivered = self._flusher.close(wait_s=self._place.wait_s)
        if self._hold is not None:
            self._hold.close()
        if delivered:
            self._outbox.discard()
        else:
            logger.warning(
                "MLflow at %s took not everything; deliver the rest by `segmed model sync`",
                without_password(self._place.uri),
            )
        return delivered

    def _append(self, kind: str, **content: Any) -> None:
        now = time.time_ns() // 1_000_000
        record = {"kind": kind, "time": now, "experiment": self._place.experiment, **content}
        self._outbox.append(record)
        if kind != "run":
            self._flusher.notify()


class ParentLog(RunLog):
    """The run of a comparison."""

    def __init__(self, place: _Place, name: str, tags: Mapping[str, str]) -> None:
        self._shared_tags = dict(tags)
        super().__init__(place, name, {**tags, "segmed.role": "comparison"})

    @contextmanager
    def child(
        self, architecture: str, fold: int, *, params: Mapping[str, Any] | None = None
    ) -> Iterator[RunLog]:
        """The run of one model and fold, ended with the block: finished, failed or killed."""
        tags = {**self._shared_tags, "architecture": architecture, "fold": str(fold)}
        run = RunLog(
            self._place,
            f"{architecture}/fold{fold}",
            {**tags, "segmed.role": "training"},
            parent=self.run_id(),
        )
        run.params({"architecture": architecture, "fold": fold, **(params or {})})
        with _ended(run):
            yield run


@contextmanager
def _ended(run: RunLog) -> Iterator[None]:
    status = "FAILED"
    try:
        yield
        status = "FINISHED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        run.close(status)


@contextmanager
def comparison(
    name: str,
    manifest: Manifest,
    plan: Plan,
    *,
    folder: Path = Path(),
    uri: str | None = None,
) -> Iterator[ParentLog]:
    """A parent run in the experiment of the manifest's name.

    Args:
        name: Name of the run.
        manifest: Its name names the experiment; its content is logged as a digest only.
        plan: Logged as `plan.yaml`, its hash as a tag.
        folder: Working folder, with the embedded database and the outbox.
        uri: Where to; `MLFLOW_TRACKING_URI` or the embedded database by default.

    Yields:
        The parent; `.child(...)` gives the runs below it.

    Raises:
        ServiceError: The server does not answer at the start.
    """
    uri = uri or tracking_uri(folder)
    client = connect_quietly(uri)
    experiment = experiment_id(client, uri, manifest.name, folder)
    wait_s = float(os.environ.get("SEGMED_TRACKING_WAIT_S", WAIT_SECONDS))
    place = _Place(uri, experiment, folder / OUTBOX_FOLDER, wait_s)
    digest = data_hash(manifest, [*manifest.training, *manifest.test])
    tags = {"data_hash": digest, "plan_hash": plan_hash(plan), **version_tags()}
    run = ParentLog(place, name, tags)
    with _ended(run):
        run.dataset(manifest, digest, len(manifest.training) + len(manifest.test), context="all")
        run.text(to_yaml(plan), "plan.yaml")
        yield run


@contextmanager
def single_run(
    experiment: str, name: str, tags: Mapping[str, str], *, folder: Path = Path()
) -> Iterator[RunLog]:
    """A run without a parent, such as that of one archive run.

    Raises:
        ServiceError: The server does not answer at the start.
    """
    uri = tracking_uri(folder)
    number = experiment_id(connect_quietly(uri), uri, experiment, folder)
    wait_s = float(os.environ.get("SEGMED_TRACKING_WAIT_S", WAIT_SECONDS))
    place = _Place(uri, number, folder / OUTBOX_FOLDER, wait_s)
    run = RunLog(place, name, {**tags, **version_tags()})
    with _ended(run):
        yield run


def open_registration_run(client: Any, uri: str, name: str, folder: Path) -> str:
    """A finished run with a package which no run of this server has trained."""
    experiment = experiment_id(client, uri, name, folder)
    tags = {"segmed.role": "registration", **version_tags()}
    run = translated(
        uri, lambda: client.create_run(experiment, tags=tags, run_name=f"{name}/registration")
    )
    translated(uri, lambda: client.set_terminated(run.info.run_id))
    return str(run.info.run_id)


def connect_quietly(uri: str) -> Any:
    """A client, without MLflow's notices of a new database and of each attempt to connect."""
    for name in ("mlflow.store.db.utils", "mlflow.pyfunc", "alembic"):
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.getLogger("urllib3.connectionpool").setLevel(logging.ERROR)  # retries are our affair
    return connect(uri)


@functools.cache
def version_tags() -> dict[str, str]:
    """Version of segmed, and the git commit where it runs from a checkout."""
    tags = {
        "segmed.version": segmed.__version__,
        "mlflow.source.name": f"segmed {segmed.__version__}",
        "mlflow.source.type": "LOCAL",
    }
    here = Path(segmed.__file__).resolve().parent.parent
    if (here / ".git").exists():
        try:
            done = subprocess.run(
                ["git", "-C", str(here), "rev-parse", "HEAD"],  # noqa: S607 - git from PATH
                capture_output=True,
                text=True,
                check=True,
                timeout=5,
                encoding="utf-8",
            )
        except (OSError, subprocess.SubprocessError):
            return tags
        tags["commit"] = tags["mlflow.source.git.commit"] = done.stdout.strip()
    return tags
