"""`mtl runs`: the MLflow run that made each output in dvc.lock."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from mtl import text, tracking
from mtl.repro import planning
from mtl.tracking import provenance

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run

HEADER = ("out", "md5", "stage", "run", "commit", "experiment", "data set", "model")


@click.command
@click.option("--rev", help="Use the dvc.lock of this git revision.")
@click.option("--json", "as_json", is_flag=True, help="Everything, with the parameters, as JSON.")
@click.option("--tree", metavar="VERSION", help="From <name>/<number> or <name>@<alias> back to the raw images.")
def command(rev: str | None, as_json: bool, tree: str | None) -> None:
    """List for each out in dvc.lock the MLflow run that made it, and the registered versions of its model.

    An out that DVC restored from its run cache leads to the run that once made it.
    """
    if tree and (rev or as_json):
        raise click.UsageError("--tree goes with neither --rev nor --json")
    if not (rev or tree):
        planning.refuse_broken_lock()
    with tracking.client() as client:
        if tree:
            click.echo("\n".join(ancestry(client, tree, provenance.run_of_version(client, tree))))
            return
        rows = [_row(client, out) for out in provenance.outs(rev)]
    click.echo(json.dumps(rows, indent=2) if as_json else table(rows))
    if any("run" not in row for row in rows) and (advice := tracking.pending.advice()):
        click.echo(advice, err=True)


def _row(client: MlflowClient, out: provenance.Out) -> dict[str, Any]:
    row = {"out": out.path, "md5": out.md5, "stage": out.stage}
    made_by = provenance.runs_that_made(client, out.path, out.md5)
    # Earlier runs may have made and registered the same bytes: their versions are versions of this out too.
    if made_by:
        row |= provenance.describe(client, made_by[0]) | {"versions": provenance.versions(client, made_by)}
    return row


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The table of `mtl runs`, and below it the parameters of each run. A + marks a commit with changes on top."""
    cells, parameters = [], {}
    for row in rows:
        if "run" not in row:
            cells.append((row["out"], row["md5"][:8], row["stage"], *"-----"))
            continue
        commit = (row["git_commit"] or "-")[:8] + "+" * row["git_dirty"]
        model = ", ".join(row["versions"]) or row["model"] or "-"
        named = (row["dvc_experiment"] or "-", row["dataset"] or "-", model)
        cells.append((row["out"], row["md5"][:8], row["stage"], row["run"][:8], commit, *named))
        parameters[row["run"]] = (row["experiment"], row["params"])
    lines = [text.aligned(HEADER, cells)]
    for run, (experiment, values) in parameters.items():
        listed = ", ".join(f"{name}={value}" for name, value in sorted(values.items()))
        lines.append(textwrap.fill(f"{run[:8]} {experiment}: {listed}", 120, subsequent_indent="    "))
    return "\n\n".join(lines)


def ancestry(client: MlflowClient, what: str, run: Run | None, depth: int = 0) -> Iterator[str]:
    """Yield a line for `what`, which `run` made, and lines for the run's inputs, back to those that no run made."""
    if run is None:
        yield f"{'  ' * depth}{what}"
        return
    facts = provenance.describe(client, run)
    commit = (facts["git_commit"] or "-")[:8] + "+" * facts["git_dirty"]
    yield f"{'  ' * depth}{what}  <- run {facts['run'][:8]} of {facts['experiment']}, commit {commit}"
    inputs = [
        (path, md5, next(iter(provenance.runs_that_made(client, path, md5)), None))
        for path, md5 in provenance.inputs(run)
    ]
    for path, md5, maker in inputs:
        # Show a folder that several runs wrote as its parts, and one that a single run wrote without them.
        written_in_parts = maker is None and any(other.startswith(f"{path}/") for other, _, _ in inputs)
        part_of_another = any(path.startswith(f"{other}/") and whole for other, _, whole in inputs)
        if not written_in_parts and not part_of_another:
            yield from ancestry(client, f"{path} {md5[:8]}", maker, depth + 1)
