"""Images and compose files: no privileges, no secrets in sight, nothing reachable from outside."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.server.concurrency.lease_storage import filesystem

DOCKER = Path(__file__).resolve().parents[2] / "docker"
ENTRYPOINT = DOCKER / "entrypoint.sh"
OUR_IMAGES = ("segmed:cpu", "segmed:cuda", "segmed-orthanc:1.10.1")


def services() -> dict[str, dict[str, Any]]:
    """Both files as compose joins them."""
    found: dict[str, dict[str, Any]] = {}
    for name in ("compose.yaml", "compose.pacs.yaml"):
        content = yaml.safe_load((DOCKER / name).read_text(encoding="utf-8"))
        for service, settings in content["services"].items():
            before = found.get(service, {})
            found[service] = {
                **before,
                **settings,
                "environment": before.get("environment", {}) | settings.get("environment", {}),
                "secrets": [*before.get("secrets", []), *settings.get("secrets", [])],
            }
    return found


def run_entrypoint(script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["sh", str(ENTRYPOINT), "sh", "-c", script],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=False,
        encoding="utf-8",
    )


@pytest.mark.parametrize("name", sorted(services()))
def test_ports_are_open_to_this_machine_only(name: str) -> None:
    assert all(port.startswith("127.0.0.1:") for port in services()[name].get("ports", []))


@pytest.mark.parametrize("name", [n for n, s in services().items() if s["image"] in OUR_IMAGES])
def test_our_containers_have_no_privileges_and_write_to_volumes_only(name: str) -> None:
    service = services()[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert "privileged" not in service


@pytest.mark.parametrize("name", sorted(services()))
def test_secrets_come_from_files(name: str) -> None:
    service = services()[name]
    for key, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|TOKEN|AUTH_STRING", key):
            assert key.endswith("_FILE")
            assert Path(value).name in service["secrets"]


def test_every_secret_of_the_compose_files_is_made_by_the_script(tmp_path: Path) -> None:
    wanted = {secret for service in services().values() for secret in service.get("secrets", [])}
    subprocess.run(["sh", str(DOCKER / "make-secrets.sh"), str(tmp_path)], check=True)
    assert {path.name for path in tmp_path.iterdir()} == wanted
    modes = {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {0o600}


def test_secrets_that_exist_are_kept(tmp_path: Path) -> None:
    (tmp_path / "db_password").write_text("mine", encoding="utf-8")
    subprocess.run(["sh", str(DOCKER / "make-secrets.sh"), str(tmp_path)], check=True)
    assert (tmp_path / "db_password").read_text(encoding="utf-8") == "mine"


def test_entrypoint_reads_every_secret_file_that_the_compose_files_name() -> None:
    known = ENTRYPOINT.read_text(encoding="utf-8")
    for service in services().values():
        if service["image"] in OUR_IMAGES[:2]:
            for key in service.get("environment", {}):
                if key.endswith("_FILE"):
                    assert key.removesuffix("_FILE") in known


def test_entrypoint_gives_the_content_of_a_secret_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s3cret $HOME `id`\n", encoding="utf-8")
    done = run_entrypoint(
        'printf %s "$PREFECT_API_AUTH_STRING"', PREFECT_API_AUTH_STRING_FILE=str(secret)
    )
    assert done.stdout == "s3cret $HOME `id`"


def test_entrypoint_refuses_a_secret_file_that_is_missing() -> None:
    done = run_entrypoint("echo started", DB_PASSWORD_FILE="/nowhere/at/all")
    assert done.returncode == 2
    assert "cannot be read" in done.stderr
    assert "started" not in done.stdout


def test_entrypoint_makes_database_addresses_and_forgets_the_password() -> None:
    done = run_entrypoint(
        'echo "$MLFLOW_BACKEND_STORE_URI $PREFECT_SERVER_DATABASE_CONNECTION_URL";'
        'echo "${DB_PASSWORD:-none}"',
        DB_NAME="mlflow",
        DB_PASSWORD="pw",
    )
    assert done.stdout.split() == [
        "postgresql://segmed:pw@db/mlflow",
        "postgresql+asyncpg://segmed:pw@db/mlflow",
        "none",
    ]


def test_logins_of_mlflow_lie_in_the_database_where_there_is_one(tmp_path: Path) -> None:
    done = run_entrypoint(
        'cat "$MLFLOW_AUTH_CONFIG_PATH"',
        MLFLOW_ADMIN_PASSWORD="secret",
        DB_NAME="mlflow",
        DB_PASSWORD="pw",
        TMPDIR=str(tmp_path),
    )
    assert "database_uri = postgresql://segmed:pw@db/mlflow_auth\n" in done.stdout
    made = (DOCKER / "create-databases.sql").read_text(encoding="utf-8")
    assert "CREATE DATABASE mlflow_auth" in made


def test_every_database_is_backed_up_and_restored() -> None:
    made = set(
        re.findall(
            r"CREATE DATABASE (\w+)", (DOCKER / "create-databases.sql").read_text(encoding="utf-8")
        )
    )
    for script in ("backup.sh", "restore.sh"):
        named = re.search(
            r"for database in ([\w ]+);", (DOCKER / script).read_text(encoding="utf-8")
        )
        assert named is not None
        assert set(named.group(1).split()) == made | {"mlflow"}


def test_compose_limits_what_every_service_logs() -> None:
    for service in services().values():
        assert service["logging"]["options"] == {"max-size": "20m", "max-file": "5"}


def test_prefect_unpacks_its_page_where_it_may_write() -> None:
    service = services()["prefect"]
    place = Path(service["environment"]["PREFECT_UI_STATIC_DIRECTORY"])
    assert service["read_only"] is True
    assert any(place.is_relative_to(mount) for mount in service["tmpfs"])


def test_prefect_keeps_its_leases_in_files_of_its_volume() -> None:
    service = services()["prefect"]
    image = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    found = re.search(r"PREFECT_HOME=(\S+)", image)
    assert found is not None
    home = service["environment"].get("PREFECT_HOME", found.group(1))
    storage = service["environment"]["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"]
    assert storage == filesystem.__name__
    mounts = [volume.split(":")[1] for volume in service["volumes"]]
    assert any(Path(home).is_relative_to(mount) for mount in mounts)


def test_entrypoint_keeps_the_login_settings_for_its_user_alone(tmp_path: Path) -> None:
    done = run_entrypoint(
        'stat -c %a "$MLFLOW_AUTH_CONFIG_PATH"; cat "$MLFLOW_AUTH_CONFIG_PATH"',
        MLFLOW_ADMIN_PASSWORD="pw",
        TMPDIR=str(tmp_path),
    )
    assert done.stdout.startswith("600\n")
    assert "admin_password = pw" in done.stdout
    assert "default_permission = NO_PERMISSIONS" in done.stdout


def test_image_ends_as_an_unprivileged_user_with_a_health_check() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    stages = re.split(r"^FROM ", text, flags=re.MULTILINE)
    for name in ("cpu", "cuda"):
        stage = next(s for s in stages if s.splitlines()[0].endswith(f"AS {name}"))
        assert "USER 1000:1000" in stage
        assert "HEALTHCHECK" in stage


def test_every_installation_is_held_to_the_lock() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    installs = re.findall(r"pip (?:install|wheel)(?! --no-cache-dir --no-index) .*", text)
    assert len(installs) == 5
    assert all("--constraint requirements.lock" in line for line in installs)


def test_everything_that_the_image_copies_reaches_the_builder() -> None:
    text = (DOCKER / "Dockerfile").read_text(encoding="utf-8")
    allowed = {
        line[1:]
        for line in (DOCKER.parent / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = {
        source
        for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.MULTILINE)
        for source in line.split()[:-1]
        if not source.startswith("--")
    }
    assert copied == allowed


def test_shell_scripts_parse() -> None:
    for script in DOCKER.rglob("*.sh"):
        subprocess.run(["sh", "-n", str(script)], check=True)


@pytest.mark.integration
def test_compose_accepts_its_files() -> None:
    compose = shutil.which("docker-compose")
    if compose is None:
        pytest.skip("no docker-compose on this machine")
    files = ["-f", str(DOCKER / "compose.yaml"), "-f", str(DOCKER / "compose.pacs.yaml")]
    for profile in ("cpu", "gpu"):
        done = subprocess.run(
            [compose, *files, "--profile", profile, "config", "-q"],
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.integration
def test_dockerfiles_pass_hadolint() -> None:
    hadolint = shutil.which("hadolint")
    if hadolint is None:
        pytest.skip("no hadolint on this machine")
    for dockerfile in DOCKER.rglob("Dockerfile"):
        done = subprocess.run(
            [hadolint, str(dockerfile)],
            capture_output=True,
            text=True,
            check=False,
            encoding="utf-8",
        )
        assert done.returncode == 0, done.stdout
