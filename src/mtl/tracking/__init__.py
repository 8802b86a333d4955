"""MLflow: experiments, runs, lineage tags and models. The only room that knows it.

A server that does not answer when a stage starts stops the stage; one that goes away later costs no model.
"""

from mtl.tracking.run import Run, flat
from mtl.tracking.server import client, prepare_client, uri
from mtl.tracking.stages import no_run, stage_run, study_run, trial_run, used_params

__all__ = [
    "Run",
    "client",
    "flat",
    "no_run",
    "prepare_client",
    "stage_run",
    "study_run",
    "trial_run",
    "uri",
    "used_params",
]
