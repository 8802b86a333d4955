"""MLflow: experiments, runs, lineage tags, logged models and the registry. Only this room and `release` know MLflow.

A server that does not answer when a stage starts stops the stage. One that goes away later loses nothing: what it
missed is written down and logged later (`outbox`).
"""

from mtl.tracking.names import escaped, unescaped
from mtl.tracking.outbox import pending
from mtl.tracking.outbox.calls import flat
from mtl.tracking.outbox.identity import identify
from mtl.tracking.run import Run
from mtl.tracking.server import client, prepare_client, uri
from mtl.tracking.stages import no_run, stage_run, study_run, trial_run, used_params

__all__ = [
    "Run",
    "client",
    "escaped",
    "flat",
    "identify",
    "no_run",
    "pending",
    "prepare_client",
    "stage_run",
    "study_run",
    "trial_run",
    "unescaped",
    "uri",
    "used_params",
]
