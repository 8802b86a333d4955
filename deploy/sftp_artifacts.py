"""An artifact store of MLflow on an SFTP server whose host key is known: each call is a connection of its own.

MLflow's own store for sftp:// goes through pysftp, which is unmaintained and does not import with paramiko 4 or later.
It opens its connections at the first request and keeps them: once the SFTP server was away, the tracking server fails
until it is started anew, too. This one takes its place (pyproject.toml names it for the scheme) and needs
`SFTP_CLIENT_KEY`, our private key in base64, and `SFTP_HOST_PUBLIC_KEY`, the only host key that is believed.
"""

from __future__ import annotations

import asyncio
import base64
import os
import posixpath
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import unquote, urlsplit

import asyncssh
from mlflow.entities import FileInfo
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import RESOURCE_DOES_NOT_EXIST, TEMPORARILY_UNAVAILABLE
from mlflow.store.artifact.artifact_repo import ArtifactRepository

SECONDS = (
    5  # for connecting, for logging in, and between two signs of life of the SFTP server: three missed are its end
)
PART = ".part"  # behind the name of a file that is on its way

T = TypeVar("T")


class SFTPArtifacts(ArtifactRepository):
    """Files under the path of `sftp://user@host:port/path`.

    Every method raises MlflowException: TEMPORARILY_UNAVAILABLE where the server is away or is not the one we know.
    """

    def __init__(self, artifact_uri: str, tracking_uri: str | None = None, registry_uri: str | None = None) -> None:
        super().__init__(artifact_uri, tracking_uri, registry_uri)
        address = urlsplit(artifact_uri)
        self.root = unquote(address.path) or "/"
        self.shown = f"the SFTP server {address.hostname}:{address.port or 22}"
        host_key = _key("SFTP_HOST_PUBLIC_KEY", asyncssh.import_public_key)
        client_key = _key("SFTP_CLIENT_KEY", lambda text: asyncssh.import_private_key(base64.b64decode(text)))
        self.options = {
            "host": address.hostname,
            "port": address.port or 22,
            "username": address.username,
            "known_hosts": ([host_key], [], []),
            "client_keys": [client_key],
            "agent_path": None,
            "config": None,  # no ~/.ssh/config
            "connect_timeout": SECONDS,
            "login_timeout": SECONDS,
            "keepalive_interval": SECONDS,
        }

    def log_artifact(self, local_file: str, artifact_path: str | None = None) -> None:
        """Store one file; it appears whole or not at all."""

        async def put(sftp: asyncssh.SFTPClient) -> None:
            await _put(sftp, Path(local_file), self._path(artifact_path))

        self._run(put)

    def log_artifacts(self, local_dir: str, artifact_path: str | None = None) -> None:
        """Store the files of a folder and of those in it."""
        root = Path(local_dir)

        async def put(sftp: asyncssh.SFTPClient) -> None:
            for file in sorted(path for path in root.rglob("*") if path.is_file()):
                await _put(sftp, file, posixpath.join(self._path(artifact_path), *file.parent.relative_to(root).parts))

        self._run(put)

    def list_artifacts(self, path: str | None = None) -> list[FileInfo]:
        """What is in a folder, by name; nothing where it is not one."""

        async def entries(sftp: asyncssh.SFTPClient) -> list[FileInfo]:
            if not await sftp.isdir(self._path(path)):
                return []
            found = []
            async for entry in sftp.scandir(self._path(path)):
                name, folder = str(entry.filename), entry.attrs.type == asyncssh.FILEXFER_TYPE_DIRECTORY
                if name not in {".", ".."} and not name.endswith(PART):
                    inside = posixpath.join(path, name) if path else name
                    found.append(FileInfo(inside, folder, None if folder else entry.attrs.size))
            return sorted(found, key=lambda file: file.path)

        return self._run(entries)

    def delete_artifacts(self, artifact_path: str | None = None) -> None:
        """Delete a file, or a folder with all that is in it; nothing where there is none."""

        async def delete(sftp: asyncssh.SFTPClient) -> None:
            path = self._path(artifact_path)
            if await sftp.isdir(path):
                await sftp.rmtree(path)
            elif await sftp.exists(path):
                await sftp.remove(path)

        self._run(delete)

    def _is_directory(self, artifact_path: str | None) -> bool:
        async def look(sftp: asyncssh.SFTPClient) -> bool:
            return await sftp.isdir(self._path(artifact_path))

        return self._run(look)

    def _download_file(self, remote_file_path: str, local_path: str) -> None:
        async def get(sftp: asyncssh.SFTPClient) -> None:
            await sftp.get(self._path(remote_file_path), local_path)

        self._run(get)

    def _path(self, artifact_path: str | None) -> str:
        return posixpath.join(self.root, artifact_path) if artifact_path else self.root

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncssh.SFTPClient]:
        async with asyncssh.connect(**self.options) as connection, connection.start_sftp_client() as sftp:
            yield sftp

    def _run(self, call: Callable[[asyncssh.SFTPClient], Awaitable[T]]) -> T:
        """`call` with a connection of its own. MLflow's threads have no event loop."""

        async def connected() -> T:
            async with self._connection() as sftp:
                return await call(sftp)

        try:
            return asyncio.run(connected())
        except asyncssh.SFTPNoSuchFile as error:
            raise MlflowException(f"{self.shown}: {error}", RESOURCE_DOES_NOT_EXIST) from None
        except (OSError, asyncssh.Error, TimeoutError) as error:
            said = " ".join(str(error).split()) or type(error).__name__
            raise MlflowException(f"{self.shown}: {said}", TEMPORARILY_UNAVAILABLE) from None


def _key(name: str, read: Callable[[str], asyncssh.SSHKey]) -> asyncssh.SSHKey:
    try:
        return read(os.environ[name])
    except (KeyError, ValueError):
        raise MlflowException(f"the tracking server's {name} is not set, or is no such key") from None


async def _put(sftp: asyncssh.SFTPClient, file: Path, folder: str) -> None:
    """Copy a file into a folder under another name, and give it its own once it is whole."""
    await sftp.makedirs(folder, exist_ok=True)
    part = posixpath.join(folder, uuid.uuid4().hex + PART)
    await sftp.put(str(file), part)
    await sftp.posix_rename(part, posixpath.join(folder, file.name))
