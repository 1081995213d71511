#!/usr/bin/env python3
"""Writes Orthanc's configuration with the password from its file, then becomes Orthanc."""

import json
import os
import tempfile
from pathlib import Path

PLUGINS = Path("/usr/share/orthanc/plugins")


def configuration(password: str) -> dict[str, object]:
    """Orthanc's settings: authentication on, peers listed, plugins named one by one."""
    return {
        "Name": "segmed test archive",
        "StorageDirectory": "/var/lib/orthanc/db",
        "IndexDirectory": "/var/lib/orthanc/db",
        "HttpPort": 8042,
        "DicomPort": 4242,
        "DicomAet": "SEGMEDPACS",
        "DicomCheckCalledAet": True,
        "RemoteAccessAllowed": True,
        "AuthenticationEnabled": True,
        "RegisteredUsers": {os.environ.get("ORTHANC_USER", "segmed"): password},
        # Label-map segmentations are of a newer class than this Orthanc has by name.
        "UnknownSopClassAccepted": True,
        "StableAge": 30,
        "DicomModalities": {
            "segmed": {
                "AET": "SEGMED",
                "Host": os.environ.get("SEGMED_HOST", "segmed"),
                "Port": 11112,
                "AllowFind": True,
                "AllowGet": True,
                "AllowMove": True,
                "AllowStore": True,
            }
        },
        # A folder here would load every plugin in it, wanted or not.
        "Plugins": [str(PLUGINS / name) for name in ("libOrthancDicomWeb.so", "libOrthancGdcm.so")],
        "DicomWeb": {"Enable": True},
    }


def main() -> None:
    """Write the configuration for this user alone and start the server."""
    password = Path(os.environ["ORTHANC_PASSWORD_FILE"]).read_text(encoding="utf-8").strip()
    handle, path = tempfile.mkstemp(suffix=".json")  # readable for this user alone
    with os.fdopen(handle, "w", encoding="utf-8") as out:
        json.dump(configuration(password), out)
    os.execv("/usr/sbin/Orthanc", ["Orthanc", path])  # noqa: S606 - that is the point: no shell


if __name__ == "__main__":
    main()
