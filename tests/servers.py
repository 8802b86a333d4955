"""Real servers on loopback for the tests, each on a port that it keeps: PostgreSQL, SFTP (sshd) and MLflow.

They are started by what is in deploy/, the way compose.yaml starts them, and can be killed and started again.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
import requests

DEPLOY = Path(__file__).parents[1] / "deploy"
SECONDS = 600  # for a server to answer once it was started, on a machine that is busy


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def other_account() -> str | None:
    """Who PostgreSQL and sshd run as where we are root; None: as ourselves."""
    names = {entry.pw_name for entry in pwd.getpwall()}
    return next((name for name in ("postgres", "nobody") if name in names), None) if os.geteuid() == 0 else None


def find(*programs: str) -> dict[str, str]:
    """Where programs of the system are; skips the test where it lacks one."""
    folders = [os.environ["PATH"], "/usr/sbin", *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin")))]
    found = {name: shutil.which(name, path=os.pathsep.join(folders)) for name in programs}
    missing = [name for name, path in found.items() if path is None]
    if missing:
        pytest.skip(f"not installed on this system: {', '.join(missing)}")
    return found


class Server:
    """A process that listens on `port`: `start` waits until it answers, `kill` ends it as a power cut would."""

    ends_with = signal.SIGTERM

    def __init__(self, command: Sequence[str], folder: Path, environment: Mapping[str, str], user: str | None) -> None:
        self.command, self.folder, self.user = command, folder, user
        self.environment, self.log = dict(environment), folder / f"{type(self).__name__}.log"
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                cwd=self.folder,
                env=self.environment,
                user=self.user,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        deadline = time.monotonic() + SECONDS
        while not self.answers():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.05)

    def answers(self) -> bool:
        raise NotImplementedError

    def kill(self) -> None:
        """End it and all that it started at once."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it as its administrator would."""
        self._end(self.ends_with)

    def _end(self, how: signal.Signals) -> None:
        if self.process is None:
            return
        with contextlib.suppress(psutil.NoSuchProcess):  # sshd's children leave the process group
            processes = psutil.Process(self.process.pid).children(recursive=True)
            self.process.send_signal(how)
            if how == signal.SIGKILL:
                _kill(processes)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(30)
            _kill(processes)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
        self.process = None


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, 30)


class PostgreSQL(Server):
    """A database of its own with one account, that has a password."""

    ends_with = signal.SIGINT  # without waiting for its clients

    def __init__(self, folder: Path, account: str = "mlflow", password: str = "secret") -> None:
        programs, user = find("initdb", "postgres", "pg_isready"), other_account()
        self.port, self.ready = free_port(), programs["pg_isready"]
        self.url = f"postgresql://{account}:{password}@127.0.0.1:{self.port}/postgres"
        secret = folder / "password"
        secret.write_text(password)
        if user:
            shutil.chown(secret, user)
        made = [programs["initdb"], "-D", folder / "db", "-U", account, "-A", "scram-sha-256", "--pwfile", secret]
        subprocess.run(made, user=user, cwd=folder, check=True, capture_output=True)
        secret.unlink()
        command = [programs["postgres"], "-D", str(folder / "db"), "-p", str(self.port), "-h", "127.0.0.1"]
        super().__init__([*command, "-k", str(folder), "-c", "fsync=off"], folder, os.environ, user)

    def answers(self) -> bool:
        return not subprocess.run([self.ready, "-h", "127.0.0.1", "-p", str(self.port)], capture_output=True).returncode


class SFTP(Server):
    """deploy/sftp.sh; what it stores is in `artifacts`."""

    def __init__(self, folder: Path, secrets: Mapping[str, str]) -> None:
        find("sshd", "ssh-keygen")
        user, self.port, self.artifacts = other_account(), free_port(), folder / "artifacts"
        self.account = user or pwd.getpwuid(os.geteuid()).pw_name
        self.artifacts.mkdir()
        if user:
            shutil.chown(self.artifacts, user)
        environment = {name: secrets[name] for name in ("SFTP_HOST_KEY", "SFTP_CLIENT_PUBLIC_KEY")}
        environment |= {"PATH": os.environ["PATH"], "TMPDIR": str(folder), "SFTP_PORT": str(self.port)}
        shutil.copy(DEPLOY / "sftp.sh", folder)  # the clone may be in a folder that the other account cannot enter
        shutil.copy(DEPLOY / "sshd_config", folder)
        super().__init__([str(folder / "sftp.sh")], folder, environment, user)

    def answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 2) as connection:
            connection.settimeout(2)
            return connection.recv(4) == b"SSH-"
        return False


