"""`mtl request`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from mtl import text
from mtl.config import params
from mtl.data import store
from mtl.serving.request import client, servers


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
    asked = servers.parse(where, tasks, os.environ.get(servers.TOKEN))
    classes = {task: store.read_classes(task)["classes"] for task in tasks}
    pixels = servers.read_test_image(index) if image is None else servers.read_image(image)
    expected = {}
    if index is not None:
        expected = {task: classes[task][store.read_labels(task, "test")[index]] for task in tasks}
    rows, errors = [], []
    with client.session(retries, timeout) as session:
        for server in asked:
            answer = client.ask(session, server, pixels, timeout, classes)
            status = ("-" if answer.status is None else str(answer.status), f"{1000 * answer.seconds:.0f}")
            for task, (name, probability) in answer.predicted.items():
                rows.append((task, expected.get(task, "-"), name, f"{probability:.4f}", *status))
            if answer.error:
                rows.append((server.task, expected.get(server.task, "-"), "-", "-", *status))
                errors.append(f"error: {server}: {answer.error}")
    click.echo(text.aligned(servers.HEADER, rows, servers.HEADER[3:]))
    for line in errors:
        click.echo(line, err=True)
    raise SystemExit(1 if errors else 0)
