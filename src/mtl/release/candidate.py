"""The models of the current dvc.lock, as MLflow has them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mtl import files, lineage
from mtl.config import params
from mtl.data import paths
from mtl.errors import UserError
from mtl.tracking import artifacts, bundles, registry
from mtl.tracking.bundles import Bundle
from mtl.tracking.outbox import pending

STAGE = "main_evaluate"


@dataclass(frozen=True)
class Part:
    """A model to be registered: its registered name, the logged model, and its contents (path in dvc.lock -> md5)."""

    name: str
    model: registry.LoggedModel
    contents: dict[str, str]


@dataclass(frozen=True)
class Candidate:
    """The joint model and the tasks' models of the current dvc.lock, and the files of the joint model."""

    joint: Part
    tasks: tuple[Part, ...]
    bundle: Bundle


def check_clean() -> None:
    """Raise UserError where files are not committed, or stages would rerun."""
    changed = lineage.uncommitted()
    if changed is None:
        raise UserError(
            "not in a git repository, so no commit says what is promoted; --allow-dirty promotes all the same"
        )
    if changed:
        raise UserError(f"uncommitted changes ({_some(changed)}); commit them, or --allow-dirty")
    outdated = [stage for stage in lineage.outdated() if stage != "check_params" or _groups_changed()]
    if outdated:
        raise UserError(f"dvc status: {_some(outdated)} changed; run `dvc repro` and commit, or --allow-dirty")


def _groups_changed() -> bool:
    """Tell whether stages would rerun after check_params, which itself reruns after every edit, also of the gate."""
    return not params.ORDER.exists() or files.read_json(params.ORDER) != params.read().group_order()


def check_data() -> None:
    """Raise UserError where the images or labels, on which models are judged, differ from dvc.lock."""
    locked, actual = lineage.locked(STAGE, "deps"), lineage.hashes(STAGE, "deps")
    for path in (str(paths.IMAGES), str(paths.LABELS)):
        if path not in locked:
            raise UserError(f"dvc.lock has no {STAGE} stage; run `dvc repro`")
        if locked[path] != actual.get(path):
            raise UserError(
                f"{path} is not what dvc.lock says; `dvc checkout {path}` brings it back, `dvc repro` renews it"
            )


def find(folder: Path) -> Candidate:
    """Look up the models of dvc.lock in MLflow and download the joint one into `folder`.

    Raises UserError where no run of the store has one of them, or the joint model has other bytes than dvc.lock.
    """
    locked = lineage.locked(STAGE, "deps")
    wanted = {f"dep.{path}": locked[path] for path in ("models", str(paths.LABELS)) if path in locked}
    joint = artifacts.logged_model(STAGE, registry.JOINT, wanted) if wanted else None
    if joint is None:
        advice = pending.advice() or f"`dvc repro -f -s {STAGE}` logs it"
        raise UserError(f"no run in MLflow has the joint model of this dvc.lock; {advice}")
    bundle = bundles.fetch(f"models:/{joint.model_id}", folder)
    parts = tuple(_task(task, files.md5(file)) for task, file in bundle.files.items())
    contents = {path: md5 for part in parts for path, md5 in part.contents.items()}
    return Candidate(Part(registry.JOINT, joint, contents), parts, bundle)


def _task(task: str, md5: str) -> Part:
    stage, path, labels = f"train@{task}", str(paths.model_path(task)), str(paths.LABELS / task)
    locked = lineage.locked(stage, "outs") | lineage.locked(stage, "deps")
    if locked.get(path) != md5:
        raise UserError(f"the joint model in MLflow has another {path} than dvc.lock; run `dvc repro`")
    model = artifacts.logged_model(task, "model", {f"out.{path}": md5, f"dep.{labels}": locked[labels]})
    if model is None:
        advice = pending.advice() or f"`dvc repro -f -s {stage}` trains and logs it"
        raise UserError(f"no run in MLflow has the {path} of this dvc.lock; {advice}")
    return Part(task, model, {path: md5, labels: locked[labels]})


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
