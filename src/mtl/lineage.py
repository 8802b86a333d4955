"""What DVC and git know of a stage: the md5 of each dependency and output, the commit, the experiment's name."""

from __future__ import annotations

import os
from pathlib import Path


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
            items = [item for item in getattr(found, kind) if hasattr(item, "get_hash") and item.exists]
            return {item.def_path: value for item in items if (value := item.get_hash().value)}
    except (DvcException, KeyError):
        return {}


def git() -> dict[str, str]:
    """`git_commit` and `git_dirty` of the working directory; empty outside a git repository."""
    from dvc.scm import SCM, NoSCM, SCMError

    try:
        scm = SCM(os.curdir, search_parent_directories=True)
        if isinstance(scm, NoSCM):
            return {}
        return {"git_commit": scm.get_rev(), "git_dirty": str(scm.is_dirty(untracked_files=False)).lower()}
    except SCMError:
        return {}
