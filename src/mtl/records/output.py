"""The folder, here or behind a URI, to which a conversion writes: its files, and what earlier ones left in it."""

from __future__ import annotations

import re

from mtl.data import remote
from mtl.data.shards import MANIFEST
from mtl.errors import UserError, one_line
from mtl.tasks.columns import SPLITS

# Files that a conversion writes beside the manifest.
_WRITTEN = re.compile(rf"(discarded-)?({'|'.join(SPLITS)})-\d+-of-\d+(?(1)\.csv|\.tfrecord\.gz)")


def refuse_written(folder: str) -> None:
    """Raise UserError where an earlier conversion left files in `folder`."""
    names = _list_written(folder)
    if names and names[0] == MANIFEST:
        raise UserError(f"{folder}: shards are there already; give another OUTPUT, or --force to replace them")
    if names:
        raise UserError(
            f"{folder}: {names[0]} is there without {MANIFEST}, of a conversion that failed or of another"
            " program; give another OUTPUT, or --force to replace what is there"
        )


def clear(folder: str) -> None:
    """Remove what earlier conversions left in `folder`, the manifest first, so that no manifest lacks its shards."""
    system, inside = remote.file_system(folder)
    for name in _list_written(folder):
        try:
            system.rm_file(remote.join(inside, name))
        except FileNotFoundError:
            pass
        except Exception as error:  # each file system of fsspec raises its own
            raise UserError(f"{remote.join(folder, name)}: cannot be removed: {one_line(error)}") from error


def _list_written(folder: str) -> list[str]:
    """List the names of the files that earlier conversions left in `folder`, sorted, the manifest first."""
    system, inside = remote.file_system(folder)
    system.invalidate_cache()  # some file systems cache their listings
    try:
        names = {path.rstrip("/").rpartition("/")[2] for path in system.ls(inside, detail=False)}
    except (FileNotFoundError, NotADirectoryError):
        return []
    except Exception as error:  # each file system of fsspec raises its own
        raise UserError(f"{folder}: {one_line(error)}") from error
    return [MANIFEST] * (MANIFEST in names) + sorted(name for name in names if _WRITTEN.fullmatch(name))
