"""A real Orthanc on free ports, started and stopped by tests."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import requests

PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
READY_WITHIN_S = 30.0
USER, PASSWORD = "segmed", "tried"


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Orthanc:
    """One server with its folder; it may be killed and started again."""

    folder: Path
    http_port: int = field(default_factory=free_port)
    dicom_port: int = field(default_factory=free_port)
    scp_port: int = field(default_factory=free_port)
    """Where we listen for what it sends by C-MOVE."""
    stable_age_s: int = 2
    """Time without a new instance after which it calls a study stable."""
    process: subprocess.Popen[bytes] | None = None

    @property
    def dicomweb_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}/dicom-web"

    def start(self) -> None:
        """Start it, or skip the test where it is not installed."""
        binary = shutil.which("Orthanc")
        if binary is None or not PLUGIN.exists():
            pytest.skip("Orthanc is missing: apt-get install orthanc orthanc-dicomweb")
        self.folder.mkdir(parents=True, exist_ok=True)
        storage = str(self.folder / "storage")
        configuration = {
            "StorageDirectory": storage,
            "IndexDirectory": storage,
            "HttpPort": self.http_port,
            "DicomPort": self.dicom_port,
            "DicomAet": "SEGMEDPACS",
            "DicomCheckCalledAet": True,
            "AuthenticationEnabled": True,
            "RegisteredUsers": {USER: PASSWORD},
            "UnknownSopClassAccepted": True,
            "StableAge": self.stable_age_s,
            "DicomModalities": {
                "segmed": {
                    "AET": "SEGMED", "Host": "127.0.0.1", "Port": self.scp_port,
                    "AllowFind": True, "AllowGet": True, "AllowMove": True, "AllowStore": True,
                }
            },
            "Plugins": [str(PLUGIN)],
            "DicomWeb": {"Enable": True},
        }  # fmt: skip
        path = self.folder / "orthanc.json"
        path.write_text(json.dumps(configuration), encoding="utf-8")
        with (self.folder / "orthanc.log").open("ab") as log:
            self.process = subprocess.Popen([binary, str(path)], stdout=log, stderr=log)
        self._wait_until_ready()

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + READY_WITHIN_S
        while time.monotonic() < deadline:
            try:
                self.rest("GET", "/system")
            except requests.ConnectionError:
                time.sleep(0.05)
            else:
                return
        raise TimeoutError((self.folder / "orthanc.log").read_text(encoding="utf-8")[-2000:])

    def rest(self, method: str, path: str, **options: object) -> requests.Response:
        """Ask Orthanc's own interface."""
        url = f"http://127.0.0.1:{self.http_port}{path}"
        reply = requests.request(method, url, auth=(USER, PASSWORD), timeout=30, **options)
        reply.raise_for_status()
        return reply

    def upload(self, folder: Path) -> int:
        """Store every DICOM file below a folder; returns how many."""
        files = sorted(folder.rglob("*.dcm"))
        for path in files:
            self.rest("POST", "/instances", data=path.read_bytes())
        return len(files)

    def kill(self) -> None:
        """SIGKILL."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> None:
        """End it if it runs."""
        if self.process is not None and self.process.poll() is None:
            self.process.terminate()
            self.process.wait(30)
