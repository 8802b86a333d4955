"""What DVC and git know of a stage: the md5 of each dependency and output, the commit, the experiment's name."""

from __future__ import annotations

import itertools
import os
import subprocess
from pathlib import Path

from mtl.errors import UserError, one_line

WRITTEN_BY_RUNS = ("dvc.lock", "metrics/", "study/dvc.lock")


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

    What a run itself changes (dvc.lock, metrics) does not make it dirty, or every run after the first stage would be.
    """
    found = _commit_and_changes()
    if found is None:
        return {}
    commit, changed = found
    dirty = any(not path.startswith(WRITTEN_BY_RUNS) for path in changed)
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
