"""The folders of a training away from the repository: one for its work, one for its results at the end."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

from mtl import files
from mtl.config import addresses, editing, params
from mtl.data import paths
from mtl.errors import UserError, one_line

WORK = ".work"  # in the output folder, until the training is over: what a killed one goes on from
JOB = Path("job.json")  # in there: what is trained from what


def located(data: str) -> str:
    """The address of the images: an absolute path, or the URI as it is.

    Raises UserError where a path is not there, or a URI has a password in it.
    """
    if fault := addresses.fault(data):
        raise UserError(f"--data: {fault}")
    if data.startswith("file://"):
        data = url2pathname(urlsplit(data).path)
    if "://" in data:
        return data
    if not Path(data).exists():
        raise UserError(f"--data {data}: no such file or folder")
    return str(Path(data).absolute())


@contextmanager
def working(output: Path, job: Mapping[str, Any]) -> Iterator[Path]:
    """Yield the folder in which `job` is done, that of the same job where it was killed; it is kept where it fails.

    Raises UserError where `output` holds the results of a training, or another job that did not end or that runs.
    """
    import filelock

    work = output / WORK
    results = [name for name in (params.PATH, paths.MODELS, paths.METRICS) if (output / name).exists()]
    if results and not _is_of(work, job):  # killed while they were put there, a training has some
        raise UserError(f"{output} holds the results of a run ({results[0]}) already; give another --output")
    work.mkdir(parents=True, exist_ok=True)
    try:
        with filelock.FileLock(work / ".lock", timeout=0):
            if not _is_of(work, job):
                _begin(work, job)
            yield work
    except filelock.Timeout:
        raise UserError(f"another training works in {output}; give another --output") from None
    shutil.rmtree(work)


@contextmanager
def passing() -> Iterator[Path]:
    """Yield a folder that is gone afterwards: of several machines the chief alone keeps something."""
    with tempfile.TemporaryDirectory(prefix="mtl-worker-") as folder:
        yield Path(folder)


def _is_of(work: Path, job: Mapping[str, Any]) -> bool:
    return (work / JOB).exists() and files.read_json(work / JOB) == job


def _begin(work: Path, job: Mapping[str, Any]) -> None:
    """Empty the folder for another job, unless that would lose epochs of one that was killed."""
    if any((work / paths.CHECKPOINTS).glob("*/state.json")):
        raise UserError(
            f"{work.parent} holds another training that did not end (another task, other parameters or data);"
            f" start that one again, give another --output, or remove {work}"
        )
    for entry in work.iterdir():
        if entry.is_dir():
            shutil.rmtree(entry)
    files.write_json(work / JOB, job)


def fetched(uri: str, folder: Path) -> Path:
    """Copy the file or folder behind a URI into `folder`, once; return the copy.

    Raises UserError where fsspec cannot open it.
    """
    import fsspec

    copy = folder / (uri.rstrip("/").rpartition("/")[2] or "images")
    if not copy.exists():
        shutil.rmtree(folder, ignore_errors=True)  # half of a copy
        folder.mkdir(parents=True)
        half = folder / "half"
        print(f"copying {uri}", flush=True)
        try:
            files, path = fsspec.core.url_to_fs(uri)
            files.get(path, str(half), recursive=True)
            half.rename(copy)
        except Exception as error:  # each file system of fsspec raises its own
            raise UserError(f"--data {uri}: cannot be read: {one_line(error)[:300]}") from None
    return copy


def write_params(source: Path, values: Mapping[str, Any], task: str, to: Path) -> None:
    """Write the params file `source` with `values` changed and with `task` alone; its comments stay.

    Trained alone, the task is answered by its own model: it has no other to derive an answer from.
    """

    def change(tree: Any) -> None:
        for path, value in values.items():
            editing.put(tree, path, value)
        for other in [name for name in tree["tasks"] if name != task]:
            del tree["tasks"][other]
        tree["tasks"][task].pop("answer", None)

    editing.rewrite(source, to, change)


def publish(work: Path, output: Path, task: str) -> None:
    """Copy what the training wrote from `work` to `output`; the metrics come last."""
    from mtl.tracking.boards import LOGS  # it needs TensorFlow, which the training has imported

    if (work / LOGS / task).exists():
        shutil.copytree(work / LOGS / task, output / LOGS / task, dirs_exist_ok=True)
    history = paths.PLOTS / f"{task}_history.csv"
    for name in (paths.model_path(task), history, paths.METRICS / f"{task}.json"):
        with files.replacing(output / name) as temporary:
            shutil.copyfile(work / name, temporary)


@contextmanager
def environment(values: Mapping[str, str]) -> Iterator[None]:
    """Set environment variables, and put them back at the end."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
