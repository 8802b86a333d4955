"""What stays behind when a training is over: its state, until DVC has recorded what it wrote."""

from __future__ import annotations

from pathlib import Path

from mtl import checkpoint, store


def clear_recorded() -> None:
    """Remove the state of every training whose output the dvc.lock beside it holds by now."""
    import filelock

    for note in store.CHECKPOINTS.glob(f"*/{checkpoint.DONE}"):
        folder = note.parent
        try:
            with filelock.FileLock(folder.with_suffix(".lock"), timeout=0):
                done = checkpoint.finished(folder)
                if done and _is_recorded(done):
                    checkpoint.clear(folder)
        except filelock.Timeout:  # it trains again
            continue


def _is_recorded(done: dict[str, str]) -> bool:
    """Whether DVC knows the output that a training wrote."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        lock = Path(done["lock"])
        stage = YAML(typ="safe", pure=True).load(lock)["stages"][done["stage"]]
        recorded = {(lock.parent / out["path"], out["md5"]) for out in stage["outs"] if "md5" in out}
        return (Path(done["path"]), done["md5"]) in recorded
    except (OSError, YAMLError, LookupError, TypeError, ValueError):  # there is none, or none of DVC's
        return False
