"""What a run is told, as data: sent at once, or written down and sent later, by the same code.

Each kind can be sent twice and is there once: a run keeps one of equal metrics, parameters, tags and data sets, files
are replaced, and a model is looked up before it is made.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl.tracking.names import escaped, unescaped

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

# What MLflow alone says, in its own JSON or out of this process where the store is a file, and always will: the run is
# not there; a value that it does not take.
FINAL = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
# Its answers to one call that say nothing of the next ones. BAD_REQUEST is also what it makes of most errors of its
# database (mlflow/store/db/utils.py), such as one that can only be read after a failover.
FOR_NOW = {"BAD_REQUEST", "NOT_IMPLEMENTED"}


class NoModels(Exception):
    """The server is an MLflow before 3, which knows runs and no logged models."""


@dataclass(frozen=True)
class Call:
    """One thing that a run is told: `kind` is one of KINDS, `arguments` are JSON, files are in a folder beside it.

    `what` names it for people; `run_id` is set where another run is meant than the one that tells it.
    """

    kind: str
    what: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None


def perform(client: MlflowClient, run_id: str, call: Call, files: Path) -> None:
    """Send a call of the run `run_id` to the store; raises what the client raises."""
    KINDS[call.kind](client, call.run_id or run_id, files, **call.arguments)


def refused(error: Exception) -> bool:
    """Whether MLflow itself has answered, and the answer will always be no; anything else is worth another try.

    A 404 alone is no such answer: a proxy gives one while the server behind it is away.
    """
    return isinstance(error, NoModels) or _code(error) in FINAL


def refused_for_now(error: Exception) -> bool:
    """Whether this one call was answered with no, which another day may be yes; others are worth a try at once."""
    return _code(error) in FOR_NOW


def _code(error: Exception) -> str | None:
    """MLflow's code for an error; None where it has none, as in an answer that is not MLflow's."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return error.error_code
    try:  # an upload's
        said = error.response.json() if isinstance(error, HTTPError) else None
    except (ValueError, AttributeError):  # a page; no response
        return None
    return said.get("error_code") if isinstance(said, dict) else None


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The leaves of a tree by their dotted paths."""
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _batch(
    client: MlflowClient,
    run_id: str,
    _: Path,
    metrics: Sequence[tuple[str, float, int, int]] = (),
    params: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> None:
    """Metrics are (name, value, milliseconds since the epoch, step)."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

    everything = [
        *(Metric(escaped(name), *row) for name, *row in metrics),
        *(Param(escaped(name), value) for name, value in (params or {}).items()),
        *(RunTag(escaped(name), value) for name, value in (tags or {}).items()),
    ]
    if refused := _log_batch(client, run_id, everything):
        names = ", ".join(unescaped(entry.key) for entry, _ in refused)
        raise MlflowException(f"{names}: {refused[0][1].message}", INVALID_PARAMETER_VALUE)


def _log_batch(
    client: MlflowClient, run_id: str, entries: Sequence[Metric | Param | RunTag]
) -> list[tuple[Metric | Param | RunTag, MlflowException]]:
    """Log what the server takes; the entries that it refuses, and why. It takes all that it is sent at once or none."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    kinds = [[entry for entry in entries if isinstance(entry, kind)] for kind in (Metric, Param, RunTag)]
    try:
        client.log_batch(run_id, *kinds, synchronous=True)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        if len(entries) == 1:
            return [(entries[0], error)]
        half = len(entries) // 2
        return [refused for part in (entries[:half], entries[half:]) for refused in _log_batch(client, run_id, part)]
    return []


def _dataset(client: MlflowClient, run_id: str, _: Path, context: str, **dataset: str | None) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag("mlflow.data.context", context)]
    client.log_inputs(run_id, [DatasetInput(Dataset(**dataset), tags)])


def _artifacts(client: MlflowClient, run_id: str, files: Path) -> None:
    client.log_artifacts(run_id, str(files))


def _model(client: MlflowClient, run_id: str, files: Path, name: str, tags: Mapping[str, str]) -> None:
    """Log a model that was saved into `files` as `log_model` of its flavor does, but take up one that was begun."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.models import Model

    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    begun = _begun(client, experiment, run_id, name)
    if begun and begun[0].status == LoggedModelStatus.READY:
        return
    made = begun[0] if begun else client.create_logged_model(experiment, name, run_id, dict(tags), run.data.params)
    if made.model_id not in {output.model_id for output in run.outputs.model_outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(made.model_id, step=0)])
    history = [row for metric in run.data.metrics for row in client.get_metric_history(run_id, metric)]
    own = {"run_id": run_id, "model_id": made.model_id}
    client.log_batch(run_id, [Metric(r.key, r.value, r.timestamp, r.step, **own) for r in history if r.step == 0])
    saved = Model.load(str(files))
    saved.run_id, saved.model_id, saved.model_uuid = run_id, made.model_id, made.model_id
    saved.artifact_path = made.artifact_location
    client.log_model_artifacts(made.model_id, str(files))
    with tempfile.TemporaryDirectory() as folder:
        saved.save(str(Path(folder) / "MLmodel"))  # not into `files`: a kill would leave half of it there
        client.log_model_artifact(made.model_id, str(Path(folder) / "MLmodel"))
    client.finalize_logged_model(made.model_id, LoggedModelStatus.READY)


def _begun(client: MlflowClient, experiment: str, run_id: str, name: str) -> Sequence[LoggedModel]:
    """The models `name` of a run. Raises NoModels where the server knows its run, and twice no logged models.

    A proxy whose server is away answers with 404 too, but not between two answers of the server.
    """
    from mlflow.exceptions import MlflowException

    def search() -> Sequence[LoggedModel]:
        return client.search_logged_models([experiment], f"source_run_id = '{run_id}' and name = '{name}'")

    try:
        return search()
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":
            raise
    client.get_run(run_id)
    try:
        return search()
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":
            raise
        raise NoModels(str(error)) from None


def _end(client: MlflowClient, run_id: str, _: Path, status: str, end_time: int) -> None:
    client.set_terminated(run_id, status, end_time)


KINDS: dict[str, Callable[..., None]] = {
    "batch": _batch,
    "dataset": _dataset,
    "artifacts": _artifacts,
    "model": _model,
    "end": _end,
}
