"""/feedback where tasks are of several columns: the truth by task, in part, and what is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from images import encoded

from mtl.serving import application
from mtl.serving.feedback import Feedback
from mtl.serving.gateway import Gateway, Limits
from mtl.serving.loading import Loaded
from mtl.serving.metrics import Metrics
from mtl.tasks.spec import TaskSpec

SHAPE = (4, 4, 3)
Post = Callable[[str, Any], tuple[int, dict]]


def spec(task: str, column: str, groups: dict[str, str]) -> TaskSpec:
    names = tuple(dict.fromkeys(groups.values()))
    shares = (1 / len(names),) * len(names)
    return TaskSpec(name=task, columns=(column,), names=names, groups=groups, frequencies=shares)


GARMENT = spec("garment", "label", {"shirt": "shirt", "coat": "coat"})
WARM = spec("warm", "label", {"shirt": "no", "coat": "yes"})
KIDS = spec("for_kids", "kids", {"false": "false", "true": "true"})


def session(*specs: TaskSpec, ask: Callable[[Post], None]) -> None:
    """Call `ask` with a function that posts to the application around models that always answer their first name."""

    def first(task: TaskSpec) -> Callable[[np.ndarray], np.ndarray]:
        return lambda images: np.tile(np.eye(len(task.names), dtype=np.float32)[0], (len(images), 1))

    def load() -> dict[str, Loaded]:
        return {task.name: Loaded(task, SHAPE, "1", first(task)) for task in specs}

    async def run() -> None:
        gateway = Gateway(load, Limits(), Metrics())
        await gateway.start()
        app = application.build(gateway, Feedback(":memory:"))
        loop = asyncio.get_running_loop()

        async def call(path: str, content: bytes) -> tuple[int, dict]:
            sent: list[dict] = []

            async def receive() -> dict:
                return {"type": "http.request", "body": content, "more_body": False}

            async def send(message: dict) -> None:
                sent.append(message)

            method = "POST" if content else "GET"
            scope = {"type": "http", "http_version": "1.1", "method": method, "path": path, "raw_path": path.encode()}
            scope |= {"query_string": b"", "headers": [], "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2)}
            await app(scope | {"scheme": "http", "asgi": {"version": "3.0"}, "root_path": ""}, receive, send)
            body = b"".join(message.get("body", b"") for message in sent[1:])
            return sent[0]["status"], json.loads(body)

        def post(path: str, content: Any) -> tuple[int, dict]:
            body = content if isinstance(content, bytes) else json.dumps(content).encode()
            return asyncio.run_coroutine_threadsafe(call(path, body), loop).result(30)

        await asyncio.to_thread(ask, post)
        await gateway.close()

    asyncio.run(run())


def identity(post: Post) -> str:
    status, answer = post("/predict", encoded(np.zeros(SHAPE, np.uint8)))
    assert status == 200, answer
    return answer["id"]


def test_the_truth_by_task_is_counted_by_task_and_may_be_partial():
    def ask(post: Post) -> None:
        first, second = identity(post), identity(post)
        status, judged = post("/feedback", {"id": first, "labels": {"for_kids": "true", "garment": "shirt"}})
        assert (status, judged["right"]) == (200, {"for_kids": False, "garment": True})
        _, judged = post("/feedback", {"id": second, "labels": {"for_kids": "false"}})
        assert judged["right"] == {"for_kids": True}
        assert judged["accuracy"] == {"for_kids": 0.5, "garment": 1}
        assert judged["counts"] == {"for_kids": 2, "garment": 1}
        # The rest follows later, and the last word counts.
        _, judged = post("/feedback", {"id": second, "labels": {"garment": "coat", "for_kids": "true"}})
        assert judged["accuracy"] == {"for_kids": 0, "garment": 0.5}
        assert judged["counts"] == {"for_kids": 2, "garment": 2}

    session(GARMENT, KIDS, ask=ask)


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({"labels": {"for_kid": "true"}}, ("for_kid", "garment", "for_kids")),
        ({"labels": {"garment": "hat"}}, ("garment", "hat", "shirt", "coat")),
        ({"labels": {"for_kids": "true", "garment": "hat"}}, ("hat",)),
        ({"labels": {"for_kids": True}}, ("labels",)),
        ({"labels": {}}, ("labels",)),
        ({"labels": "true"}, ("labels",)),
        ({"class": "shirt"}, ("kids", "label", "labels")),
        ({"class": "shirt", "labels": {"garment": "shirt"}}, ("class", "labels")),
        ({}, ("class", "labels")),
    ],
)
def test_what_names_no_truth_is_refused_in_one_line_and_counts_nothing(body, names):
    def ask(post: Post) -> None:
        status, answer = post("/feedback", {"id": identity(post), **body})
        assert status == 400
        assert "\n" not in answer["error"]
        assert all(name in answer["error"] for name in names), answer
        _, judged = post("/feedback", {"id": identity(post), "labels": {"for_kids": "true"}})
        assert judged["counts"] == {"for_kids": 1}

    session(GARMENT, KIDS, ask=ask)


def test_tasks_of_one_column_take_a_class_too():
    def ask(post: Post) -> None:
        assert post("/samples", b"")[1]["classes"] == ["coat", "shirt"]
        _, judged = post("/feedback", {"id": identity(post), "class": "coat"})
        assert judged["right"] == {"garment": False, "warm": False}
        _, judged = post("/feedback", {"id": identity(post), "labels": {"warm": "no"}})
        assert judged["right"] == {"warm": True}
        assert judged["counts"] == {"garment": 1, "warm": 2}
        assert post("/feedback", {"id": identity(post), "class": "hat"})[0] == 400

    session(GARMENT, WARM, ask=ask)


def test_the_page_learns_which_menus_to_show():
    def ask(post: Post) -> None:
        _, offered = post("/samples", b"")
        assert offered["classes"] == []
        names = {task: offered["tasks"][task]["names"] for task in offered["tasks"]}
        assert names == {"garment": ["shirt", "coat"], "for_kids": ["false", "true"]}

    session(GARMENT, KIDS, ask=ask)
