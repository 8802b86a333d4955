"""Files in folders of this machine or behind URIs, which fsspec opens.

A path with `://` in it is a URI. Unless a function says otherwise, it raises what the file system raises.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import IO, Any

from mtl.errors import UserError, one_line


def is_remote(path: str) -> bool:
    """Return True if `path` is a URI rather than a path of this machine."""
    return "://" in path


def join(folder: str, name: str) -> str:
    """Return the path or URI of the file `name` in `folder`."""
    return f"{folder.rstrip('/')}/{name}"


def absolute(path: str) -> str:
    """Make a path absolute, so that any process of this machine finds it. A URI is returned as it is."""
    return path if is_remote(path) else str(Path(path).absolute())


def exists(path: str) -> bool:
    """Return True if there is a file or folder; raises UserError where the file system cannot tell."""
    if not is_remote(path):
        return Path(path).exists()
    system, inside = file_system(path)
    try:
        return system.exists(inside)
    except Exception as error:  # each file system of fsspec raises its own
        raise UserError(f"{path}: {one_line(error)}") from error


def read(path: str) -> bytes:
    """Read a file."""
    if not is_remote(path):
        return Path(path).read_bytes()
    system, inside = file_system(path)
    return system.cat_file(inside)


def download(path: str, target: Path) -> None:
    """Copy the file `path` to `target` in small blocks."""
    system, inside = file_system(path)
    with system.open(inside, "rb") as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, 1 << 20)


def write(path: str) -> IO[bytes]:
    """Open a new file for writing. Its folder is created if it is missing."""
    if not is_remote(path):
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        return Path(path).open("wb")
    system, inside = file_system(path)
    system.makedirs(inside.rpartition("/")[0], exist_ok=True)
    return system.open(inside, "wb")


def remove(folder: str) -> None:
    """Remove a folder and its content."""
    system, inside = file_system(folder)
    if system.exists(inside):
        system.rm(inside, recursive=True)


def list_files(folder: str) -> list[str]:
    """List the files below a folder, hidden ones too, sorted, by their paths relative to it."""
    system, inside = file_system(folder)
    root = system._strip_protocol(inside) if is_remote(folder) else str(Path(folder).absolute())
    return sorted(path.removeprefix(root).lstrip("/") for path in system.find(root))


def file_system(path: str) -> tuple[Any, str]:
    """Return fsspec's file system for `path`, and the path in it; raises UserError where fsspec has none."""
    import fsspec

    try:
        return fsspec.core.url_to_fs(path)
    except (ValueError, ImportError) as error:
        raise UserError(f"{path}: {one_line(error)}") from None
