"""Which run it is that is told something: one that the server has, or one that is to begin there."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mtl.tracking.outbox import calls
from mtl.tracking.server import experiment_id, shown

if TYPE_CHECKING:
    from mlflow import MlflowClient


@dataclass(frozen=True)
class Identity:
    """Which run it is. `run_id` is None where it could not be begun; then the rest is what to begin it with.

    `uri` is that of its server without the password, `start_time` in milliseconds since the epoch.
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
    """A run of the present store: one that is there (`run_id`), or one that begins now."""
    return Identity(shown(), experiment, run_id, name, dict(tags or {}), time.time_ns() // 1_000_000)


def begin(client: MlflowClient, identity: Identity) -> str:
    """Begin a run on the server; its id."""
    made = client.create_run(
        experiment_id(identity.experiment), identity.start_time, dict(identity.tags), identity.name
    )
    return made.info.run_id


def begun(client: MlflowClient, identity: Identity) -> str:
    """The id of a run that may have been begun before: by a call whose answer was lost, or a log that was killed."""
    return find(client, identity) or begin(client, identity)


def find(client: MlflowClient, identity: Identity) -> str | None:
    """The id of a run by when and with what tags it began."""
    experiment = experiment_id(identity.experiment)
    same_time = client.search_runs([experiment], f"attributes.start_time = {identity.start_time}")
    same = (run.info.run_id for run in same_time if run.data.tags.items() >= identity.tags.items())
    return next(same, None)


def has(client: MlflowClient, run_id: str) -> bool:
    """Whether the store has a run, and not deleted. Raises what the client raises where the server is away."""
    try:
        return client.get_run(run_id).info.lifecycle_stage == "active"
    except Exception as error:
        if calls.refused(error):
            return False
        raise
