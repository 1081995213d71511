#!/bin/sh
# Backs up what compose.yaml keeps: both databases, MLflow's artifacts, outputs with their ledger.
#
#   sh docker/backup.sh /backup/2026-01-31
#
# COMPOSE names the command where it is not `docker compose`. Runs while everything runs. The databases come first: an artifact that is written meanwhile is in
# the copy without its row, which does no harm; a row without its artifact would.
set -eu
folder="${1:?usage: sh docker/backup.sh FOLDER}"
umask 077
mkdir -p "$folder"
compose() { ${COMPOSE:-docker compose} -f "$(dirname "$0")/compose.yaml" "$@"; }
for database in mlflow mlflow_auth prefect; do
    compose exec -T db pg_dump -U segmed --format=custom "$database" > "$folder/$database.dump"
done
compose exec -T mlflow tar -C /data -cf - . > "$folder/mlflow-data.tar"
compose --profile cpu run --rm --no-deps -T segmed python3 - <<'END' > "$folder/segmed-data.tar"
"""The outputs as a tar; each ledger as SQLite's own consistent copy, never its files under way."""
import sqlite3, sys, tarfile, tempfile
from pathlib import Path

data = Path("/data")
with tarfile.open(fileobj=sys.stdout.buffer, mode="w|") as tar, tempfile.TemporaryDirectory() as scratch:
    for number, path in enumerate(sorted(data.rglob("*"))):
        name = path.relative_to(data).as_posix()
        if path.name.endswith((".sqlite-wal", ".sqlite-shm", ".lock")):
            continue
        if path.suffix == ".sqlite":
            copy = Path(scratch) / f"{number}.sqlite"
            with sqlite3.connect(path) as source, sqlite3.connect(copy) as target:
                source.backup(target)
            path = copy
        tar.add(path, arcname=name, recursive=False)
END
ls -l "$folder"
