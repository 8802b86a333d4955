"""What is in deploy/ fits together: secrets, scripts, compose.yaml; and the artifact store on a real SFTP server."""

from __future__ import annotations

import re
import shutil
import stat
import subprocess
from collections.abc import Iterator

import pytest
from mlflow.exceptions import MlflowException
from ruamel.yaml import YAML
from servers import DEPLOY, SFTP, find, own_folder, secrets

COMPOSE = YAML(typ="safe").load(DEPLOY / "compose.yaml")
SCRIPTS = {"sftp": "sftp.sh", "server": "server.sh"}


def needed(script: str) -> list[str]:
    """The variables without which a script ends."""
    return re.findall(r'^: "\$\{(\w+):\?', (DEPLOY / script).read_text(), re.MULTILINE)


def test_all_secrets_are_made_at_once_and_none_is_in_the_repository():
    example = [line for line in (DEPLOY / ".env.example").read_text().splitlines() if line and line[0] != "#"]
    assert [line.partition("=")[2] for line in example] == [""] * len(example)
    made = secrets()
    assert list(made) == [line.partition("=")[0] for line in example]
    assert set(needed("server.sh") + needed("sftp.sh")) == set(made)
    assert made["POSTGRES_PASSWORD"] != secrets()["POSTGRES_PASSWORD"]


