"""TF_CONFIG, and how workers find each other before TensorFlow connects them."""

from __future__ import annotations

import json
import socket
import threading

import pytest

from mtl.config import params
from mtl.errors import UserError
from mtl.training import hardware
from mtl.training.multiworker import cluster, meeting
from mtl.training.multiworker.cluster import Cluster

TWO = {"worker": ["a:1", "b:2"]}


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens at."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


def config(jobs, kind="worker", index=0) -> str:
    return json.dumps({"cluster": jobs, "task": {"type": kind, "index": index}})


BAD = [
    ("", "TF_CONFIG is not set"),
    ("{", "TF_CONFIG is not valid JSON"),
    ("[]", "TF_CONFIG has no 'cluster'"),
    ('{"cluster": {"worker": ["a:1"]}}', "TF_CONFIG has no 'task'"),
    ('{"task": {"type": "worker", "index": 0}}', "TF_CONFIG has no 'cluster'"),
    (config(TWO, index=2), "its own task, worker 2, is not in its cluster; there: worker 0, worker 1"),
    (config(TWO, index=-1), "its own task, worker -1, is not in its cluster"),
    (config(TWO, "chief"), "its own task, chief 0, is not in its cluster"),
    (config(TWO, "evaluator"), "its own task, evaluator 0, is not in its cluster"),
    (config({}), "its own task, worker 0, is not in its cluster; there: none"),
    (config({"worker": ["a:1", "a:1"]}), "an address is there twice"),
    (config({"worker": ["a"]}), "'a' is no address like 'host:2222'"),
    (config({"worker": ["a:0"]}), "'a:0' is no address"),
    (config({"worker": ["::1:2222"]}), "'::1:2222' is no address like 'host:2222' or '[::1]:2222'"),
    (config({"worker": ["[::1:2222"]}), "'[::1:2222' is no address"),
    (config({"worker": ["[a]:2222"]}), "'[a]:2222' is no address"),
    (config({"worker": ["[127.0.0.1]:2222"]}), "'[127.0.0.1]:2222' is no address"),
    (config({"worker": [["a:1"]]}), "is no address"),
    (config({"worker": "a:1"}), "cluster.worker is no list of addresses"),
    (config({"chief": ["a:1", "b:1"]}, "chief"), "2 chiefs; there must be one"),
    (config(TWO | {"ps": ["c:1"]}), "Keras 3 does not support parameter servers"),
]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_a_wrong_tf_config_is_one_line(monkeypatch, text, message):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(UserError) as caught:
        cluster.read()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_chief_is_the_one_that_is_named_or_the_first_worker(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", config(TWO, index=1))
    assert cluster.read() == Cluster(("a:1", "b:2"), 1)
    assert not cluster.read().chief
    monkeypatch.setenv("TF_CONFIG", config(TWO | {"chief": ["c:3"]}, index="0"))
    assert cluster.read() == Cluster(("c:3", "a:1", "b:2"), 1)
    monkeypatch.setenv("TF_CONFIG", config(TWO | {"chief": ["c:3"]}, "chief"))
    assert cluster.read().chief


def test_tf_config_is_not_read_where_it_is_not_asked_for(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{")
    assert cluster.of(params.Hardware(threads=1, strategy="auto")).chief


def meet(addresses: tuple[str, ...], trainings: tuple[str, ...]) -> list[str]:
    """What each worker ends with where all come at once: an error's line, or nothing."""
    said = [""] * len(addresses)

    def come(index: int) -> None:
        try:
            meeting.meet(Cluster(addresses, index), 30, trainings[index])
        except UserError as error:
            said[index] = str(error)

    threads = [threading.Thread(target=come, args=(index,)) for index in range(len(addresses))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("host", ["127.0.0.1", "[::1]"])
def test_workers_that_are_all_there_meet(monkeypatch, host):
    if host == "[::1]" and not has_ipv6():
        pytest.skip("this machine has no IPv6")
    addresses = tuple(f"{host}:{port}" for port in free_ports(3))
    monkeypatch.setenv("TF_CONFIG", config({"worker": list(addresses)}))
    assert cluster.read().workers == addresses
    assert meet(addresses, ("model1",) * 3) == ["", "", ""]
    for port in (address.rpartition(":")[2] for address in addresses):  # their ports are free for TensorFlow
        family = socket.AF_INET6 if host == "[::1]" else socket.AF_INET
        socket.create_server((host.strip("[]"), int(port)), family=family).close()


def test_workers_that_come_for_two_trainings_end_at_once_with_a_line():
    """As after a death: the chief's `dvc repro` passes over model1, which the other begins with."""
    addresses = tuple(f"127.0.0.1:{port}" for port in free_ports(2))
    assert meet(addresses, ("model2", "model1")) == [
        f"worker 1 at {addresses[1]} trains model1, this one, worker 0, model2: start all of them for the same task",
        f"worker 0 at {addresses[0]} trains model2, this one, worker 1, model1: start all of them for the same task",
    ]


def test_a_worker_that_never_comes_is_one_line(monkeypatch):
    mine, other = free_ports(2)
    with socket.create_server(("127.0.0.1", other)):  # something listens there and never answers
        monkeypatch.setattr(meeting, "ANSWER_SECONDS", 0.1)
        with pytest.raises(UserError) as caught:
            meeting.meet(Cluster((f"127.0.0.1:{mine}", f"127.0.0.1:{other}"), 0), seconds=0.5)
    assert str(caught.value) == (
        f"after 0.5 seconds (hardware.wait_seconds) these workers are not there: 127.0.0.1:{other};"
        " start all of them, and see that each reaches the others"
    )


def test_a_port_that_is_taken_is_one_line():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(UserError, match=f"cannot listen at {address}: .*in use"):
            meeting.meet(Cluster((address, "127.0.0.1:1"), 0), seconds=1)


def test_a_lone_worker_waits_for_nobody():
    meeting.meet(Cluster(("127.0.0.1:1",), 0), seconds=1)


def test_what_runs_on_one_machine_says_so():
    with pytest.raises(UserError, match="the study runs on one machine: use auto"):
        hardware.one_machine(params.Hardware(threads=1, strategy="multi_worker"), "the study")
