"""Prints a bill of materials of requirements.lock: CycloneDX 1.6 as JSON.

Licences and the dependency graph come from the packages that are installed beside it; one that is
not installed is listed by name and version alone. The same lock gives the same bytes.
"""

import importlib.metadata
import json
import re
import sys
import tomllib
import uuid
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
REQUIRED_NAME = re.compile(r"[A-Za-z0-9._-]+")
MAX_LICENCE_NAME = 80  # some packages put the whole text into the field


def normal(name: str) -> str:
    """A package's name as the index writes it."""
    return re.sub(r"[-_.]+", "-", name).lower()


def locked(text: str) -> dict[str, str]:
    """Version by normal name."""
    lines = (line.split("#")[0].strip() for line in text.splitlines())
    pairs = (line.split(";")[0].split("==") for line in lines if "==" in line)
    return {normal(name.strip()): version.strip() for name, version in pairs}


def reference(name: str, version: str) -> str:
    """The package URL of a package on PyPI."""
    return f"pkg:pypi/{name}@{version}"


def licence(metadata: importlib.metadata.PackageMetadata) -> list[dict[str, object]]:
    """CycloneDX's form of the licence that a package states; empty where it states none."""
    expression = metadata.get("License-Expression")
    if expression:
        return [{"expression": expression}]
    classified = [
        entry.rsplit(" :: ", 1)[1]
        for entry in metadata.get_all("Classifier") or []
        if entry.startswith("License :: ") and entry.count("::") > 1
    ]
    stated = (metadata.get("License") or "").strip()
    if stated and "\n" not in stated and len(stated) <= MAX_LICENCE_NAME:
        classified = classified or [stated]
    return [{"license": {"name": name}} for name in sorted(set(classified))]


def bill(lock: str, project: dict[str, str]) -> dict[str, object]:
    """The whole document."""
    versions = locked(lock)
    installed = {normal(entry.name): entry for entry in importlib.metadata.distributions()}
    components, graph = [], []
    for name, version in sorted(versions.items()):
        component: dict[str, object] = {
            "type": "library",
            "bom-ref": reference(name, version),
            "name": name,
            "version": version,
            "purl": reference(name, version),
        }
        needed: set[str] = set()
        found = installed.get(name)
        if found is not None:
            if found.version.partition("+")[0] == version and licence(found.metadata):
                component["licenses"] = licence(found.metadata)
            wanted = (REQUIRED_NAME.match(line) for line in found.requires or [])
            needed = {normal(match.group()) for match in wanted if match}
        inside = sorted(reference(other, versions[other]) for other in needed & versions.keys())
        components.append(component)
        graph.append({"ref": reference(name, version), "dependsOn": inside})
    serial = uuid.uuid5(uuid.NAMESPACE_URL, lock)
    subject = {"type": "application", "bom-ref": "segmed", **project}
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial}",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [
            {"ref": "segmed", "dependsOn": [entry["ref"] for entry in graph]},
            *graph,
        ],
    }


def main() -> None:
    """Print the bill of this repository's lock."""
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    lock = (REPOSITORY / "requirements.lock").read_text(encoding="utf-8")
    subject = {"name": project["name"], "version": project["version"]}
    sys.stdout.write(json.dumps(bill(lock, subject), indent=1) + "\n")


if __name__ == "__main__":
    main()
