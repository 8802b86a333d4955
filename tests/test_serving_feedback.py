"""/predict answers whatever becomes of the file that remembers its answers."""

from __future__ import annotations

import resource
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from gateways import RED, Client, logged, picture, serving
from images import encoded
from prometheus_client.parser import text_string_to_metric_families

from mtl.serving.feedback import Feedback

PNG = encoded(picture(RED)[0])


def ask(client: Client) -> dict:
    answer = client.post("/predict", data=PNG)
    assert answer.status_code == 200, answer.text
    content = answer.json()
    assert content["answers"]["model1"]["label"] == "cat"
    assert content["stored"] == (content["id"] is not None)
    return content


def metric(client: Client, name: str) -> float:
    families = text_string_to_metric_families(client.get("/metrics").text)
    return next(sample.value for family in families for sample in family.samples if sample.name == name)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    other = sqlite3.connect(path)
    other.execute("BEGIN IMMEDIATE")
    yield
    other.close()


@contextmanager
def full(path: Path) -> Iterator[None]:
    """No file may grow, as on a full disk."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Cut off in the middle of its first page; put right by moving it away."""
    with path.open("r+b") as file:
        file.write(b"not a database")
        file.truncate(100)
    yield
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


@contextmanager
def taken(path: Path) -> Iterator[None]:
    """Its place is that of a folder."""
    path.unlink()
    path.mkdir()
    yield
    path.rmdir()


@contextmanager
def without_a_folder(path: Path) -> Iterator[None]:
    shutil.rmtree(path.parent)
    yield
    path.parent.mkdir()


@pytest.mark.parametrize("fault", [locked, full, damaged, taken, without_a_folder])
def test_an_answer_comes_and_says_that_it_was_not_kept(tmp_path, fault: Callable):
    path = tmp_path / "folder/feedback.db"
    path.parent.mkdir()
    earlier = Feedback(path)
    for _ in range(500):
        earlier.remember({"model1": "dog"})
    earlier.close()
    with (
        serving(feedback=Feedback(path, timeout=0.01, pause=0)) as (client, _, _),
        logged() as lines,
    ):
        before = ask(client)
        assert before["stored"]
        client.post("/feedback", json={"id": before["id"], "class": "cat"})
        with fault(path):
            assert [ask(client)["stored"] for _ in range(20)] == [False] * 20
            assert metric(client, "mtl_feedback_unstored_total") == 20
            assert metric(client, "mtl_feedback_accuracy") == 1
            answer = client.post("/feedback", json={"id": before["id"], "class": "cat"})
            assert (answer.status_code, answer.headers["Retry-After"]) == (503, "1")
            errors = [line for line in lines if "not stored" in line]
            assert len(errors) == 1
            assert str(path) in errors[0]
        after = ask(client)
        assert after["stored"]
        assert "20 were not" in lines[-1]
        assert client.post("/feedback", json={"id": after["id"], "class": "cat"}).json()["right"]["model1"]
        assert metric(client, "mtl_feedback_unstored_total") == 20
    again = Feedback(path)  # what was kept is there for the next process
    assert again.record_truth(after["id"], {"model1": "cat"}) == {"model1": True}
    again.close()


def remove(path: Path) -> None:
    path.unlink()


def empty(path: Path) -> None:
    """Empty the file; rows that SQLite has not written to it yet survive."""
    path.write_bytes(b"")


@pytest.mark.parametrize("begin", [remove, empty])
def test_a_file_that_was_removed_or_emptied_is_begun_anew(tmp_path, begin):
    path = tmp_path / "feedback.db"
    with serving(feedback=path) as (client, _, _), logged() as lines:
        lost = ask(client)["id"]
        begin(path)
        identities = [ask(client)["id"] for _ in range(3)]
        assert None not in identities
        assert len([line for line in lines if str(path) in line]) == 1
        if begin is remove:
            assert client.post("/feedback", json={"id": lost, "class": "cat"}).status_code == 404
    again = Feedback(path)
    assert [again.record_truth(identity, {"model1": "cat"}) for identity in identities] == [{"model1": True}] * 3
    again.close()


def test_nothing_is_tried_for_a_while_after_a_failure(tmp_path):
    path = tmp_path / "feedback.db"
    feedback = Feedback(path, timeout=0.01, pause=3600)
    with locked(path):
        assert feedback.remember({"model1": "cat"}) is None
    assert feedback.remember({"model1": "cat"}) is None
    feedback.close()
