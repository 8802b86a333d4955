"""The MLflow run behind each output in dvc.lock, that run's model, and the registered versions of it.

Runs are found by the md5 of their outputs, which are their tags, so also after DVC restored an output from its cache.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mtl import tracking
from mtl.errors import UserError, one_line
from mtl.repro.planning import refuse_broken_lock
from mtl.tracking import registry

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run


@dataclass(frozen=True)
class Out:
    """An output of a stage as dvc.lock has it."""

    stage: str
    path: str
    md5: str


def outs(rev: str | None = None) -> list[Out]:
    """The outs in dvc.lock, here or at a git revision. Raises UserError where it is missing or cannot be read."""
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo
    from dvc.scm import SCMError
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    where, advice = (f" at {rev}", "give another --rev") if rev else ("", "`dvc repro` writes it")
    try:
        if not rev:
            refuse_broken_lock()
        with Repo(rev=rev) as repo, repo.fs.open(repo.fs.join(repo.root_dir, "dvc.lock"), encoding="utf-8") as file:
            stages = YAML(typ="safe", pure=True).load(file)["stages"]
            declared = {stage.name for stage in repo.stage.load_all(repo.fs.join(repo.root_dir, "dvc.yaml"))}
        # dvc.lock keeps the stages of tasks that were removed.
        entries = [(name, out) for name, stage in stages.items() if name in declared for out in stage.get("outs", ())]
        return [Out(name, out["path"], out["md5"]) for name, out in entries if "md5" in out]
    except NotDvcRepoError as error:
        raise UserError(f"{one_line(error)}; run from the root of the repository") from None
    except (DvcException, SCMError, OSError) as error:
        raise UserError(f"dvc.lock{where} cannot be read: {one_line(error)}; {advice}") from None
    except (YAMLError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"dvc.lock{where} is not what DVC writes ({one_line(error)}); {advice}") from None


def runs_that_made(client: MlflowClient, path: str, md5: str) -> list[Run]:
    """The runs that wrote the out `path` with this md5, the newest first."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return client.search_runs(
        experiments, f"tags.`{tracking.escaped(f'out.{path}')}` = '{md5}'", order_by=["start_time DESC"]
    )


def run_of_version(client: MlflowClient, version: str) -> Run:
    """The run that logged `<name>/<number>` or `<name>@<alias>` of the registry. Raises UserError if there is none."""
    if not re.fullmatch(registry.REFERENCE, version):
        raise UserError(f"{version!r} is no version of a model; give <name>/<number> or <name>@<alias>")
    return client.get_run(registry.resolve(version).run_id)


def model_uri(run: Run) -> str | None:
    """The URI `models:/<id>` of the model that `run` logged, for `mlflow models serve`; None where it logged none."""
    models = run.outputs.model_outputs if run.outputs else []
    return f"models:/{models[-1].model_id}" if models else None


def versions(client: MlflowClient, runs: Sequence[Run]) -> list[str]:
    """The registered versions of the models of `runs`, each with its aliases: `name/3 @champion`."""
    references = []
    for run in runs:
        for version in client.search_model_versions(f"run_id = '{run.info.run_id}'"):
            aliases = client.get_registered_model(version.name).aliases
            names = [f" @{alias}" for alias, number in sorted(aliases.items()) if str(number) == str(version.version)]
            references.append(f"{version.name}/{version.version}{''.join(names)}")
    return references


def describe(client: MlflowClient, run: Run) -> dict[str, Any]:
    """The facts of a run that `mtl runs` shows: experiment, data set, commit, parameters, model."""
    tags, data = run.data.tags, run.inputs.dataset_inputs if run.inputs else []
    return {
        "run": run.info.run_id,
        "experiment": client.get_experiment(run.info.experiment_id).name,
        "dataset": data[0].dataset.name if data else None,
        "dataset_md5": data[0].dataset.digest if data else None,
        "git_commit": tags.get("git_commit"),
        "git_dirty": tags.get("git_dirty") == "true",
        "dvc_experiment": tags.get("DVC_EXP_NAME"),
        "params": dict(run.data.params),
        "model": model_uri(run),
    }


def inputs(run: Run) -> Iterator[tuple[str, str]]:
    """Yield path and md5 of each dependency of `run`, without code."""
    for tag, md5 in sorted(run.data.tags.items()):
        kind, _, path = tracking.unescaped(tag).partition(".")
        if kind == "dep" and not path.startswith("src/"):
            yield path, md5
