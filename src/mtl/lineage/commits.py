"""The commit that git has checked out, and changes since."""

from __future__ import annotations

import os
import subprocess

WRITTEN_BY_RUNS = ("dvc.lock", "metrics/", "study/dvc.lock")
WRITTEN_BY_DVC = ".dvc"  # `dvc repro` writes the md5 of changed images into data/external.dvc


def git() -> dict[str, str]:
    """`git_commit` and `git_dirty` of the working directory; empty outside a git repository.

    What a run itself changes (dvc.lock, metrics, data/external.dvc) does not make it dirty, or every run after the
    first stage would be.
    """
    state = _commit_and_changes()
    if state is None:
        return {}
    commit, changed = state
    dirty = any(not path.startswith(WRITTEN_BY_RUNS) and not path.endswith(WRITTEN_BY_DVC) for path in changed)
    return {"git_commit": commit, "git_dirty": str(dirty).lower()}


def uncommitted() -> list[str] | None:
    """The tracked files that differ from the last commit, dvc.lock too; None outside a git repository."""
    state = _commit_and_changes()
    return None if state is None else sorted(set(state[1]))


def _commit_and_changes() -> tuple[str, list[str]] | None:
    try:
        changed = _run_git("status", "--porcelain", "-z", "--no-renames", "--untracked-files=no")
        return _run_git("rev-parse", "HEAD").strip(), [entry[3:] for entry in changed.split("\0") if entry]
    except (OSError, subprocess.CalledProcessError):  # no git, no repository, no commit yet
        return None


def _run_git(*arguments: str) -> str:
    # Otherwise git may write the index, and a kill at that moment leaves a lock file that stops the next `git commit`.
    command = ["git", "--no-optional-locks", *arguments]
    return os.fsdecode(subprocess.run(command, check=True, capture_output=True).stdout)
