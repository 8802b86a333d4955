#!/bin/sh
# The SFTP server that keeps the artifacts, in the foreground, as the account that runs this.
set -eu
: "${SFTP_HOST_KEY:?not set; deploy/secrets.sh makes the keys}"
: "${SFTP_CLIENT_PUBLIC_KEY:?not set; deploy/secrets.sh makes the keys}"

umask 077
keys=$(mktemp -d)
echo "$SFTP_HOST_KEY" | base64 -d > "$keys/host_key"
echo "restrict $SFTP_CLIENT_PUBLIC_KEY" > "$keys/authorized_keys"
unset SFTP_HOST_KEY
exec /usr/sbin/sshd -D -e -f "$(dirname "$0")/sshd_config" -h "$keys/host_key" \
  -o "AuthorizedKeysFile=$keys/authorized_keys" -o "ListenAddress=${SFTP_LISTEN:-127.0.0.1}" -p "${SFTP_PORT:-2222}"
