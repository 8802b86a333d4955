"""A client of MLflow's scoring protocol: sends one image to one server, and reads the answer."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.errors import describe_os_error, one_line
from mtl.serving.request.servers import JOINT, Server

if TYPE_CHECKING:
    import requests

QUOTED = 200  # characters of a server's text that are shown


@dataclass(frozen=True)
class Answer:
    """The result of one request.

    Attributes:
        seconds: time until the answer, or until the error.
        status: HTTP status; None: no answer came.
        predicted: label and probability of each task; empty after an error.
        error: one line; empty if there is none.
    """

    seconds: float
    status: int | None = None
    predicted: Mapping[str, tuple[str, float]] = field(default_factory=dict)
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
    session: requests.Session, server: Server, image: np.ndarray, timeout: float, classes: Mapping[str, Sequence[str]]
) -> Answer:
    """Ask one server about one image.

    Args:
        session: from `open_session`.
        server: the server to ask.
        image: uint8 (H, W, C).
        timeout: seconds for the connection, and again for the answer, of each try.
        classes: the names of each task's labels, in label order.
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
            predicted = read(server.task, response.json(), classes)
    except requests.JSONDecodeError:
        error = f"the answer is not JSON: {_text(response)}"
    except requests.Timeout:
        error = f"no answer within {timeout:g} s"
    except requests.RequestException as failure:
        error = f"no answer: {_reason(failure)}"
    except ValueError as failure:
        error = one_line(failure)
    return Answer(time.perf_counter() - started, status, predicted, error)


def read(task: str, answer: Any, classes: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, float]]:
    """Read each task's label and its probability from a server's answer about one image.

    Raises ValueError if the answer has another form, or not one probability for each class of `task`.
    """
    try:
        (row,) = answer["predictions"]
        if task == JOINT:
            answered = [name for name in classes if name in row]
            predicted = {name: (_quote(row[name]), float(row[f"{name}_probability"])) for name in answered}
        else:
            probabilities = np.asarray(row, dtype=float)
            if probabilities.shape != (len(classes[task]),):
                raise ValueError
            predicted = {task: (classes[task][int(probabilities.argmax())], float(probabilities.max()))}
    except (KeyError, TypeError, ValueError):
        predicted = {}
    if not predicted or not all(math.isfinite(probability) for _, probability in predicted.values()):
        required = "labels with probabilities" if task == JOINT else f"{len(classes[task])} probabilities"
        raise ValueError(f"not the {required} of {task}: {_quote(answer)}")
    return predicted


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
