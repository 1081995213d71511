"""Prints what pyproject.toml depends on, a line each, with the extras named on the command line."""

import sys
import tomllib
from pathlib import Path

project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
extras = [line for name in sys.argv[1:] for line in project["optional-dependencies"][name]]
sys.stdout.write("\n".join([*project["dependencies"], *extras]) + "\n")
