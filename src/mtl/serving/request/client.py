"""A client of MLflow's scoring protocol: sends one image to one server, and reads the answer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mtl.errors import describe_os_error, one_line
from mtl.serving.request.servers import JOINT, Server
from mtl.tasks import kinds
from mtl.tasks.spec import TaskSpec

if TYPE_CHECKING:
    import requests

QUOTED = 200  # characters of a server's text that are shown


class Predicted(NamedTuple):
    """An answer in a few words, and where it is one name its probability."""

    text: str
    probability: float | None = None


@dataclass(frozen=True)
class Answer:
    """The result of one request.

    Attributes:
        seconds: time until the answer, or until the error.
        status: HTTP status; None: no answer came.
        predicted: of each task; empty after an error.
        error: one line; empty if there is none.
    """

    seconds: float
    status: int | None = None
    predicted: Mapping[str, Predicted] = field(default_factory=dict)
    error: str = ""


def open_session(retries: int, timeout: float) -> requests.Session:
    """A session that repeats requests which no model has answered: refused connections and gateways' errors.

    A request that times out is not repeated. `timeout` (seconds) also limits the wait that a Retry-After asks for.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    policy = Retry(
        total=retries,
        read=False,
        status_forcelist=(502, 503, 504),
        allowed_methods=None,
        backoff_factor=0.2,
        raise_on_status=False,
        retry_after_max=math.ceil(timeout),
    )
    session = requests.Session()
    for scheme in ("http://", "https://"):
        session.mount(scheme, HTTPAdapter(max_retries=policy))
    return session


def ask(
    session: requests.Session, server: Server, image: np.ndarray, timeout: float, tasks: Mapping[str, TaskSpec]
) -> Answer:
    """Ask one server about one image.

    Args:
        session: from `open_session`.
        server: the server to ask.
        image: uint8 (H, W, C).
        timeout: seconds for the connection, and again for the answer, of each try.
        tasks: what the answers to each task mean.
    """
    import requests

    started, status, predicted = time.perf_counter(), None, {}
    body = {"instances": image[None].tolist()}
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    try:
        # requests would follow a redirect with a GET; it counts as an error, as every status but 200.
        response = session.post(server.url, json=body, headers=headers, timeout=timeout, allow_redirects=False)
        status = response.status_code
        error = "" if status == 200 else f"status {status}: {_message(response)}"
        if not error:
            predicted = read(server.task, response.json(), tasks)
    except requests.JSONDecodeError:
        error = f"the answer is not JSON: {_text(response)}"
    except requests.Timeout:
        error = f"no answer within {timeout:g} s"
    except requests.RequestException as failure:
        error = f"no answer: {_reason(failure)}"
    except ValueError as failure:
        error = one_line(failure)
    return Answer(time.perf_counter() - started, status, predicted, error)


def read(task: str, answer: Any, tasks: Mapping[str, TaskSpec]) -> dict[str, Predicted]:
    """Read each task's answer from a server's about one image.

    Raises ValueError if the answer has another form, or not one finite number for each of the outputs of `task`.
    """
    try:
        (row,) = answer["predictions"]
        if task == JOINT:
            return _of_row(row, tasks)
        outputs = np.asarray(row, dtype=float)
        if outputs.shape != (len(tasks[task].names),) or not np.isfinite(outputs).all():
            raise ValueError
        return {task: shown(tasks[task], outputs)}
    except (KeyError, TypeError, ValueError, OverflowError):
        count = 0 if task == JOINT else len(tasks[task].names)
        required = "answers" if task == JOINT else f"{count} {kinds.find(tasks[task].kind).OUTPUT}"
        raise ValueError(f"not the {required} of {task}: {_quote(answer)}") from None


def shown(task: TaskSpec, outputs: np.ndarray) -> Predicted:
    """What outputs (K,) of the model of `task` answer."""
    kind = kinds.find(task.kind)
    answer = kind.decode(task, outputs[None])[0]
    if "label" in answer:
        return Predicted(answer["label"], answer["probability"])
    return Predicted(kind.caption(task, answer))


def _of_row(row: Mapping[str, Any], tasks: Mapping[str, TaskSpec]) -> dict[str, Predicted]:
    """The answers in a row of the joint model, which has `<task>`, and of one name `<task>_probability`."""
    predicted = {}
    for name in (name for name in tasks if name in row):
        named = shown(tasks[name], np.ones(len(tasks[name].names))).probability is not None
        probability = float(row[f"{name}_probability"]) if named else None
        predicted[name] = Predicted(_of_cell(row[name], tasks[name]), probability)
    if not predicted or not all(math.isfinite(each.probability or 0) for each in predicted.values()):
        raise ValueError
    return predicted


def _of_cell(cell: Any, task: TaskSpec) -> str:
    """The joint model's answer to a task in a few words: it writes several labels as one text, and no unit."""
    if isinstance(cell, int | float):
        return f"{cell:.4g}" + (f" {task.unit}" if task.unit else "")
    if task.kind == "multilabel":
        return ", ".join(_quote(cell).split(task.delimiter or "|")) or "none"
    return _quote(cell)


def _message(response: requests.Response) -> str:
    """The text of an error: `message` of MLflow, `detail` of FastAPI, or the whole body."""
    try:
        content = response.json()
        return _quote(content.get("message") or content.get("detail") or content)
    except (ValueError, AttributeError):
        return _text(response) or response.reason


def _text(response: requests.Response) -> str:
    """The body as text; requests would guess an encoding from the bytes."""
    return _quote(response.content.decode("utf-8", "replace"))


def _quote(value: Any) -> str:
    """Text from a server in one short line, without control characters for the terminal."""
    text = "".join(character for character in " ".join(str(value).split()) if character.isprintable())
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


def _reason(error: BaseException) -> str:
    """The error of the system beneath those of requests and urllib3."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return describe_os_error(error) if isinstance(error, OSError) else one_line(error)
