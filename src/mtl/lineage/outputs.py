"""Outputs of stages: restoring those that DVC removed, and finding those of stages that no longer exist."""

from __future__ import annotations

from pathlib import Path

from mtl import files


def restore(stage: str) -> bool:
    """Bring the outputs of `stage` in dvc.lock back from DVC's cache, including metrics that git tracks.

    Returns:
        True where all outputs are as dvc.lock says, also where it names none.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo

    try:
        with Repo() as repo:
            outs = [out for out in repo.stage.load_one(name=stage).outs if out.hash_info]
            for out in sorted(outs, key=lambda out: not out.use_cache):
                if not out.use_cache:  # the run cache has it; a file that git tracks must not link into DVC's cache
                    out.use_cache, out.cache.cache_types = True, ["copy"]
                out.checkout(force=True)
    except (DvcException, OSError):
        return False
    return True


def leftovers(prefix: str) -> list[Path]:
    """The files of stages named `prefix`… that are still in dvc.lock, but no longer in dvc.yaml.

    Files that changed since are left out: no such stage wrote them.
    """
    from dvc.exceptions import DvcException
    from dvc.repo import Repo
    from ruamel.yaml import YAML

    try:
        with Repo() as repo:
            declared = {stage.name for stage in repo.stage.load_all()}
    except DvcException:
        return []
    lock = Path("dvc.lock")
    stages = YAML(typ="safe", pure=True).load(lock)["stages"] if lock.exists() else {}
    outs = [
        out
        for name, stage in stages.items()
        if name.startswith(prefix) and name not in declared
        for out in stage.get("outs", ())
    ]
    return [path for out in outs if (path := Path(out["path"])).is_file() and files.md5(path) == out.get("md5")]
