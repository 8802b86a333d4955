"""The dependencies and outputs of DVC stages: their md5, and whether they are up to date."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from pathlib import Path

from mtl.errors import UserError, one_line


def hashes(stage: str, kind: str, pipeline: Path = Path()) -> dict[str, str]:
    """The md5 of each file or folder among the `deps` or `outs` of `stage` that exists, as dvc.lock writes it.

    With a folder come the parts of it that other stages write or read (`models` is read as a whole, and written model
    by model), so that every input leads to the run that made it. Empty outside a DVC repository, and for a stage that
    the dvc.yaml in the folder `pipeline` does not have.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo(str(pipeline)) as repo:
            own = getattr(repo.stage.load_one(str(pipeline / "dvc.yaml"), stage), kind)
            parts = [
                part
                for part in itertools.chain(repo.index.outs, repo.index.deps)
                if any(part.def_path.startswith(f"{item.def_path}/") for item in own)
            ]
            for item in (*own, *parts):
                if item.hash_name == "md5-dos2unix":  # DVC's name for it until dvc.lock has the item, which says md5
                    item.hash_name = "md5"
            infos = {item.def_path: item.get_hash() for item in (*own, *parts) if item.exists}
            return {path: info.value for path, info in infos.items() if info and info.name == "md5"}
    except (DvcException, KeyError):
        return {}


def locked(stage: str, kind: str) -> dict[str, str]:
    """The md5 of each of the `deps` or `outs` of `stage` that dvc.lock holds, whatever the files are now.

    Empty where dvc.lock or dvc.yaml does not have the stage. Raises UserError outside a DVC repository.
    """
    from dvc.exceptions import DvcException, NotDvcRepoError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            infos = {item.def_path: item.hash_info for item in getattr(repo.stage.load_one(name=stage), kind)}
            return {path: info.value for path, info in infos.items() if info and info.name == "md5"}
    except NotDvcRepoError as error:
        raise UserError(f"{one_line(error)}; run from the root of the repository") from None
    except DvcException:
        return {}


def outdated() -> list[str]:
    """The stages that `dvc status` names: what they declare, or what they wrote, differs from dvc.lock.

    Raises UserError where DVC cannot tell.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return sorted(repo.status())
    except DvcException as error:
        raise UserError(f"dvc status: {one_line(error)}") from None


def is_current(stage: str) -> bool:
    """Tell whether `dvc repro --allow-missing` would skip `stage`."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            return not repo.stage.load_one(name=stage).changed(allow_missing=True)
    except DvcException:
        return False


def loaded_from(data: Mapping[str, object]) -> bool:
    """Tell whether `load_data` last ran with these values under `data:`, and its images, if present, are the same."""
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            deps = repo.stage.load_one(name="load_data").deps
            recorded = next(dep.hash_info.value for dep in deps if isinstance(dep, ParamsDependency))["data"]
            images = [dep for dep in deps if dep.def_path in (data["path"], data.get("shifted")) and dep.exists]
            return data.items() <= recorded.items() and not any(dep.status() for dep in images)
    except (DvcException, KeyError, TypeError):
        return False
