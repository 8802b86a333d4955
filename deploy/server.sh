#!/bin/sh
# The tracking server, in the foreground. It alone knows the database's password and the SFTP server's key.
set -eu
: "${POSTGRES_PASSWORD:?not set; deploy/secrets.sh makes one}"
: "${SFTP_CLIENT_KEY:?not set; deploy/secrets.sh makes the keys}"
: "${SFTP_HOST_PUBLIC_KEY:?not set; deploy/secrets.sh makes the keys}"

# Not in the address: command lines and logs show that.
export PGPASSWORD="$POSTGRES_PASSWORD" PGCONNECT_TIMEOUT=5
unset POSTGRES_PASSWORD
database="postgresql+psycopg://${POSTGRES_USER:-mlflow}@${POSTGRES_ADDRESS:-127.0.0.1:5432}/${POSTGRES_DB:-mlflow}"
export MLFLOW_BACKEND_STORE_URI="$database"
export MLFLOW_ARTIFACTS_DESTINATION="sftp://${SFTP_USER:-mlflow}@${SFTP_ADDRESS:-127.0.0.1:2222}${SFTP_FOLDER:-/artifacts}"
export MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false  # processes that judge language models

set -- --serve-artifacts --host "${MLFLOW_LISTEN:-127.0.0.1}" --port "${MLFLOW_PORT:-5000}" --workers "${MLFLOW_WORKERS:-4}"
if [ -n "${MLFLOW_AUTH_ADMIN_PASSWORD:-}" ]; then  # accounts, in the same database
  : "${MLFLOW_FLASK_SERVER_SECRET_KEY:?not set; accounts need it}"
  MLFLOW_AUTH_CONFIG_PATH=$(mktemp)
  export MLFLOW_AUTH_CONFIG_PATH
  printf '[mlflow]\ndefault_permission = EDIT\ndatabase_uri = %s\nadmin_username = admin\n' "$database" \
    > "$MLFLOW_AUTH_CONFIG_PATH"
  set -- "$@" --app-name basic-auth
else
  unset MLFLOW_AUTH_ADMIN_PASSWORD
fi
exec mlflow server "$@"
