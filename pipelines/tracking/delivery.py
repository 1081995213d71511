"""Connection to MLflow: address, availability, and sending of one outbox record."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    Experiment,
    InputTag,
    Metric,
    Param,
    RunTag,
)
from mlflow.exceptions import MlflowException
from requests.exceptions import HTTPError, RequestException
from sqlalchemy.exc import SQLAlchemyError

from pipelines.tracking.address import without_password
from pipelines.tracking.database import (
    OTHER_SCHEMA,
    alone,
    damaged,
    other_schema,
    require_usable,
    sqlite_path,
)
from pipelines.tracking.outbox import Outbox
from segmed.errors import ServiceError, UsageError

KEY_TAG = "segmed.key"
"""Tag that names a run's outbox; a run is created once for each key."""

EXPERIMENT_TAGS = {"mlflow.experimentKind": "custom_model_development"}
"""MLflow's pages open an experiment of this kind with its runs and charts, not with chat traces."""

BATCH_METRICS = 1000
"""MLflow takes at most this many metrics a request."""

T = TypeVar("T")

RACE_TRIES = 5
"""Calls in all, where another process writes the same row at the same moment."""

RACES = ("UNIQUE constraint failed", "duplicate key value")
"""Words of SQLite and PostgreSQL for that; the row exists once the call is repeated."""


def repeated_after_race(call: Callable[[], T]) -> T:
    """The result of a call that looks for a row, and makes it where it is missing.

    Two trainings that log the same data set at once both find none, and one of them fails.

    Raises:
        MlflowException: Any other failure, or the race was lost every time.
    """
    for _ in range(RACE_TRIES - 1):
        try:
            return call()
        except MlflowException as error:
            if not any(text in str(error.message) for text in RACES):
                raise
    return call()


def translated(uri: str, call: Callable[[], T]) -> T:
    """The result of an MLflow call, with its failures classified.

    Raises:
        ServiceError: The server does not answer, or is in trouble; waiting may help.
        UsageError: It answers, and refuses; waiting does not help.
    """
    shown = without_password(uri)
    try:
        return call()
    except MlflowException as error:
        status = int(error.get_http_status_code())
        text = " ".join(str(error.message).split())[:300]
        if OTHER_SCHEMA in text:
            raise other_schema(shown, text) from error
        if status in {401, 403}:
            raise UsageError(
                f"MLflow at {shown} refuses access ({status}): set MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD in the environment"
            ) from error
        if status >= 500:
            raise ServiceError(f"MLflow at {shown} does not answer: {text}") from error
        raise UsageError(f"MLflow at {shown} refuses: {text}") from error
    except HTTPError as error:
        code = error.response.status_code if error.response is not None else 500
        if code >= 500:
            raise ServiceError(f"MLflow at {shown} is in trouble: status {code}") from error
        raise UsageError(f"MLflow at {shown} refuses: status {code}") from error
    except SQLAlchemyError as error:
        text = " ".join(str(getattr(error, "orig", None) or error).split())[:200]
        path = sqlite_path(uri)
        if path is not None and any(word in text for word in ("not a database", "malformed")):
            raise damaged(path, text) from error
        raise ServiceError(f"the tracking database {shown} does not answer: {text}") from error
    except (RequestException, ConnectionError) as error:
        raise ServiceError(f"MLflow at {shown} does not answer: {type(error).__name__}") from error


def connect(uri: str) -> MlflowClient:
    """A client of a server that answers.

    Raises:
        ServiceError: It does not answer within seconds.
        UsageError: It refuses.
    """
    path = sqlite_path(uri)

    def first() -> MlflowClient:
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
        return client

    if path is not None:
        require_usable(path)
        with alone(path):
            return translated(uri, first)
    try:
        return translated(uri, first)
    except ServiceError as error:
        raise ServiceError(
            f"the MLflow server {without_password(uri)} does not answer: start it, or unset "
            "MLFLOW_TRACKING_URI to track in a local file"
        ) from error