def test_secrets_are_for_their_owner_alone_and_made_once(tmp_path):
    """By a shell whose own files are for everybody; a copy of the script, as the file is beside it."""
    find("ssh-keygen")
    script = shutil.copy(DEPLOY / "secrets.sh", tmp_path / "secrets.sh")
    made = subprocess.run(["sh", "-c", "umask 022; exec ./secrets.sh"], cwd=tmp_path, capture_output=True, text=True)
    assert (made.returncode, made.stdout, made.stderr) == (0, "", "")
    (file,) = set(tmp_path.iterdir()) - {script}
    assert file.name == ".env"
    assert stat.filemode(file.stat().st_mode) == "-rw-------"
    before = file.read_bytes()
    again = subprocess.run([script], capture_output=True, text=True)
    assert again.returncode == 1
    assert again.stderr == (
        f"error: {file} is there already; a deployment keeps its secrets: move it away to make others\n"
    )
    assert file.read_bytes() == before
    # As it was called before: nothing secret goes into a file that the caller's shell made.
    file.unlink()
    old = subprocess.run("umask 022; ./secrets.sh > .env", shell=True, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    assert (old.returncode, file.read_bytes()) == (1, b"")
    assert old.stderr.startswith("error: ./.env is there already")


@pytest.mark.parametrize("script", SCRIPTS.values())
def test_without_a_secret_nothing_starts_and_one_line_says_which(script):
    everything = secrets()
    for missing in needed(script):
        environment = {"PATH": "/usr/bin:/bin"} | {name: value for name, value in everything.items() if name != missing}
        failed = subprocess.run([DEPLOY / script], env=environment, capture_output=True, text=True)
        assert failed.returncode != 0
        (line,) = failed.stderr.splitlines()
        assert f"{missing}: not set; deploy/secrets.sh makes" in line
        assert not any(secret in line for secret in everything.values())


def test_compose_starts_these_scripts_with_what_they_read_and_publishes_loopback_alone():
    stages = dict(re.findall(r'AS (\w+)\n(?:.*\n)*?CMD \["/srv/(\S+)"\]', (DEPLOY / "Dockerfile").read_text()))
    assert stages == {"server": "server.sh", "sftp": "sftp.sh"}
    for name, script in SCRIPTS.items():
        service = COMPOSE["services"][name]
        assert service["build"]["target"] == name
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        read = (DEPLOY / script).read_text()
        # MLflow itself reads MLFLOW_SERVER_ALLOWED_HOSTS.
        assert not [key for key in service["environment"] if f"${{{key}" not in read and "ALLOWED_HOSTS" not in key]
        for secret in needed(script):
            assert service["environment"][secret].startswith(f"${{{secret}:?not set; ")
    published = {name: service["ports"] for name, service in COMPOSE["services"].items() if "ports" in service}
    assert published == {"server": ["${MLFLOW_PUBLISH:-127.0.0.1:5000}:5000"]}


def test_images_have_a_version():
    images = re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    images.append(COMPOSE["services"]["database"]["image"])
    assert [image for image in images if not re.search(r":\d+\.\d+", image)] == []


@pytest.fixture(scope="module")
def keys() -> dict[str, str]:
    return secrets()


@pytest.fixture(scope="module")
def sftp(keys) -> Iterator[SFTP]:
    with own_folder() as folder:
        server = SFTP(folder, keys)
        try:
            server.start()
            yield server
        finally:
            server.kill()


@pytest.fixture
def store(sftp, keys, monkeypatch):
    """Makes a store with the keys that are given, else the right ones."""
    monkeypatch.syspath_prepend(DEPLOY)
    from sftp_artifacts import SFTPArtifacts

    def make(**other: str) -> SFTPArtifacts:
        for name, value in (keys | other).items():
            monkeypatch.setenv(name, value)
        return SFTPArtifacts(f"sftp://{sftp.account}@127.0.0.1:{sftp.port}{sftp.artifacts}")

    return make


def test_files_come_back_as_they_went(store, sftp, tmp_path):
    artifacts = store()
    (tmp_path / "up" / "deep").mkdir(parents=True)
    (tmp_path / "up" / "ü b.txt").write_bytes(b"1")
    (tmp_path / "up" / "deep" / "large").write_bytes(bytes(range(256)) * 8192)
    artifacts.log_artifacts(str(tmp_path / "up"), "1/run")
    artifacts.log_artifact(str(tmp_path / "up" / "ü b.txt"), "1/run")  # again: it is replaced
    (sftp.artifacts / "1/run/half.part").write_bytes(b"on its way")
    listed = [(file.path, file.is_dir, file.file_size) for file in artifacts.list_artifacts("1/run")]
    assert listed == [("1/run/deep", True, None), ("1/run/ü b.txt", False, 1)]
    assert artifacts.list_artifacts("1/run/ü b.txt") == []
    assert artifacts.list_artifacts("2") == []
    (tmp_path / "down").mkdir()
    artifacts.download_artifacts("1/run", str(tmp_path / "down"))
    assert (tmp_path / "down/1/run/deep/large").read_bytes() == bytes(range(256)) * 8192
    with pytest.raises(MlflowException) as missing:
        artifacts.download_artifacts("1/run/none", str(tmp_path / "down"))
    assert missing.value.get_http_status_code() == 404
    artifacts.delete_artifacts("1/run/deep")
    artifacts.delete_artifacts("1/run/ü b.txt")
    artifacts.delete_artifacts("1/run/none")
    assert artifacts.list_artifacts("1/run") == []


def test_a_server_that_was_away_needs_no_new_store(store, sftp, tmp_path):
    artifacts = store()
    (tmp_path / "a").write_bytes(b"a")
    artifacts.log_artifact(str(tmp_path / "a"), "3")
    sftp.kill()
    try:
        with pytest.raises(MlflowException, match=f"the SFTP server 127.0.0.1:{sftp.port}: ") as away:
            artifacts.log_artifact(str(tmp_path / "a"), "4")
        assert away.value.get_http_status_code() == 503
    finally:
        sftp.start()
    artifacts.log_artifact(str(tmp_path / "a"), "4")
    assert [file.path for file in artifacts.list_artifacts("4")] == ["4/a"]


@pytest.mark.parametrize("name", ["SFTP_HOST_PUBLIC_KEY", "SFTP_CLIENT_KEY"])
def test_another_host_or_another_client_is_refused(store, name):
    """A server with another host key gets nothing, whatever ~/.ssh/known_hosts holds."""
    artifacts = store(**{name: secrets()[name]})
    with pytest.raises(MlflowException, match=r"the SFTP server 127\.0\.0\.1") as refused:
        artifacts.list_artifacts()
    said = str(refused.value)
    assert ("Host key is not trusted" if "HOST" in name else "Permission denied") in said
    assert "\n" not in said


@pytest.mark.parametrize("value", ["", "x", "bm8ga2V5"])
@pytest.mark.parametrize("name", ["SFTP_HOST_PUBLIC_KEY", "SFTP_CLIENT_KEY"])
def test_what_is_no_key_is_named(store, name, value):
    with pytest.raises(MlflowException, match=f"the tracking server's {name} is not set, or is no such key"):
        store(**{name: value})
