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

step "images"
if ! have debian:bookworm-slim; then
    debootstrap --variant=minbase bookworm "$work/root" http://deb.debian.org/debian > "$work/log"
    tar -C "$work/root" -c . | docker import - debian:bookworm-slim
    rm -rf "$work/root"
    echo "debian:bookworm-slim is a stand-in made by debootstrap"
fi
if ! have postgres:15-bookworm; then
    # shellcheck disable=SC2086  # several words on purpose
    docker build -q ${BUILD_ARGS:-} -t postgres:15-bookworm docker/trial/postgres
    echo "postgres:15-bookworm is a stand-in on Debian's package"
fi
# shellcheck disable=SC2086
docker build -q ${BUILD_ARGS:-} -f docker/Dockerfile --target cpu -t segmed:cpu .
# shellcheck disable=SC2086
docker build -q ${BUILD_ARGS:-} -t segmed-orthanc:1.10.1 docker/orthanc
docker image ls --format '{{.Repository}}:{{.Tag}} {{.Size}}' | grep -E '^segmed|^postgres'

step "one image alone: user, file system, version, the bundled demo"
docker run --rm segmed:cpu sh -c 'id -u; segmed --version'
docker run --rm --read-only --tmpfs /tmp segmed:cpu sh -c \
    'if touch /opt/segmed/x 2> /dev/null; then echo "the image can be written"; exit 1; fi'
docker run --rm --network none segmed:cpu segmed demo --quick -o /data/demo > "$work/demo"
tail -2 "$work/demo"

step "servers"
sh docker/make-secrets.sh > /dev/null
compose down --volumes > /dev/null 2>&1 || true
compose up -d db mlflow prefect orthanc heartbeat
healthy db mlflow prefect orthanc
code() { docker run --rm --network host segmed:cpu python3 -c "
import sys, urllib.error, urllib.request as r
request = r.Request(sys.argv[1], headers={'Host': sys.argv[2]} if sys.argv[2:] else {})
try: print(r.urlopen(request, timeout=20).status)
except urllib.error.HTTPError as error: print(error.code)" "$@"; }
search=/api/2.0/mlflow/registered-models/search
[ "$(code http://127.0.0.1:$MLFLOW_PORT$search)" = 401 ] || fail "MLflow lets strangers in"
[ "$(code http://127.0.0.1:$MLFLOW_PORT$search evil.example)" = 403 ] || fail "MLflow takes any Host"
[ "$(code http://127.0.0.1:$PREFECT_PORT/api/flows/)" = 401 ] || fail "Prefect lets strangers in"
[ "$(code http://127.0.0.1:$PREFECT_PORT/)" = 200 ] || fail "Prefect's page does not open"
[ "$(code http://127.0.0.1:$ORTHANC_HTTP_PORT/system)" = 401 ] || fail "Orthanc lets strangers in"
echo "strangers are refused by MLflow (401, 403), Prefect (401) and Orthanc (401)"
for name in $(compose ps -aq); do
    for secret in docker/secrets/*; do
        ! docker inspect "$name" | grep -q -F "$(cat "$secret")" || fail "a secret is in docker inspect"
    done
done
echo "no secret in docker inspect"
docker wait "$(compose ps -aq heartbeat)" | grep -qx 0 || fail "the heartbeat automation was not made"
in_segmed prefect automation inspect crashed-without-heartbeat | grep -i -m 1 name

step "segmed against them: doctor, compare, register"
in_segmed segmed doctor > "$work/doctor"
grep -E '^(tracking|prefect|clock|warning|no problems)' "$work/doctor"
in_segmed sh -c 'segmed compare \
    "$(python3 -c "import data_manifests; print(list(data_manifests.__path__)[0])")/hippocampus_sample.json" \
    --models fcn8s,unet --folds 0 --epochs 2 --register hippocampus -o /data/study' > "$work/compared"
tail -3 "$work/compared"
in_segmed segmed model list

step "the archive, by schedule"
mkdir -p "$SEGMED_ARCHIVE"
chmod 0777 "$SEGMED_ARCHIVE"
docker run --rm -v "$SEGMED_ARCHIVE:/out" segmed:cpu python3 -c "
from pathlib import Path
from pipelines.demo.run import MANIFEST
from pipelines.demo.archive import make_archive
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
