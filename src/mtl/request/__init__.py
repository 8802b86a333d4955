"""`mtl request`: ask running servers about one image, and compare what they say with the label."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click
import numpy as np

from mtl import params, store, tables
from mtl.errors import UserError
from mtl.request import client
from mtl.request.client import JOINT, Server

TOKEN = "MTL_SERVE_TOKEN"  # what `mtl serve` reads it from
HEADER = ("task", "expected", "predicted", "probability", "status", "ms")


@click.command
@click.argument("where", metavar="SERVER...", nargs=-1, required=True)
@click.option("--index", type=click.IntRange(min=0), help="Ask about this test image of data/raw.")
@click.option("--image", type=click.Path(path_type=Path), help="Ask about this PNG or JPEG file.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="Of each try, and the longest wait that a server's Retry-After is granted.",
)
@click.option("--retries", type=click.IntRange(min=0), default=3, show_default=True, help="Tries after the first.")
def command(where: Sequence[str], index: int | None, image: Path | None, timeout: float, retries: int) -> None:
    """Ask running models about one image, and compare with the label.

    SERVER is <task>=<url> or joint=<url> of an `mlflow models serve`, or the <url> of a gateway, which is asked for
    every task at <url>/<task>/invocations, with MTL_SERVE_TOKEN as bearer token where that is set. Refused connections,
    the statuses 502, 503 and 504 and answers with Retry-After are tried again. The exit status is 1 where a server gave
    no answer, or an error.
    """
    if (index is None) == (image is None):
        raise click.UsageError("give one of --index and --image")
    tasks = list(params.read().tasks)
    servers = parse(where, tasks, os.environ.get(TOKEN))
    classes = {task: store.read_classes(task)["classes"] for task in tasks}
    pixels = read_test_image(index) if image is None else read_image(image)
    expected = {}
    if index is not None:
        expected = {task: classes[task][store.read_labels(task, "test")[index]] for task in tasks}
    rows, errors = [], []
    with client.session(retries, timeout) as session:
        for server in servers:
            answer = client.ask(session, server, pixels, timeout, classes)
            status = ("-" if answer.status is None else str(answer.status), f"{1000 * answer.seconds:.0f}")
            for task, (name, probability) in answer.predicted.items():
                rows.append((task, expected.get(task, "-"), name, f"{probability:.4f}", *status))
            if answer.error:
                rows.append((server.task, expected.get(server.task, "-"), "-", "-", *status))
                errors.append(f"error: {server}: {answer.error}")
    click.echo(tables.aligned(HEADER, rows, HEADER[3:]))
    for line in errors:
        click.echo(line, err=True)
    raise SystemExit(1 if errors else 0)


def parse(where: Sequence[str], tasks: Sequence[str], token: str | None = None) -> list[Server]:
    """`<task>=<url>`, `joint=<url>` or a gateway's `<url>` -> the servers to ask, in that order.

    Only a gateway is told `token`, which an `mlflow models serve` does not ask for.
    Raises UserError for a task that is not among `tasks`, and for what is no address.
    """
    servers = []
    for text in where:
        name, equals, url = text.partition("=")
        if not equals or "/" in name:
            servers += [Server(task, _address(text, f"{task}/invocations"), token) for task in tasks]
        elif name in (*tasks, JOINT):
            servers.append(Server(name, _address(url, "invocations")))
        else:
            raise UserError(f"{text}: there is no task {name!r} in {params.PATH}; known: {', '.join((*tasks, JOINT))}")
    return servers


def _address(url: str, path: str) -> str:
    try:
        parts = urlsplit(url)
        valid = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0 and not parts.query
    except ValueError:
        valid = False
    if not valid:
        raise UserError(f"{url!r}: not the address of a server; give one like http://127.0.0.1:8001")
    return f"{url.rstrip('/')}/{path}"


def read_test_image(index: int) -> np.ndarray:
    """Test image `index` of data/raw, uint8 (H, W, 3). Raises UserError where there are not so many."""
    images = store.read_images("test")
    if index >= len(images):
        raise UserError(f"--index {index}: {store.RAW} has {len(images)} test images, 0 to {len(images) - 1}")
    return images[index]


def read_image(path: Path) -> np.ndarray:
    """Decode an image file and resize it to the shape of the data set's images, uint8 (H, W, 3)."""
    from mtl.sources import decoding

    with decoding.no_bombs():
        pixels, _ = decoding.decode(path.read_bytes(), str(path))
    return decoding.fitted(pixels, store.read_dataset().shape)
