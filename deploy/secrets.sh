#!/bin/sh
# Make the secrets of a deployment, once: deploy/secrets.sh [FILE], without FILE the .env beside this script. The file is
# made here and not by a redirection: the caller's shell would make one that all accounts of the machine can read.
set -eu
umask 077
file="${1:-$(dirname "$0")/.env}"
if [ -e "$file" ] || [ -L "$file" ]; then
  echo "error: $file is there already; a deployment keeps its secrets: move it away to make others" >&2
  exit 1
fi
keys=$(mktemp -d)
trap 'rm -r "$keys"' EXIT
trap 'exit 1' HUP INT TERM
for name in host client; do
  ssh-keygen -q -t ed25519 -N "" -C "$name" -f "$keys/$name"
done
set -C  # nor over one that was made meanwhile
cat > "$file" <<END
POSTGRES_PASSWORD=$(od -An -tx1 -N24 /dev/urandom | tr -d ' \n')
SFTP_HOST_KEY=$(base64 < "$keys/host" | tr -d '\n')
SFTP_HOST_PUBLIC_KEY="$(cat "$keys/host.pub")"
SFTP_CLIENT_KEY=$(base64 < "$keys/client" | tr -d '\n')
SFTP_CLIENT_PUBLIC_KEY="$(cat "$keys/client.pub")"
END
