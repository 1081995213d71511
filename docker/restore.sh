#!/bin/sh
# Restores a folder that backup.sh wrote, into fresh volumes; never over a database that has tables.
#
#   sh docker/make-secrets.sh && sh docker/restore.sh /backup/2026-01-31
set -eu
folder="${1:?usage: sh docker/restore.sh FOLDER}"
compose() { ${COMPOSE:-docker compose} -f "$(dirname "$0")/compose.yaml" "$@"; }
compose up -d db
tries=60
until compose exec -T db pg_isready -q -h 127.0.0.1 -U segmed -d prefect; do
    tries=$((tries - 1))
    if [ "$tries" = 0 ]; then echo "restore: the database does not start" >&2; exit 1; fi
    sleep 1
done
for database in mlflow mlflow_auth prefect; do
    tables=$(compose exec -T db psql -U segmed -d "$database" -Atc \
        "select count(*) from information_schema.tables where table_schema = 'public'")
    if [ "$tables" != 0 ]; then
        echo "restore: database $database has $tables tables; restore into fresh volumes" >&2
        exit 1
    fi
    compose exec -T db pg_restore -U segmed --exit-on-error --clean --if-exists -d "$database" \
        < "$folder/$database.dump"
done
compose exec -T db psql -q -v ON_ERROR_STOP=1 -U segmed -d prefect < "$(dirname "$0")/after-restore.sql"
compose run --rm --no-deps -T mlflow tar -C /data -xf - < "$folder/mlflow-data.tar"
compose --profile cpu run --rm --no-deps -T segmed tar -C /data -xf - < "$folder/segmed-data.tar"
echo "restored; start with: docker compose -f docker/compose.yaml --profile cpu up -d"
