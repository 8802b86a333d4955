"""The client of MLflow's scoring protocol: one image to one server, and what came back."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit, urlunsplit

import numpy as np

from mtl.errors import describe_os_error, one_line

if TYPE_CHECKING:
    import requests

JOINT = "joint"  # the model that answers for all tasks: no task has this name
QUOTED = 200  # characters shown of what a server says


@dataclass(frozen=True)
class Server:
    """A task, or JOINT for all of them, the address that takes the POST, and the bearer token that it asks for."""

    task: str
    url: str
    token: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """As it is shown: without user and password."""
        parts = urlsplit(self.url)
        return f"{self.task} at {urlunsplit(parts._replace(netloc=parts.netloc.rpartition('@')[2]))}"


@dataclass(frozen=True)
class Answer:
    """The label and its probability per task, or what is wrong; `status` is None where no answer came at all."""

    seconds: float
    status: int | None = None
    predicted: Mapping[str, tuple[str, float]] = field(default_factory=dict)
    error: str = ""


def session(retries: int, timeout: float) -> requests.Session:
    """A client that tries again what no model has answered yet: refused connections and gateways' errors.

    An answer that does not come within the timeout is not asked for twice. `timeout` (seconds) also bounds how long
    a server's Retry-After can hold us.
    """
    import requests
    from requests.adapters import HTTPAdapter
    from urllib3.util import Retry

    again = Retry(
        total=retries,
        read=False,
        status_forcelist=(502, 503, 504),
        allowed_methods=None,
        backoff_factor=0.2,
        raise_on_status=False,
        retry_after_max=math.ceil(timeout),
    )
    made = requests.Session()
    for scheme in ("http://", "https://"):
        made.mount(scheme, HTTPAdapter(max_retries=again))
    return made


def ask(
    session: requests.Session, server: Server, image: np.ndarray, timeout: float, classes: Mapping[str, Sequence[str]]
) -> Answer:
    """Ask one server about one image.

    Args:
        session: what `session` made.
        server: whom to ask.
        image: uint8 (H, W, C).
        timeout: seconds until the connection, and until the answer, of each try.
        classes: the names of each task's labels, in label order.
    """
    import requests

    started, status, predicted = time.perf_counter(), None, {}
    body = {"instances": image[None].tolist()}
    headers = {"Authorization": f"Bearer {server.token}"} if server.token else {}
    try:
        # A redirect would be followed with a GET: it is an answer like any other that is not 200.
        response = session.post(server.url, json=body, headers=headers, timeout=timeout, allow_redirects=False)
        status = response.status_code
        error = "" if status == 200 else f"status {status}: {_message(response)}"
        if not error:
            predicted = read(server.task, response.json(), classes)
    except requests.JSONDecodeError:
        error = f"the answer is no JSON: {_text(response)}"
    except requests.Timeout:
        error = f"no answer within {timeout:g} s"
    except requests.RequestException as failure:
        error = f"no answer: {_reason(failure)}"
    except ValueError as failure:
        error = one_line(failure)
    return Answer(time.perf_counter() - started, status, predicted, error)


def read(task: str, answer: Any, classes: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, float]]:
    """Per task the label and its probability in what a server answers about one image.

    Raises ValueError where it is something else, or has not as many probabilities as `task` has classes.
    """
    try:
        (row,) = answer["predictions"]
        if task == JOINT:
            found = {name: (_quote(row[name]), float(row[f"{name}_probability"])) for name in classes if name in row}
        else:
            probabilities = np.asarray(row, dtype=float)
            if probabilities.shape != (len(classes[task]),):
                raise ValueError
            found = {task: (classes[task][probabilities.argmax()], float(probabilities.max()))}
    except (KeyError, TypeError, ValueError):
        found = {}
    if not found or not all(math.isfinite(probability) for _, probability in found.values()):
        wanted = "labels with probabilities" if task == JOINT else f"{len(classes[task])} probabilities"
        raise ValueError(f"not the {wanted} of {task}: {_quote(answer)}")
    return found


def _message(response: requests.Response) -> str:
    """What an error says: `message` of MLflow, `detail` of FastAPI, or the whole body."""
    try:
        content = response.json()
        return _quote(content.get("message") or content.get("detail") or content)
    except (ValueError, AttributeError):
        return _text(response) or response.reason


def _text(response: requests.Response) -> str:
    """The body as text; requests would guess an encoding from the bytes."""
    return _quote(response.content.decode("utf-8", "replace"))


def _quote(said: Any) -> str:
    """A stranger's words in one short line, without characters that a terminal would obey."""
    text = "".join(character for character in " ".join(str(said).split()) if character.isprintable())
    return text if len(text) <= QUOTED else f"{text[:QUOTED]}…"


def _reason(error: BaseException) -> str:
    """What the system said, under the layers of requests and urllib3."""
    while inner := error.__cause__ or error.__context__:
        error = inner
    return describe_os_error(error) if isinstance(error, OSError) else one_line(error)
