"""Residue: the state of trainings that are over, until DVC has recorded them, and half files of killed ones."""

from __future__ import annotations

from pathlib import Path

from mtl import files
from mtl.data import paths
from mtl.training import checkpoint


def clear() -> None:
    """Remove the state of trainings that DVC has recorded, and half files."""
    for folder in (paths.MODELS, paths.METRICS, paths.PLOTS):
        files.remove_residue(folder)
    _clear_recorded()


def _clear_recorded() -> None:
    """Remove the state of every training whose output the dvc.lock beside it holds by now."""
    import filelock

    for note in paths.CHECKPOINTS.glob(f"*/{checkpoint.DONE}"):
        folder = note.parent
        try:
            with filelock.FileLock(folder.with_suffix(".lock"), timeout=0):
                done = checkpoint.finished(folder)
                if done and _is_recorded(done):
                    checkpoint.clear(folder)
        except filelock.Timeout:  # it trains again
            continue


def _is_recorded(done: dict[str, str]) -> bool:
    """Tell whether DVC knows the output that a training wrote."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        lock = Path(done["lock"])
        stage = YAML(typ="safe", pure=True).load(lock)["stages"][done["stage"]]
        recorded = {(lock.parent / out["path"], out["md5"]) for out in stage["outs"] if "md5" in out}
        return (Path(done["path"]), done["md5"]) in recorded
    except (OSError, YAMLError, LookupError, TypeError, ValueError):  # there is none, or none of DVC's
        return False
