"""`mtl serve`."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import click

from mtl.data import paths
from mtl.errors import UserError
from mtl.serving import TOKEN


@click.command("serve")
@click.option(
    "--from", "source", help="models:/NAME@ALIAS, models:/NAME/VERSION or a folder.", default=str(paths.MODELS)
)
@click.option(
    "--import",
    "imports",
    multiple=True,
    metavar="MODULE",
    help="Your own module that registers a network's layers; may be repeated.",
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, type=click.IntRange(0, 65535), help="0: any free one.")
@click.option("--threads", type=click.IntRange(1), help="For one model's computation; all cores but one by default.")
@click.option("--feedback", default="feedback.db", show_default=True, help="File that stores answers for /feedback.")
@click.option(
    "--max-body", default=8.0, show_default=True, type=click.FloatRange(0.001), help="MB of a request's body."
)
@click.option("--max-batch", default=256, show_default=True, type=click.IntRange(1), help="Images in a request.")
@click.option(
    "--queue", default=1024, show_default=True, type=click.IntRange(1), help="Images that may wait for a model."
)
@click.option(
    "--max-connections", default=1000, show_default=True, type=click.IntRange(1), help="Open at the same time."
)
def command(
    source: str,
    imports: tuple[str, ...],
    host: str,
    port: int,
    threads: int | None,
    feedback: str,
    max_body: float,
    max_batch: int,
    queue: int,
    max_connections: int,
) -> None:
    """Serve every task's model on one port.

    Speaks MLflow's scoring protocol (/TASK/invocations), TensorFlow Serving's REST protocol (/v1) and the Open
    Inference Protocol (/v2); / is a page to try it, /docs documents all routes. SIGHUP reloads the models. SIGTERM
    answers open requests and exits. With MTL_SERVE_TOKEN in the environment, clients must send it as a bearer token.
    """
    # No model is loaded yet, so there is nothing to reload; by default, SIGHUP would end the process.
    signal.signal(signal.SIGHUP, lambda *_: None)
    from mtl.data import backend

    backend.import_tensorflow()
    import tensorflow as tf
    import uvloop

    from mtl.networks import catalog
    from mtl.serving import connections, server
    from mtl.serving.gateway import Limits

    for module in imports:
        catalog.import_own(module)
    tf.config.threading.set_intra_op_parallelism_threads(threads or max(1, (os.cpu_count() or 2) - 1))
    limits = Limits(
        body=int(max_body * 1e6),
        batch=max_batch,
        queue=max(queue, max_batch),
        connections=connections.raise_file_limit(max_connections),
    )
    if os.environ.get(TOKEN) == "":
        raise UserError(f"{TOKEN} is empty; give it a value, or unset it to serve without a token")
    uvloop.run(server.serve(source, host, port, Path(feedback), limits, os.environ.get(TOKEN)))
