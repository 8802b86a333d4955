"""The identity of a run: one that the server has, or one that is to begin there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.tracking.outbox import calls
from mtl.tracking.server import experiment_id, public_uri

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Identity:
    """The identity of a run.

    Attributes:
        uri: its server, without the password.
        run_id: None where it could not be begun; the other attributes begin it later.
        start_time: milliseconds since the epoch.
    """

    uri: str
    experiment: str
    run_id: str | None
    name: str | None
    tags: Mapping[str, str]
    start_time: int


def identify(
    experiment: str, run_id: str | None = None, name: str | None = None, tags: Mapping[str, str] | None = None
) -> Identity:
    """The identity of a run of the current store: an existing one (`run_id`), or one that begins now."""
    return Identity(public_uri(), experiment, run_id, name, dict(tags or {}), time.time_ns() // 1_000_000)


def begin(client: MlflowClient, identity: Identity) -> str:
    """Begin a run on the server; return its id."""
    run = client.create_run(experiment_id(identity.experiment), identity.start_time, dict(identity.tags), identity.name)
    return run.info.run_id


def find_or_begin(client: MlflowClient, identity: Identity) -> str:
    """The id of a run that may exist: from a call whose response was lost, or a `mtl log` that was killed."""
    return find(client, identity) or begin(client, identity)


def find(client: MlflowClient, identity: Identity) -> str | None:
    """The id of the run with this start time and these tags; None where there is none."""
    experiment = experiment_id(identity.experiment)
    same_time = client.search_runs([experiment], f"attributes.start_time = {identity.start_time}")
    same = (run.info.run_id for run in same_time if run.data.tags.items() >= identity.tags.items())
    return next(same, None)


def exists(client: MlflowClient, run_id: str) -> bool:
    """Tell whether the store has a run that is not deleted. Raises the client's error where the server is away."""
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except Exception as error:
        if calls.refused(error):
            return False
        raise
