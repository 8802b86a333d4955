"""Calls that log into a run, as data: sent at once, or written down and sent later, by the same code.

A call that is sent twice has the effect of one: a run keeps one of equal metrics, parameters, tags and data sets, files
are replaced, and a model is looked up before it is created.
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

# Codes that only MLflow itself gives, and always will for the same call: no such run; a value that it does not accept.
FINAL = {"RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"}
# Codes about one call that say nothing of later ones. MLflow turns most errors of its database into BAD_REQUEST
# (mlflow/store/db/utils.py), such as that of a database that is read-only after a failover.
TEMPORARY = {"BAD_REQUEST", "NOT_IMPLEMENTED"}


class NoModels(Exception):
    """The server is an MLflow before 3, which has runs but no logged models."""


@dataclass(frozen=True)
class Call:
    """A call to the server.

    Attributes:
        kind: a key of KINDS.
        what: name for messages.
        arguments: JSON; files are in a folder beside it.
        run_id: the run to log into; None for the sender's own.
    """

    kind: str
    what: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    run_id: str | None = None


def perform(client: MlflowClient, run_id: str, call: Call, files: Path) -> None:
    """Send a call of the run `run_id`, with the `files` of its folder. Raises the errors of MLflow's client."""
    KINDS[call.kind](client, call.run_id or run_id, files, **call.arguments)


def refused(error: Exception) -> bool:
    """Tell whether MLflow itself refused a call for good; anything else is worth another try.

    A 404 alone is no such refusal: a proxy sends one while the server behind it is away.
    """
    return isinstance(error, NoModels) or _code(error) in FINAL


def refused_temporarily(error: Exception) -> bool:
    """Tell whether this call alone was refused, for now; other calls are worth a try at once."""
    return _code(error) in TEMPORARY


def _code(error: Exception) -> str | None:
    """MLflow's code for an error; None where it has none, as for a response that is not MLflow's."""
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    if isinstance(error, MlflowException):
        return error.error_code
    try:  # that of an upload
        document = error.response.json() if isinstance(error, HTTPError) else None
    except (ValueError, AttributeError):  # an HTML page; no response
        return None
    return document.get("error_code") if isinstance(document, dict) else None


def flat(tree: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the leaves of a tree with their dotted paths. An empty dict is a leaf."""
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
    """Log metrics (name, value, milliseconds since the epoch, step), parameters and tags."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import INVALID_PARAMETER_VALUE, MlflowException

    entries: list[Metric | Param | RunTag] = [
        *(Metric(escaped(name), value, timestamp, step) for name, value, timestamp, step in metrics),
        *(Param(escaped(name), value) for name, value in (params or {}).items()),
        *(RunTag(escaped(name), value) for name, value in (tags or {}).items()),
    ]
    if failures := _log_batch(client, run_id, entries):
        names = ", ".join(unescaped(entry.key) for entry, _ in failures)
        raise MlflowException(f"{names}: {failures[0][1].message}", INVALID_PARAMETER_VALUE)


def _log_batch(
    client: MlflowClient, run_id: str, entries: Sequence[Metric | Param | RunTag]
) -> list[tuple[Metric | Param | RunTag, MlflowException]]:
    """Log the entries that the server accepts; return the others with its errors. It accepts a request whole or not."""
    from mlflow.entities import Metric, Param, RunTag
    from mlflow.exceptions import MlflowException

    metrics = [entry for entry in entries if isinstance(entry, Metric)]
    params = [entry for entry in entries if isinstance(entry, Param)]
    tags = [entry for entry in entries if isinstance(entry, RunTag)]
    try:
        client.log_batch(run_id, metrics, params, tags, synchronous=True)
    except MlflowException as error:
        if error.error_code != "INVALID_PARAMETER_VALUE":
            raise
        if len(entries) == 1:
            return [(entries[0], error)]
        half = len(entries) // 2
        return [failure for part in (entries[:half], entries[half:]) for failure in _log_batch(client, run_id, part)]
    return []


def _dataset(
    client: MlflowClient,
    run_id: str,
    _: Path,
    context: str,
    name: str,
    digest: str,
    source_type: str,
    source: str,
    **optional: str | None,
) -> None:
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tags = [InputTag("mlflow.data.context", context)]
    client.log_inputs(run_id, [DatasetInput(Dataset(name, digest, source_type, source, **optional), tags)])


def _artifacts(client: MlflowClient, run_id: str, files: Path) -> None:
    client.log_artifacts(run_id, str(files))


def _model(client: MlflowClient, run_id: str, files: Path, name: str, tags: Mapping[str, str]) -> None:
    """Log a model that was saved into `files`, as `log_model` of its flavor does, or complete one that was begun."""
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus, Metric
    from mlflow.models import Model

    run = client.get_run(run_id)
    experiment = run.info.experiment_id
    begun = _find_models(client, experiment, run_id, name)
    if begun and begun[0].status == LoggedModelStatus.READY:
        return
    model = begun[0] if begun else client.create_logged_model(experiment, name, run_id, dict(tags), run.data.params)
    outputs = run.outputs.model_outputs if run.outputs else []
    if model.model_id not in {output.model_id for output in outputs}:
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    history = [row for metric in run.data.metrics for row in client.get_metric_history(run_id, metric)]
    ids: dict[str, Any] = {"run_id": run_id, "model_id": model.model_id}
    client.log_batch(run_id, [Metric(r.key, r.value, r.timestamp, r.step, **ids) for r in history if r.step == 0])
    saved = Model.load(str(files))
    saved.run_id, saved.model_id, saved.model_uuid = run_id, model.model_id, model.model_id
    saved.artifact_path = model.artifact_location
    client.log_model_artifacts(model.model_id, str(files))
    with tempfile.TemporaryDirectory() as folder:
        saved.save(str(Path(folder) / "MLmodel"))  # not into `files`: a kill would leave half of it there
        client.log_model_artifact(model.model_id, str(Path(folder) / "MLmodel"))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)


def _find_models(client: MlflowClient, experiment: str, run_id: str, name: str) -> Sequence[LoggedModel]:
    """The models `name` of a run. Raises NoModels where the server has runs but no logged models.

    That is: it answers 404 for models twice, and knows the run in between. A proxy whose server is away would not know
    the run.
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
