#!/bin/sh
# Builds the images and runs the whole of compose.yaml and compose.pacs.yaml on a Docker engine,
# beside whatever else runs there: containers, volumes and ports of its own, removed at the end.
#
#   sh docker/trial/run.sh [--keep]
#
# It builds, starts every service, waits for the health checks, compares two architectures briefly,
# lets the schedule segment an archive, asks Orthanc for a study, backs up, throws everything away,
# restores, and goes on. Takes a quarter of an hour on two cores without a cache. The environment
# may name COMPOSE (`docker-compose`) and BUILD_ARGS (`--network host --build-arg PIP_CERT=...`).
# Where no registry answers, debian:bookworm-slim and postgres:15-bookworm are made from Debian's
# own packages (needs root and debootstrap).
set -eu
cd "$(dirname "$0")/../.."
export COMPOSE="${COMPOSE:-docker compose}" COMPOSE_PROJECT_NAME=segmed-trial
export MLFLOW_PORT=15500 PREFECT_PORT=14200 ORTHANC_HTTP_PORT=18042 ORTHANC_DICOM_PORT=14242
export SEGMED_NIGHTLY="* * * * *" DOCKER_BUILDKIT=1
work=$(mktemp -d)
chmod 0755 "$work"
export SEGMED_ARCHIVE="$work/archive"
compose() { $COMPOSE -f docker/compose.yaml -f docker/compose.pacs.yaml --profile cpu "$@"; }
step() { echo "=== $(date +%H:%M:%S) $*"; }
fail() { echo "trial: $*" >&2; exit 1; }
in_segmed() { compose run --rm --no-deps -T segmed "$@" < /dev/null; }
finish() {
    status=$?
    [ "$status" = 0 ] || compose logs --tail 30 || true
    [ "${1:-}" = --keep ] || compose down --volumes --timeout 20 > /dev/null 2>&1 || true
    rm -rf "$work"
    [ "$status" = 0 ] && step "the trial passed" || step "the trial FAILED ($status)"
}
trap 'finish "${keep:-}"' EXIT
keep="${1:-}"

have() { docker image inspect "$1" > /dev/null 2>&1 || docker pull -q "$1" 2> /dev/null; }
healthy() {  # SERVICE...: waits until each is healthy
    for service in "$@"; do
        tries=180
        until [ "$(docker inspect -f '{{.State.Health.Status}}' "$(compose ps -aq "$service")")" = healthy ]; do
            tries=$((tries - 1))
            [ "$tries" != 0 ] || fail "$service does not become healthy"
            sleep 2
        done
        echo "healthy: $service"
    done
}
segmented() {  # NUMBER: waits until the ledger has as many studies done
    tries=120
    until compose exec -T segmed segmed archive status /data/segmentations --json 2> /dev/null \
        < /dev/null | tr -d ' \n' | grep -q "\"done\":$1"; do
        tries=$((tries - 1))
        [ "$tries" != 0 ] || fail "the schedule has not segmented $1 studies"
        sleep 3
    done
    echo "done: $1 studies"
}

step "the archive, by schedule"
mkdir -p "$SEGMED_ARCHIVE"
chmod 0777 "$SEGMED_ARCHIVE"
docker run --rm -v "$SEGMED_ARCHIVE:/out" segmed:cpu python3 -c "
from pathlib import Path
from pipelines.demo import MANIFEST
from pipelines.demo_archive import make_archive
from segmed.manifest import read_manifest
make_archive(read_manifest(MANIFEST), Path('/out/scans'))"
compose up -d segmed
healthy segmed
segmented 6
compose exec -T segmed sh -c 'touch /archive/x 2> /dev/null && exit 1; touch /opt/x 2> /dev/null && exit 1; id -u' \
    < /dev/null || fail "the archive or the image can be written"

step "a study from Orthanc by DICOMweb, the segmentation sent back"
in_segmed python3 -c "
import os, urllib.request as r, base64, pathlib
word = base64.b64encode(('segmed:' + os.environ['SEGMED_DICOMWEB_PASSWORD']).encode()).decode()
for path in sorted(pathlib.Path('/archive/scans/study1').rglob('*')):
    if path.is_file():
        r.urlopen(r.Request('http://orthanc:8042/instances', path.read_bytes(),
                            {'Authorization': 'Basic ' + word}), timeout=60)
print('sent study1 to Orthanc')"
pacs=dicomweb://segmed@orthanc:8042/dicom-web
in_segmed segmed archive segment "$pacs" --model models:/hippocampus@champion \
    --format dicom-seg --send "$pacs" -o /data/from-pacs > "$work/from-pacs"
tail -2 "$work/from-pacs"

step "backup, the end of everything, restore"
sh docker/backup.sh "$work/backup"
compose down --volumes --timeout 30
sh docker/restore.sh "$work/backup"
compose up -d db mlflow prefect orthanc heartbeat segmed
healthy db mlflow prefect segmed
in_segmed segmed model list
segmented 6
compose exec -T segmed python3 -c "
import sqlite3
rows = sqlite3.connect('/data/segmentations/ledger.sqlite').execute(
    'SELECT attempts, count(*) FROM studies WHERE state = \"done\" GROUP BY attempts').fetchall()
print('attempts of the studies that are done:', rows)
assert rows == [(1, 6)], 'a study was segmented again'" < /dev/null
step "clean shutdown"
started=$(date +%s)
compose stop --timeout 60
echo "everything stopped in $(($(date +%s) - started)) s"
for service in mlflow prefect segmed db; do
    docker inspect -f "$service exited with {{.State.ExitCode}}" "$(compose ps -aq "$service")"
done
