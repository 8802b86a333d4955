"""What DVC and git know of a stage: the md5 of each dependency and output, the commit, the experiment's name."""

from __future__ import annotations

import hashlib
import itertools
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from mtl.errors import UserError, one_line

WRITTEN_BY_RUNS = ("dvc.lock", "metrics/", "study/dvc.lock")
WRITTEN_BY_DVC = ".dvc"  # `dvc repro` writes the md5 of changed images into data/external.dvc


def root() -> Path:
    """The root of the repository: under `dvc exp run --temp`, of the one the experiment was started in.

    For a DVC repository inside another, as study/ is, the root of the outer one. Outside of any, `$DVC_ROOT` or the
    working directory.
    """
    inner = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    return inner.parent if (inner / ".dvc").is_dir() and (inner.parent / ".dvc").is_dir() else inner


def hashes(stage: str, kind: str, pipeline: Path = Path()) -> dict[str, str]:
    """The md5 of each file or folder among the `deps` or `outs` of `stage` that exists, as dvc.lock writes it.

    With a folder comes what other stages write into it or read out of it (`models` is read as a whole, and written
    model by model), so that every input leads to the run that made it. Empty outside a DVC repository, and for a stage
    that the dvc.yaml in the folder `pipeline` does not have.
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
                if (
                    item.hash_name == "md5-dos2unix"
                ):  # what is newly declared of a stage in dvc.lock; it becomes md5 there
                    item.hash_name = "md5"
            infos = {item.def_path: item.get_hash() for item in (*own, *parts) if item.exists}
            return {path: info.value for path, info in infos.items() if info and info.name == "md5"}
    except (DvcException, KeyError):
        return {}


def git() -> dict[str, str]:
    """`git_commit` and `git_dirty` of the working directory; empty outside a git repository.

    What a run itself changes (dvc.lock, metrics, data/external.dvc) does not make it dirty, or every run after the
    first stage would be.
    """
    found = _commit_and_changes()
    if found is None:
        return {}
    commit, changed = found
    dirty = any(not path.startswith(WRITTEN_BY_RUNS) and not path.endswith(WRITTEN_BY_DVC) for path in changed)
    return {"git_commit": commit, "git_dirty": str(dirty).lower()}


def uncommitted() -> list[str] | None:
    """The tracked files that differ from the last commit, dvc.lock too; None outside a git repository."""
    found = _commit_and_changes()
    return None if found is None else sorted(set(found[1]))


def _commit_and_changes() -> tuple[str, list[str]] | None:
    try:
        changed = _ask_git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
        return _ask_git("rev-parse", "HEAD").strip(), [entry[3:] for entry in changed.split("\0") if entry]
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, no commit yet
        return None


def _ask_git(*arguments: str) -> str:
    # Else git may write the index, and a kill at that moment leaves a lock file that stops the next `git commit`.
    command = ["git", "--no-optional-locks", *arguments]
    return os.fsdecode(subprocess.run(command, check=True, capture_output=True).stdout)


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
    """The stages that `dvc status` names: what they declare, or what they wrote, is not what dvc.lock says.

    Raises UserError where DVC cannot say.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return sorted(repo.status())
    except DvcException as error:
        raise UserError(f"dvc status: {one_line(error)}") from None


def restore(stage: str) -> bool:
    """Put the outputs of `stage` in dvc.lock back out of DVC's cache, metrics that git tracks too.

    Returns whether all are as dvc.lock says, as they are where it has none.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            outs = [out for out in repo.stage.load_one(name=stage).outs if out.hash_info]
            for out in sorted(outs, key=lambda out: not out.use_cache):
                if not out.use_cache:  # the run cache has them; a file of git's is no link into DVC's cache
                    out.use_cache, out.cache.cache_types = True, ["copy"]
                out.checkout(force=True)
    except (DvcException, OSError):
        return False
    return True


def leftovers(prefix: str) -> list[Path]:
    """What stages named `prefix`… wrote that are in dvc.lock, but not in dvc.yaml any more.

    Left out is what was written by somebody else since: no such stage has those bytes.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from ruamel.yaml import YAML

    try:
        with Repo() as repo:
            here = {stage.name for stage in repo.stage.load_all()}
    except DvcException:
        return []
    lock = Path("dvc.lock")
    stages = YAML(typ="safe", pure=True).load(lock)["stages"] if lock.exists() else {}
    outs = [
        out
        for name, stage in stages.items()
        if name.startswith(prefix) and name not in here
        for out in stage.get("outs", ())
    ]
    return [path for out in outs if (path := Path(out["path"])).is_file() and _md5(path) == out.get("md5")]


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def loaded_from(data: Mapping[str, object]) -> bool:
    """Whether `load_data` last ran with these values under `data:`, and the images, if here, are the same."""
    from dvc.dependency import ParamsDependency
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            deps = repo.stage.load_one(name="load_data").deps
            recorded = next(dep.hash_info.value for dep in deps if isinstance(dep, ParamsDependency))["data"]
            images = [dep for dep in deps if dep.def_path == data["path"] and dep.exists]
            return data.items() <= recorded.items() and not any(dep.status() for dep in images)
    except (DvcException, KeyError, TypeError):
        return False


def is_current(stage: str) -> bool:
    """Whether `dvc repro --allow-missing` would not run `stage`."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo, repo.lock:
            return not repo.stage.load_one(name=stage).changed(allow_missing=True)
    except DvcException:
        return False


def is_tracked(path: Path) -> bool:
    """Whether git or DVC has `path`, or something in it; outside a DVC repository there is nobody to have it: True."""
    from dvc.exceptions import NotDvcRepoError, OutputNotFoundError
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return bool(repo.scm.is_tracked(str(path)) or repo.find_outs_by_path(str(path), strict=False))
    except OutputNotFoundError:
        return False
    except NotDvcRepoError:
        return True


def is_in_cache(path: Path) -> bool:
    """Whether `path` is an output of DVC's with all that is in it now in the cache, from which it can come back."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            return not any(out.status() for out in repo.find_outs_by_path(str(path)))
    except DvcException:
        return False


def add(path: Path) -> None:
    """Put `path` under DVC, as `dvc add` does. Raises UserError where DVC refuses."""
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            repo.add([str(path)])
    except DvcException as error:
        raise UserError(f"dvc add {path}: {one_line(error)}") from None
