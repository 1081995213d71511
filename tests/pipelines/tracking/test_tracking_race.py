"""Several trainings that log the same data set to one tracking file at once all succeed."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput
from mlflow.exceptions import MlflowException

from pipelines.tracking.delivery import RACE_TRIES, repeated_after_race


def test_data_set_of_six_runs_is_logged_by_all_of_them(tmp_path: Path) -> None:
    client = MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    experiment = client.create_experiment("set", artifact_location=str(tmp_path / "artifacts"))
    runs = [client.create_run(experiment).info.run_id for _ in range(6)]
    start, failures = threading.Barrier(6), []

    def log(run_id: str) -> None:
        start.wait()
        for number in range(8):
            dataset = Dataset(name=f"d{number}", digest="1", source_type="local", source="{}")
            inputs = [DatasetInput(dataset, [])]
            try:
                repeated_after_race(
                    lambda inputs=inputs: client.log_inputs(run_id, datasets=inputs)
                )
            except MlflowException as error:
                failures.append(str(error)[:200])

    threads = [threading.Thread(target=log, args=(run_id,)) for run_id in runs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    for run_id in runs:
        assert len(client.get_run(run_id).inputs.dataset_inputs) == 8


@pytest.mark.parametrize(
    "text",
    [
        "(sqlite3.IntegrityError) UNIQUE constraint failed: datasets.name",
        'duplicate key value violates unique constraint "dataset_pk"',
    ],
)
def test_race_is_repeated_and_ends(text: str) -> None:
    calls: list[int] = []

    def lose(times: int) -> str:
        calls.append(1)
        if len(calls) <= times:
            raise MlflowException(text)
        return "done"

    assert repeated_after_race(lambda: lose(2)) == "done"
    calls.clear()
    with pytest.raises(MlflowException):
        repeated_after_race(lambda: lose(99))
    assert len(calls) == RACE_TRIES


def test_other_failures_are_raised_at_once() -> None:
    calls: list[int] = []

    def refuse() -> None:
        calls.append(1)
        raise MlflowException("no such run")

    with pytest.raises(MlflowException, match="no such run"):
        repeated_after_race(refuse)
    assert calls == [1]
