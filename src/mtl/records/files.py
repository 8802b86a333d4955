"""Files on this machine or behind a URI, by fsspec."""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, Any

from mtl.data.shards import MANIFEST, SPLITS, is_remote, join
from mtl.errors import UserError, one_line

__all__ = [
    "MANIFEST",
    "absolute",
    "clear",
    "exists",
    "is_remote",
    "join",
    "listing",
    "read",
    "remove",
    "stem",
    "write",
    "written",
]

# What a conversion leaves in its folder beside the manifest.
_WRITTEN = re.compile(rf"(discarded-)?({'|'.join(SPLITS)})-\d+-of-\d+(?(1)\.csv|\.tfrecord\.gz)")


def absolute(path: str) -> str:
    """`path` as a process elsewhere on this machine finds it; a URI as it is."""
    return path if is_remote(path) else str(Path(path).absolute())


def exists(path: str) -> bool:
    """Whether there is a file or folder; raises UserError where that cannot be asked."""
    if not is_remote(path):
        return Path(path).exists()
    system, inside = _system(path)
    try:
        return system.exists(inside)
    except Exception as error:  # each file system of fsspec raises its own
        raise UserError(f"{path}: {one_line(error)}") from error


def read(path: str) -> bytes:
    """The content of a file. Raises what the file system raises, FileNotFoundError where there is none."""
    if not is_remote(path):
        return Path(path).read_bytes()
    system, inside = _system(path)
    return system.cat_file(inside)


def write(path: str) -> IO[bytes]:
    """Open a new file for writing; its folder is made where that is needed."""
    if not is_remote(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return Path(path).open("wb")
    system, inside = _system(path)
    system.makedirs(inside.rpartition("/")[0], exist_ok=True)
    return system.open(inside, "wb")


def remove(folder: str) -> None:
    """Remove a folder with what is in it."""
    system, inside = _system(folder)
    if system.exists(inside):
        system.rm(inside, recursive=True)


def written(folder: str) -> list[str]:
    """The names of what earlier conversions left in `folder`, sorted, the manifest first."""
    system, inside = _system(folder)
    system.invalidate_cache()  # some remember what was there before
    try:
        names = {path.rstrip("/").rpartition("/")[2] for path in system.ls(inside, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # each file system of fsspec raises its own
        raise UserError(f"{folder}: {one_line(error)}") from error
    return [MANIFEST] * (MANIFEST in names) + sorted(name for name in names if _WRITTEN.fullmatch(name))


def clear(folder: str) -> None:
    """Remove what earlier conversions left in `folder`, the manifest first: what is half gone has none."""
    system, inside = _system(folder)
    for name in written(folder):
        try:
            system.rm_file(join(inside, name))
        except FileNotFoundError:
            pass
        except Exception as error:  # each file system of fsspec raises its own
            raise UserError(f"{join(folder, name)}: cannot be removed: {one_line(error)}") from error


def listing(folder: str) -> list[str]:
    """The files below a folder, hidden ones too, as paths in it, sorted."""
    system, inside = _system(folder)
    root = system._strip_protocol(inside) if is_remote(folder) else str(Path(folder).absolute())
    found = [path.removeprefix(root).lstrip("/") for path in system.find(root)]
    return sorted(found)


def stem(path: str) -> str:
    """What a data set in the file or folder `path` is called."""
    name = path.rstrip("/").rpartition("/")[2] or path
    return name.removesuffix(".csv") or "images"


def _system(path: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UserError(f"{path}: {one_line(error)}") from None