class MLflow(Server):
    """deploy/server.sh on a database and an SFTP server."""

    def __init__(self, folder: Path, database: PostgreSQL, sftp: SFTP, secrets: Mapping[str, str], **more: str) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("MLFLOW_", "PG"))}
        environment |= {
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "PYTHONPATH": str(installed(folder)),
            **{name: secrets[name] for name in ("POSTGRES_PASSWORD", "SFTP_CLIENT_KEY", "SFTP_HOST_PUBLIC_KEY")},
            "POSTGRES_ADDRESS": f"127.0.0.1:{database.port}",
            "POSTGRES_DB": "postgres",
            "SFTP_ADDRESS": f"127.0.0.1:{sftp.port}",
            "SFTP_USER": sftp.account,
            "SFTP_FOLDER": str(sftp.artifacts),
            "MLFLOW_PORT": str(self.port),
            "MLFLOW_WORKERS": "1",
        }
        super().__init__([str(DEPLOY / "server.sh")], folder, environment | more, None)

    def answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False


def installed(folder: Path) -> Path:
    """The package in deploy/, installed into a folder of its own."""
    site, source = folder / "site", folder / "source"
    if not site.exists():
        shutil.copytree(DEPLOY, source)  # where building leaves its files
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-index", "--no-deps", "--no-build-isolation"]
        subprocess.run([*pip, "--target", str(site), str(source)], check=True, capture_output=True)
    return site


def secrets() -> dict[str, str]:
    """What deploy/secrets.sh writes into an .env."""
    find("ssh-keygen")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / ".env"
        subprocess.run([DEPLOY / "secrets.sh", file], check=True)
        pairs = [line.split("=", 1) for line in file.read_text().splitlines()]
    return {name: value.strip('"') for name, value in pairs}


class Deployment:
    """What compose.yaml starts: `database`, `sftp` and `server`; `uri` is all that a client is told."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.secrets = secrets()
        self.database = PostgreSQL(folder, password=self.secrets["POSTGRES_PASSWORD"])
        self.sftp = SFTP(folder, self.secrets)
        self.server = MLflow(folder, self.database, self.sftp, self.secrets, **environment)
        self.uri = self.server.uri

    def start(self) -> None:
        for server in (self.database, self.sftp, self.server):
            server.start()

    def kill(self) -> None:
        for server in (self.server, self.sftp, self.database):
            server.kill()


@contextmanager
def own_folder() -> Iterator[Path]:
    """A folder that other accounts can enter, which those of pytest are not."""
    with tempfile.TemporaryDirectory(prefix="mtl-") as name:
        folder, user = Path(name), other_account()
        folder.chmod(0o755)
        if user:
            shutil.chown(folder, user)
        yield folder


@contextmanager
def deployed(**environment: str) -> Iterator[Deployment]:
    """The three servers, started; `environment` is the tracking server's. They are killed at the end."""
    with own_folder() as folder:
        deployment = Deployment(folder, **environment)
        try:
            deployment.start()
            yield deployment
        finally:
            deployment.kill()


@pytest.fixture
def deployment() -> Iterator[Deployment]:
    """The servers of deploy/, for one test that may kill them."""
    with deployed() as running:
        yield running


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a PostgreSQL server of our own."""
    with own_folder() as folder:
        server = PostgreSQL(folder)
        try:
            server.start()
            yield server.url
        finally:
            server.kill()


@contextmanager
def mlflow_serving(model: str, uri: str, log: Path) -> Iterator[str]:
    """The URL of a live `mlflow models serve` of a model of the store at `uri`; what it prints goes to `log`."""
    port = free_port()
    command = [sys.executable, "-c", "from mlflow.cli import cli; cli()", "models", "serve", "-m", model]
    environment = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    with log.open("wb") as output:
        server = subprocess.Popen(
            [*command, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)],
            env=os.environ | environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()[-2000:]
            try:
                requests.get(f"{url}/ping", timeout=2)
                break
            except requests.ConnectionError:
                threading.Event().wait(0.2)
        yield url
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait()