def experiment_id(client: MlflowClient, uri: str, name: str, folder: Path) -> str:
    """The experiment of a data set, made where it is missing.

    With an embedded SQLite file, artifacts are beside it in `mlartifacts`.

    Raises:
        UsageError: The experiment was deleted in MLflow.
    """
    path = sqlite_path(uri)

    def find() -> str:
        found: Experiment | None = client.get_experiment_by_name(name)
        if found is not None:
            return _require_active(found, uri)
        place = None
        if path is not None:
            # Quoted: a name may contain `/` or `..`, which must not leave the folder.
            inner = quote(name, safe=" ").replace("..", "%2E%2E")
            place = (path.parent.resolve() / "mlartifacts" / inner).as_uri()
        try:
            made = client.create_experiment(name, artifact_location=place, tags=EXPERIMENT_TAGS)
            return str(made)
        except MlflowException:
            other: Experiment | None = client.get_experiment_by_name(name)
            if other is None:
                raise
            return _require_active(other, uri)

    if path is None:
        return translated(uri, find)
    with alone(path):
        return translated(uri, find)


def _require_active(experiment: Experiment, uri: str) -> str:
    """The id of an experiment that takes runs.

    Raises:
        UsageError: It was deleted.
    """
    number = str(experiment.experiment_id)
    if experiment.lifecycle_stage != "active":
        raise UsageError(
            f"the experiment {experiment.name!r} was deleted in MLflow: restore it by `mlflow "
            f"experiments restore --experiment-id {number}` (MLFLOW_TRACKING_URI="
            f"'{without_password(uri)}'), or give the set another --name in `segmed manifest build`"
        )
    return number


class RunDelivery:
    """Sends the records of one outbox; has the run once the server has created it."""

    def __init__(self, client: MlflowClient, uri: str, outbox: Outbox) -> None:
        self.run_id: str | None = None
        self._client = client
        self._uri = uri
        self._outbox = outbox

    def __call__(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Send records of one kind; only metrics may be several.

        Raises:
            ServiceError: The server does not answer.
            UsageError: It refuses them.
        """
        kind = records[0]["kind"]
        if kind == "metrics":
            translated(self._uri, lambda: self._send_metrics(records))
            return
        (record,) = records
        send = getattr(self, f"_send_{kind}")
        translated(self._uri, lambda: repeated_after_race(lambda: send(record)))

    def find_run(self, experiment: str) -> str | None:
        """The run of this outbox, if the server has it."""
        found = self._client.search_runs(
            [experiment], filter_string=f"tags.`{KEY_TAG}` = '{self._outbox.key}'", max_results=1
        )
        return str(found[0].info.run_id) if found else None

    def _run(self, record: Mapping[str, Any]) -> str:
        if self.run_id is None:
            self.run_id = self.find_run(record["experiment"])
        if self.run_id is None:
            raise UsageError(f"MLflow has no run for outbox {self._outbox.key}; was it deleted?")
        return self.run_id

    def _send_run(self, record: Mapping[str, Any]) -> None:
        self.run_id = self.find_run(record["experiment"])
        if self.run_id is not None:
            self._client.update_run(self.run_id, status="RUNNING")
            return
        tags = {**record["tags"], KEY_TAG: self._outbox.key}
        run = self._client.create_run(
            record["experiment"], start_time=record["time"], tags=tags, run_name=record["name"]
        )
        self.run_id = run.info.run_id

    def _send_metrics(self, records: Sequence[Mapping[str, Any]]) -> None:
        run_id = self._run(records[0])
        metrics = [
            Metric(name, value, record["time"], record["step"])
            for record in records
            for name, value in record["values"].items()
        ]
        for start in range(0, len(metrics), BATCH_METRICS):
            self._client.log_batch(run_id, metrics=metrics[start : start + BATCH_METRICS])

    def _send_params(self, record: Mapping[str, Any]) -> None:
        params = [Param(name, value) for name, value in record["values"].items()]
        self._client.log_batch(self._run(record), params=params)

    def _send_tags(self, record: Mapping[str, Any]) -> None:
        tags = [RunTag(name, value) for name, value in record["values"].items()]
        self._client.log_batch(self._run(record), tags=tags)

    def _send_dataset(self, record: Mapping[str, Any]) -> None:
        dataset = Dataset(
            name=record["name"],
            digest=record["digest"],
            source_type="local",
            source=record["source"],
            profile=record["profile"],
        )
        inputs = [DatasetInput(dataset, [InputTag("mlflow.data.context", record["context"])])]
        self._client.log_inputs(self._run(record), datasets=inputs)

    def _send_artifact(self, record: Mapping[str, Any]) -> None:
        source = self._outbox.files / record["file"]
        send = self._client.log_artifacts if source.is_dir() else self._client.log_artifact
        send(self._run(record), str(source), record["folder"] or None)

    def _send_end(self, record: Mapping[str, Any]) -> None:
        with suppress(FileNotFoundError):
            self._client.set_terminated(
                self._run(record), status=record["status"], end_time=record["time"]
            )
