#!/bin/sh
# Writes random secrets for compose.yaml to docker/secrets; never over one that exists.
set -eu
umask 077
folder="${1:-$(dirname "$0")/secrets}"
mkdir -p "$folder"
random() { od -An -N24 -tx1 /dev/urandom | tr -d ' \n'; }
write() {
    if [ -e "$folder/$1" ]; then echo "kept    $folder/$1"; return; fi
    printf '%s' "$2" > "$folder/$1"
    # Compose mounts the file as it is; the containers read it as user 1000.
    if [ "$(id -u)" = 0 ]; then chown 1000:1000 "$folder/$1"; fi
    echo "written $folder/$1"
}
if [ "$(id -u)" != 0 ] && [ "$(id -u)" != 1000 ]; then
    echo "make-secrets: the containers read as user 1000, you are $(id -u):" \
         "run 'sudo chown 1000 $folder/*' afterwards" >&2
fi
write db_password "$(random)"
write mlflow_password "$(random)"
write mlflow_secret_key "$(random)"
write prefect_auth "segmed:$(random)"
write orthanc_password "$(random)"
