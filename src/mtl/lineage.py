"""What DVC and git know of a stage: the md5 of each dependency and output, the commit, the experiment's name."""

from __future__ import annotations

import itertools
import os
from pathlib import Path

WRITTEN_BY_RUNS = ("dvc.lock", "metrics/")


def root() -> Path:
    """The root of the repository: under `dvc exp run --temp`, of the one the experiment was started in."""
    return Path(os.environ.get("DVC_ROOT") or Path.cwd())


def hashes(stage: str, kind: str) -> dict[str, str]:
    """The md5 of each file or folder among the `deps` or `outs` of `stage` that exists, as dvc.lock writes it.

    Empty outside a DVC repository, and for a stage that dvc.yaml does not have.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            found = repo.stage.load_one(name=stage)
            infos = {item.def_path: item.get_hash() for item in getattr(found, kind) if item.exists}
            return {path: info.value for path, info in infos.items() if info and info.name == "md5"}
    except (DvcException, KeyError):
        return {}


def git() -> dict[str, str]:
    """`git_commit` and `git_dirty` of the working directory; empty outside a git repository.

    What a run itself changes (dvc.lock, metrics) does not make it dirty, or every run after the first stage would be.
    """
    from dvc.scm import SCM, NoSCM, SCMError

    try:
        scm = SCM(os.curdir, search_parent_directories=True)
        if isinstance(scm, NoSCM):
            return {}
        staged, unstaged, _ = scm.status(untracked_files="no")
        changed = [os.fsdecode(path) for path in itertools.chain(*staged.values(), unstaged)]
        dirty = any(not path.startswith(WRITTEN_BY_RUNS) for path in changed)
        return {"git_commit": scm.get_rev(), "git_dirty": str(dirty).lower()}
    except SCMError:
        return {}
