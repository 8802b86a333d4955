#!/bin/sh
# Make the secrets of a deployment, once: deploy/secrets.sh > deploy/.env
set -eu
umask 077
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT
for name in host client; do
  ssh-keygen -q -t ed25519 -N "" -C "$name" -f "$keys/$name"
done
cat <<END
POSTGRES_PASSWORD=$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')
SFTP_HOST_KEY=$(base64 < "$keys/host" | tr -d '\n')
SFTP_HOST_PUBLIC_KEY="$(cat "$keys/host.pub")"
SFTP_CLIENT_KEY=$(base64 < "$keys/client" | tr -d '\n')
SFTP_CLIENT_PUBLIC_KEY="$(cat "$keys/client.pub")"
END
