"""A tracking server that lets in whom it knows: MLflow's accounts, and TLS before it with certificates on both sides."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from pathlib import Path

import mlflow
import pytest
import requests
from conftest import ROOT
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from outages import Door, Tracking, save_model, stage

from mtl import params, tracking
from mtl.errors import UserError
from mtl.registry import promotion
from mtl.tracking import artifacts, registry
from mtl.tracking import server as server_module

ADMIN, ANNA = ("admin", "a-long-password"), ("anna", "another-password")
ACCOUNTS = """[mlflow]
default_permission = EDIT
database_uri = sqlite:///{folder}/accounts.db
admin_username = admin
admin_password = a-long-password
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """With accounts, as deploy/server.sh has them: who is no administrator may write everywhere and delete nothing."""
    pytest.importorskip("flask_wtf")
    folder = tmp_path_factory.mktemp("server")
    (folder / "accounts.ini").write_text(ACCOUNTS.format(folder=folder))
    more = {
        "MLFLOW_AUTH_CONFIG_PATH": str(folder / "accounts.ini"),
        "MLFLOW_FLASK_SERVER_SECRET_KEY": "of-the-sessions",
    }
    running = Tracking(folder, "--app-name", "basic-auth", **more)
    try:
        running.start()
        asked = {"json": dict(zip(("username", "password"), ANNA, strict=True)), "auth": ADMIN, "timeout": 120}
        requests.post(f"{running.uri}/api/2.0/mlflow/users/create", **asked).raise_for_status()
        yield running
    finally:
        running.kill()


@pytest.fixture(autouse=True)
def client(tmp_path, monkeypatch):
    """An empty repository, and patience."""
    (tmp_path / ".dvc").mkdir()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "120")
    monkeypatch.setattr(server_module, "SECONDS", 120)
    yield
    mlflow.set_tracking_uri(None)


def enter(monkeypatch, uri: str, account: tuple[str, str]) -> None:
    """Work on a server as somebody."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", account[0])
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", account[1])
    mlflow.set_tracking_uri(uri)


def test_who_may_write_and_not_delete_promotes_and_goes_back(server, tmp_path, monkeypatch, capsys):
    door = Door(server.port)
    try:
        enter(monkeypatch, door.uri, ADMIN)
        assert stage(save_model(tmp_path)).lost == []
        model = artifacts.logged_model("load_data", "model", {})
        first, second = (registry.register("joint", model, {"models/a.keras": md5}, {}) for md5 in "12")

        enter(monkeypatch, door.uri, ANNA)
        registry.move_champion(first, None)
        registry.move_champion(second, "1")
        promotion.rollback(None)
        assert capsys.readouterr().out.endswith("joint version 1 is @champion again, 2 no more\n")
        assert registry.version("joint", "2").rolled_back
        registry.move_champion(second, "1")  # `mtl promote --again`
        assert registry.champion().number == "2"
        assert not registry.champion().rolled_back
        assert registry.champion().tags[registry.PREVIOUS] == "1"

        def another_is_first(request: str) -> None:
            if "model-versions/create" in request:
                version = {"name": "joint", "source": f"models:/{model.model_id}", "tags": [THIRD]}
                made = f"{server.uri}/api/2.0/mlflow/model-versions/create"
                requests.post(made, json=version, auth=ADMIN, timeout=120).raise_for_status()

        door.rule = another_is_first
        third = registry.register("joint", model, {THIRD["key"]: THIRD["value"]}, {})
        assert third.number == "3"
        assert any(request.startswith("DELETE ") for request in door.seen)
        assert [version.number for version in registry.versions("joint")] == ["1", "2", "3", "4"]  # 4 is refused to go
        assert registry.register("joint", model, {THIRD["key"]: THIRD["value"]}, {}) == third
    finally:
        door.close()


THIRD = {"key": "models/a.keras", "value": "3"}


class Authority:
    """Signs certificates; `file` is its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._key = folder, ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "authority")])
        self.file = folder / "authority.pem"
        own = self._certificate(self._name, self._key, x509.BasicConstraints(ca=True, path_length=None))
        self.file.write_bytes(own)

    def issue(self, name: str) -> Path:
        """A file with a certificate for 127.0.0.1 and its key."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        where = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
        formats = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        file = self.folder / f"{name}.pem"
        file.write_bytes(self._certificate(subject, key, where) + key.private_bytes(*formats))
        return file

    def _certificate(self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, says: x509.ExtensionType) -> bytes:
        now, day = datetime.datetime.now(datetime.UTC), datetime.timedelta(days=1)
        made = x509.CertificateBuilder(self._name, subject, key.public_key(), x509.random_serial_number())
        made = made.not_valid_before(now - day).not_valid_after(now + day).add_extension(says, critical=True)
        return made.sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


@pytest.fixture(scope="module")
def authority(tmp_path_factory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def behind_tls(server, authority, monkeypatch):
    """Start a proxy with TLS before the server, which may ask clients for a certificate; work on it."""
    doors = []

    def start(ask: bool) -> Door:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(authority.issue("server"))
        if ask:
            context.load_verify_locations(authority.file)
            context.verify_mode = ssl.CERT_REQUIRED
        doors.append(Door(server.port, context))
        enter(monkeypatch, doors[0].uri, ANNA)
        return doors[0]

    yield start
    for door in doors:
        door.close()


def refusal() -> str:
    with pytest.raises(UserError) as refused, server_module.answers():
        raise AssertionError("it must not begin")
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_a_server_with_tls_is_asked_by_mlflows_settings(behind_tls, authority, monkeypatch, capsys):
    door = behind_tls(ask=False)
    assert refusal().startswith(f"the MLflow tracking server {door.uri}: its certificate is not trusted: ")
    assert refusal().endswith("; MLFLOW_TRACKING_SERVER_CERT_PATH names a file of those that are")
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", "nowhere.pem")
    assert ": nowhere.pem: no such file; mend or unset MLFLOW_TRACKING_SERVER_CERT_PATH or" in refusal()

    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))
    door.at_first("log-batch", "lost")
    with tracking.stage_run("tls", params.read(ROOT / "params.yaml")) as run:
        run.log_metrics({"a": 1.0})
        door.open()
    assert run.lost == run.pending == []
    assert "logged after all: tags, parameters, metrics, end of the run" in capsys.readouterr().err
    assert mlflow.get_run(run.identity.run_id).data.metrics == {"a": 1.0}

    monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
    assert "'MLFLOW_TRACKING_INSECURE_TLS' and 'MLFLOW_TRACKING_SERVER_CERT_PATH'" in refusal()
    monkeypatch.delenv("MLFLOW_TRACKING_SERVER_CERT_PATH")
    with registry.connection() as client:
        assert client.get_experiment_by_name("tls") is not None


def test_a_server_that_asks_for_a_certificate_is_shown_mlflows(behind_tls, authority, monkeypatch):
    behind_tls(ask=True)
    monkeypatch.setenv("MLFLOW_TRACKING_SERVER_CERT_PATH", str(authority.file))
    assert "it wants a certificate of ours; MLFLOW_TRACKING_CLIENT_CERT_PATH names" in refusal()
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", "nowhere.pem")
    assert ": nowhere.pem: no such file; mend or unset" in refusal()
    monkeypatch.setenv("MLFLOW_TRACKING_CLIENT_CERT_PATH", str(authority.issue("client")))
    with registry.connection() as client:
        assert client.search_experiments()
