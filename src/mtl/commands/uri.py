"""`mtl uri`: the MLflow URI of a model in dvc.lock."""

from __future__ import annotations

import click

from mtl import tracking
from mtl.config import params
from mtl.data import paths
from mtl.errors import UserError
from mtl.tracking import provenance
from mtl.tracking.registry import JOINT


@click.command
@click.argument("name")
def command(name: str) -> None:
    """Print the MLflow URI of a model in dvc.lock: NAME is a task, or `joint`.

    As in `mlflow models serve --env-manager local -m "$(mtl uri model1)" -p 8001`.
    """
    tasks = params.read().tasks
    if name not in (*tasks, JOINT):
        raise UserError(f"there is no model {name!r}; known: {', '.join((*tasks, JOINT))}")
    path = str(paths.METRICS / "main_evaluate.json" if name == JOINT else paths.model_path(name))
    md5 = {out.path: out.md5 for out in provenance.outs()}.get(path)
    if md5 is None:
        raise UserError(f"dvc.lock has no {path}; `dvc repro` makes it")
    with tracking.client() as client:
        models = filter(None, map(provenance.model_uri, provenance.runs_that_made(client, path, md5)))
        uri = next(models, None)
    if uri is None:
        advice = tracking.pending.advice() or "`dvc repro -f` logs it again"
        raise UserError(f"no MLflow run here logged the model of {path} (md5 {md5}); {advice}")
    click.echo(uri)
