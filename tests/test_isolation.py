"""The suite is alone: no test reads or writes what belongs to the user or to another program."""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
import tempfile
from pathlib import Path

from suite_folder import FOLDERS, SUITE_FOLDER, UNSET, WHOLE

from pipelines.registry.cache import cache_folder
from segmed.io.salt import salt_path


def test_home_caches_and_temporary_files_lie_in_the_suites_folder(tmp_path: Path) -> None:
    users_home = Path(pwd.getpwuid(os.getuid()).pw_dir)
    places = [Path.home(), cache_folder(), salt_path(), Path(tempfile.gettempdir()), tmp_path]
    whole = os.environ[WHOLE]
    assert SUITE_FOLDER.is_relative_to(whole)
    for place in places:
        assert place.is_relative_to(whole), place
        assert not place.is_relative_to(users_home), place


def test_started_processes_inherit_the_folders() -> None:
    code = "import os, pathlib, tempfile; print(pathlib.Path.home()); print(tempfile.gettempdir())"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, encoding="utf-8"
    )
    assert [Path(line).parent for line in done.stdout.split()] == [SUITE_FOLDER, SUITE_FOLDER]


def test_no_server_of_the_user_is_named() -> None:
    assert not set(UNSET) & set(os.environ)
    assert set(FOLDERS) <= set(os.environ)
