"""How each command of the documentation is run by a test: what is changed, left out, assumed.

Every entry says why, and must fit a command that is shown: else the test fails. A word in braces
stands for a value of the running test, such as `{prefect}` for a port.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import docs_site as site
from documentation import Shown


@dataclass(frozen=True)
class Entry:
    """Which commands are meant, and why they are treated so.

    Attributes:
        pattern: Regular expression that is found in the command.
        why: The reason, in a sentence.
        page: Regular expression that is found in the page's path.
    """

    pattern: str
    why: str
    page: str = ""

    def fits(self, shown: Shown) -> bool:
        """Whether it is about this command."""
        return bool(re.search(self.page, shown.page) and re.search(self.pattern, shown.text))


@dataclass(frozen=True)
class Excuse(Entry):
    """A command that no machine for tests can run, or that another test runs."""


@dataclass(frozen=True)
class Change(Entry):
    """What is put in the place of a part of a command.

    Attributes:
        by: The replacement of `re.sub`.
    """

    by: str = ""


@dataclass(frozen=True)
class Ending(Entry):
    """A command that may rightly end with another status than 0.

    Attributes:
        statuses: Those that are right.
    """

    statuses: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class Service(Entry):
    """A command that runs until it is stopped.

    Attributes:
        alive: What it prints once it works, as a regular expression; or an address that answers.
        stays: Whether the commands after it need it.
    """

    alive: str = ""
    stays: bool = False


@dataclass(frozen=True)
class Assumed(Entry):
    """What a page takes for granted before a command, done by another command.

    Attributes:
        command: The command.
    """

    command: str = ""


@dataclass(frozen=True)
class Left(Entry):
    """What must be there after a command.

    Attributes:
        place: A file or folder, with groups of the pattern.
        holds: What the file must hold.
    """

    place: str = ""
    holds: str = ""


EXCUSES = (
    Excuse(r"^make test", "these very tests"),
    Excuse(r"^make demo", "installs and trains: tests/integration/test_wheel.py does both"),
    Excuse(
        r"^segmed demo( -o demo)?$",
        "trains ten minutes; `--quick` is run here, the rest by tests/pipelines/demo/test_demo.py",
    ),
    Excuse(
        r"^(docker |sh docker/)",
        "needs a container engine: the files and scripts are tested in tests/docker",
    ),
    Excuse(
        r"/backup/site|^(createdb|pg_restore|psql) ",
        "needs PostgreSQL: run as shown by tests/integration/test_operators_chain.py",
    ),
    Excuse(
        r"/backup/today", "run as shown, and restored, by tests/docker/test_backup_and_restore.py"
    ),
)

SHORT = "sed -i 's/iterations_per_epoch:.*/iterations_per_epoch: 2/'"

CHANGES = (
    Change(
        r"segmed (train|compare) (\S+)(?!.*--plan)(?!.*--size)(.*?) --(?:budget|epochs) \S+",
        "one epoch of two steps instead of hours",
        by=r"segmed \1 \2\3 --epochs 1 --plan quick.yaml",
    ),
    Change(
        r"^segmed plan (.*-o plan.yaml.*)",
        "the plan is edited by hand, as the pages allow: epochs of two steps",
        by=rf"segmed plan \1 && {SHORT} plan.yaml",
    ),
    Change(r"--epochs 200", "one epoch instead of 200", by="--epochs 1"),
    Change(
        r"--budget 8h --size full",
        "a full network is for a GPU; --size goes without a plan: its epoch is not shortened",
        by="--models fcn8s --folds 0 --epochs 1 --size small",
    ),
    Change(r"--models all", "two of the architectures", by="--models fcn8s,unet"),
    Change(r"--folds all", "two of the folds", by="--folds 0,1"),
    Change(
        r"segmed compare (?!.*--folds)(\S+)",
        "two of the folds, where the line means all",
        by=r"segmed compare \1 --folds 0,1",
    ),
    Change(r"cuda(:\d)?\b", "no GPU", by="cpu"),
    Change(
        r"(?s)(segmed compare .*--register (\S+).*)",
        "networks of two steps may have learned nothing: made champion by force",
        by=r"\1 || segmed model promote \2/1 --force test",
    ),
    Change(
        r"import (\S+) (.*)--sha256 (4f1c\.\.\.|DIGEST)",
        "the digest of the file that is there",
        by=r"import \1 \2--sha256 $(sha256sum \1 | cut -c -64)",
    ),
    Change(r"--nproc-per-node 4", "two processes on two cores", by="--nproc-per-node 2"),
    Change(r"(?<=[ =])/(archive|data)\b", "folders of this site", by=r"\1"),
    Change(r"--port 9109", "a free port", by="--port {metrics}"),
    Change(r"127\.0\.0\.1:4200", "a free port", by="127.0.0.1:{prefect}", page="how-to"),
    Change(
        r"(127\.0\.0\.1:|--port )4200", "a free port", by=r"\g<1>{own_prefect}", page="operations"
    ),
    Change(r"(127\.0\.0\.1:|--port )5000", "a free port", by=r"\g<1>{mlflow}"),
    Change(r"(?<=models serve )", "a free port", by="--port {scoring} "),
    Change(r"(driver:|--port )8786", "this machine and a free port", by=r"\g<1>{dask}"),
    Change(r"tcp://driver", "this machine", by="tcp://127.0.0.1"),
    Change(
        r"dicomwebs://segmed@pacs\.example\.org",
        "an Orthanc on this machine, without TLS",
        by="dicomweb://segmed@127.0.0.1:{web}",
    ),
    Change(
        r"https://pacs\.example\.org",
        "an Orthanc on this machine, without TLS",
        by="http://127.0.0.1:{web}",
    ),
    Change(r"PACS@10\.0\.0\.5:104", "Orthanc by DIMSE", by="SEGMEDPACS@127.0.0.1:{dicom}"),
    Change(r"(?<=PASSWORD=)\.\.\.", "the Orthanc's password", by="tried"),
    Change(
        r"(promote mymodel@challenger --manifest set.json)",
        "a gate that networks of two steps pass",
        by=r"\1 --rules lenient.yaml",
        page="registry",
    ),
)

ENDINGS = (
    Ending(
        r"promote \w+@challenger",
        "a network of two steps may be refused",
        page="how-to|reference",
    ),
)

SERVICES = (
    Service(r"^segmed metrics", "answers questions", alive="http://127.0.0.1:{metrics}/metrics"),
    Service(r"segmed serve (?!.*--work-pool)", "keeps schedules", alive="on-demand/on-demand"),
    Service(
        r"^prefect server start",
        "the page's own server",
        alive="http://127.0.0.1:{own_prefect}/api/health",
        stays=True,
    ),
    Service(
        r"^mlflow server",
        "the page's own server",
        alive="http://127.0.0.1:{mlflow}/health",
        stays=True,
    ),
    Service(r"^prefect worker start", "runs what is due", alive="Worker .* started", stays=True),
    Service(r"^dask scheduler", "hands out work", alive="Scheduler at", stays=True),
    Service(r"dask worker", "segments", alive="Registered to", stays=True),
    Service(r"^mlflow models serve", "answers questions", alive="http://127.0.0.1:{scoring}/ping"),
)

LEFT = (
    Left(r"^segmed (?!serve)(?!.*--dry-run).* -o (\S+)", "what -o names is written", place=r"\1"),
    Left(
        r"archive segment (?!.*(?:--dry-run|--until|--description|--unsegmented)).* -o (\S+)",
        "studies were found and segmented",
        place=r"\1/outcomes.json",
        holds='"status": "done"',
    ),
    Left(r"write_label", "the block writes a label map", page="how-to", place="out/scan.nii.gz"),
    Left(
        r"segment_archive",
        "the block segments what the PACS holds",
        page="tutorial",
        place="segmentations/outcomes.json",
        holds='"status": "done"',
    ),
)

ASSUMED = (
    Assumed(
        r"plan hippocampus.json",
        "a manifest, which a later line builds",
        command="segmed manifest build Task04_Hippocampus -o hippocampus.json --format msd",
        page="reference",
    ),
    Assumed(
        r"^segmed (?:plan|train|compare) (\S+)",
        "the plan with short epochs that takes the place of budgets",
        command=rf"[ -e quick.yaml ] || (segmed plan \1 -o quick.yaml && {SHORT} quick.yaml)",
    ),
    Assumed(
        r"--weights pretrained.safetensors",
        "weights from elsewhere: those of the training before",
        command="cp runs/runs/unetpp/fold0/package/model.safetensors pretrained.safetensors",
    ),
    Assumed(
        r"--model mymodel.zip",
        "the package as a file",
        command="segmed model export models:/mymodel@champion -o mymodel.zip",
    ),
    Assumed(
        r"--rules gate.yaml",
        "another challenger: the one before may be champion now",
        command="segmed model register segmed-comparison/runs/unet/fold0/package --name mymodel "
        "--alias challenger",
    ),
    Assumed(
        r"rollback mymodel",
        "a champion before this one",
        command="segmed model register segmed-comparison/runs/unet/fold1/package --name mymodel "
        "--alias challenger && segmed model promote mymodel@challenger --force test",
        page="how-to",
    ),
    Assumed(
        r"-o mymodel.zip",
        "no file that stands is overwritten",
        command="rm mymodel.zip",
        page="how-to",
    ),
    Assumed(
        r"out/segmentations",
        "DICOM results, where the lines before left NIfTI",
        command="rm -r out && segmed archive segment dicom_series --format dicom-seg -o out "
        "--model models:/mymodel@champion",
    ),
    Assumed(
        r"--model fcn8s --epochs 20 -o first",
        "the chain by hand begins with an empty registry",
        command="rm -r mlflow.db mlartifacts",
        page="registry",
    ),
    Assumed(
        r"models:/spleen@champion",
        "a model that was trained and registered as in the chapter before",
        command="segmed model register package --name spleen --alias champion",
    ),
    Assumed(
        r"models:/tumour@champion",
        "a model of two channels",
        command="segmed model register channels --name tumour --alias champion",
    ),
    Assumed(
        r"hippocampus.zip",
        "written by the command below the block",
        command="segmed model export models:/hippocampus@champion -o hippocampus.zip",
        page="tutorial",
    ),
    Assumed(
        r"^segmed serve .*--manifest",
        "a champion on the server that has just started",
        command="segmed model register package --name hippocampus --alias champion",
        page="operations",
    ),
    Assumed(
        r"models:/mymodel@champion",
        "a champion of this name",
        command="segmed model register package --name mymodel --alias champion",
        page="operations",
    ),
    Assumed(
        r"^segmed predict scan.nii.gz",
        "a champion",
        command="segmed model register segmed-runs/runs/unet3plus/fold0/package "
        "--name hippocampus --alias champion",
        page="reference",
    ),
    Assumed(
        r"^segmed metrics",
        "an archive run",
        command="segmed archive segment scans --model models:/hippocampus@champion "
        "-o segmentations",
        page="reference",
    ),
    Assumed(
        r"promote hippocampus@challenger",
        "a challenger",
        command="segmed model register segmed-comparison/runs/unet/fold0/package "
        "--name hippocampus --alias challenger",
    ),
    Assumed(
        r"rollback hippocampus",
        "a champion before this one",
        command="segmed model register segmed-comparison/runs/unetpp/fold0/package "
        "--name hippocampus --alias challenger "
        "&& segmed model promote hippocampus@challenger --force test",
    ),
)

Layout = Callable[[Path], None]

FOLDERS: dict[str, dict[str, Layout]] = {
    "README.md": {
        "images": site.pairs,
        "dicom_folder": site.series,
        "data/archive": site.scans,
        ".": site.images("new_scan.nii.gz"),
    },
    "docs/how-to.md": {
        "imagesFolder": site.pairs,
        "Dataset004": site.nnunet,
        "incoming": site.mixed_studies,
        "dicom_series": site.series,
        "scans": site.scans,
        ".": site.for_how_to,
    },
    "docs/kubernetes.md": {"docker": site.docker},
    "docs/operations.md": {
        "archive": site.scans,
        "data/set": site.msd,
        "data": site.for_operations,
        "scans": site.scans,
        "package": site.package,
    },
    "docs/privacy.md": {
        "dicom_series": site.series,
        "segmentations": site.labelled_studies,
    },
    "docs/reference.md": {
        "Task04_Hippocampus": site.msd,
        "dicom_series": site.series,
        "incoming": site.mixed_studies,
        "scans": site.scans,
        "segmentations": site.labelled_studies,
        ".": site.for_reference,
    },
    "docs/registry.md": {
        "set": site.msd,
        "scans": site.scans,
        ".": site.for_registry,
    },
    "docs/tutorial.md": {
        "Task04_Hippocampus": site.msd,
        "knees": site.knees,
        "scans": site.scans,
        "dicom_cases": site.labelled_studies,
        "incoming": site.studies,
        "package": site.package,
        "channels": site.two_channels,
        ".": site.images("scan1.nii.gz", "scan2.nii.gz"),
    },
}
"""What lies in the working folder of a page before its first command, by name."""
