"""The repository's root, and files that git or DVC tracks."""

from __future__ import annotations

import os
from pathlib import Path

from mtl.errors import UserError, one_line


def root() -> Path:
    """The root of the repository: under `dvc exp run --temp`, of the one the experiment was started in.

    For a DVC repository inside another, as study/ is, the root of the outer one. Outside of any, `$DVC_ROOT` or the
    working directory.
    """
    inner = Path(os.environ.get("DVC_ROOT") or Path.cwd())
    return inner.parent if (inner / ".dvc").is_dir() and (inner.parent / ".dvc").is_dir() else inner


def is_tracked(path: Path) -> bool:
    """Tell whether git or DVC tracks `path` or something in it; True outside a DVC repository, where nothing could."""
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
    """Tell whether `path` is a DVC output whose present content is in the cache, so that it can be restored."""
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
