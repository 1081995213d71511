#!/bin/sh
# Reads secrets from files and starts the command.
#
# A variable NAME_FILE names a file; NAME gets its content (the form that Docker secrets have).
# DB_NAME and DB_PASSWORD together become the database address of MLflow and Prefect, so that the
# password is in no compose file and in no command line.
set -eu
umask 027

for name in DB_PASSWORD MLFLOW_TRACKING_PASSWORD MLFLOW_FLASK_SERVER_SECRET_KEY \
            MLFLOW_ADMIN_PASSWORD PREFECT_API_AUTH_STRING PREFECT_SERVER_API_AUTH_STRING \
            SEGMED_DICOMWEB_PASSWORD; do
    eval "file=\${${name}_FILE:-}"
    if [ -n "$file" ]; then
        if [ ! -r "$file" ]; then
            echo "segmed-entrypoint: ${name}_FILE names $file, which cannot be read;" \
                 "mount the secret readable for user $(id -u)" >&2
            exit 2
        fi
        value=$(cat "$file")
        export "$name=$value"
    fi
done

if [ -n "${DB_NAME:-}" ]; then
    place="${DB_USER:-segmed}:${DB_PASSWORD:?DB_NAME needs DB_PASSWORD or DB_PASSWORD_FILE}@${DB_HOST:-db}/$DB_NAME"
    export MLFLOW_BACKEND_STORE_URI="postgresql://$place"
    export PREFECT_SERVER_DATABASE_CONNECTION_URL="postgresql+asyncpg://$place"
    logins="postgresql://${place}_auth"  # MLflow's users, beside its runs
    unset DB_PASSWORD
fi

# MLflow's login page takes its settings from a file; it is written at each start, for us alone.
if [ -n "${MLFLOW_ADMIN_PASSWORD:-}" ]; then
    MLFLOW_AUTH_CONFIG_PATH=$(mktemp -t mlflow-auth.XXXXXX)
    export MLFLOW_AUTH_CONFIG_PATH
    chmod 0600 "$MLFLOW_AUTH_CONFIG_PATH"
    cat > "$MLFLOW_AUTH_CONFIG_PATH" <<END
[mlflow]
default_permission = NO_PERMISSIONS
database_uri = ${MLFLOW_AUTH_DATABASE_URI:-${logins:-sqlite:////data/mlflow-auth.db}}
admin_username = ${MLFLOW_ADMIN_USERNAME:-admin}
admin_password = $MLFLOW_ADMIN_PASSWORD
authorization_function = mlflow.server.auth:authenticate_request_basic_auth
END
    unset MLFLOW_ADMIN_PASSWORD
fi

exec "$@"
