"""`mtl request`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import click

from mtl.serving import TOKEN
from mtl.serving.request import comparison


@click.command
@click.argument("addresses", metavar="SERVER...", nargs=-1, required=True)
@click.option("--index", type=click.IntRange(min=0), help="Send this test image of data/raw.")
@click.option("--image", type=click.Path(path_type=Path), help="Send this PNG or JPEG file.")
@click.option(
    "--timeout",
    type=click.FloatRange(min=0, min_open=True),
    default=30,
    show_default=True,
    metavar="SECONDS",
    help="For each try; also the longest Retry-After that is waited for.",
)
@click.option("--retries", type=click.IntRange(min=0), default=3, show_default=True, help="Tries after the first.")
def command(addresses: Sequence[str], index: int | None, image: Path | None, timeout: float, retries: int) -> None:
    """Ask running models about one image, and compare their answers with the label.

    SERVER is <task>=<url> or joint=<url> of an `mlflow models serve`, or the <url> of a gateway, which is asked for
    every task at <url>/<task>/invocations, with MTL_SERVE_TOKEN as bearer token if that is set. Refused connections,
    the statuses 502, 503 and 504 and answers with Retry-After are tried again. The exit status is 1 if a server gives
    no answer, or an error.
    """
    if index is not None and image is None:
        source: int | Path = index
    elif image is not None and index is None:
        source = image
    else:
        raise click.UsageError("give one of --index and --image")
    table, errors = comparison.compare(addresses, source, os.environ.get(TOKEN), retries, timeout)
    click.echo(table)
    for line in errors:
        click.echo(line, err=True)
    raise SystemExit(1 if errors else 0)
