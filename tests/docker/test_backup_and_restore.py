"""The documented backup of the embedded form, run as it is written, and restored."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from segmed.archive import Ledger, Study

pytestmark = pytest.mark.integration

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"


def documented_commands() -> str:
    """The shell block of the page that backs up the embedded form."""
    blocks = re.findall(
        r"^```sh\n(.*?)^```", OPERATIONS.read_text("utf-8"), re.DOTALL | re.MULTILINE
    )
    (block,) = [body for body in blocks if "/backup/today" in body]
    return str(block)


def back_up(folder: Path, target: Path) -> None:
    """Runs the documented commands with this Python and another target folder."""
    script = documented_commands().replace("/backup/today", str(target))
    environment = os.environ | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    subprocess.run(["sh", "-e", "-c", script], cwd=folder, env=environment, check=True)


def register(folder: Path) -> None:
    """A registered model with a champion, its artifact beside it."""
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    artifact = folder / "mlartifacts" / "model"
    artifact.mkdir(parents=True)
    (artifact / "weights").write_bytes(b"weights")
    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    client.create_registered_model("hippocampus")
    client.create_model_version("hippocampus", source=artifact.as_uri())
    client.set_registered_model_alias("hippocampus", "champion", "1")


@pytest.mark.filterwarnings("ignore")  # MLflow's own, from its imports and its database
def test_registry_and_ledger_come_back_from_a_copy_made_while_they_are_in_use(
    tmp_path: Path,
) -> None:
    from mlflow import MlflowClient  # noqa: PLC0415 - takes seconds

    work, backup = tmp_path / "work", tmp_path / "backup"
    work.mkdir()
    register(work)
    study = Study(content="a" * 64, form="nifti", place="p/scan.nii.gz", channels=((Path("x"),),))
    with Ledger(work / "segmentations" / "ledger.sqlite") as ledger:
        run = ledger.begin_run("package")
        ledger.enter(study, "k" * 64, "package", settings="s", run=run)
        ledger.record_failure("k" * 64, "truncated", "it ends early", refused=True)
        back_up(work, backup)  # the ledger is open, its last rows in the write-ahead log

    shutil.rmtree(work)
    (work / "segmentations").mkdir(parents=True)
    shutil.copy(backup / "mlflow.db", work)
    shutil.copy(backup / "ledger.sqlite", work / "segmentations")
    shutil.unpack_archive(backup / "mlartifacts.tar", work)

    version = MlflowClient(
        tracking_uri=f"sqlite:///{work / 'mlflow.db'}"
    ).get_model_version_by_alias("hippocampus", "champion")
    assert version.version in ("1", 1)
    assert (work / "mlartifacts" / "model" / "weights").read_bytes() == b"weights"
    with Ledger(work / "segmentations" / "ledger.sqlite") as ledger:
        (entry,) = ledger.entries()
        assert entry.content == study.content
        assert entry.state == "refused"
