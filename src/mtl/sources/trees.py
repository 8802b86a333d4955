"""The files of a folder or of a tar archive, listed and checked before any of them is read."""

from __future__ import annotations

import gzip
import io
import os
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import NoReturn

from mtl.errors import UserError, describe_os_error
from mtl.sources import kinds

ARCHIVES = (".tar", ".tar.gz", ".tgz")

# Bounds of an unpacked archive. Every image ends up in one array in memory, so an archive larger than a large machine's
# memory is a bomb or belongs in a folder. 256 MiB is an uncompressed image of as many pixels as Pillow accepts.
MAX_ARCHIVE = 16 << 30
MAX_FILE = 256 << 20

# <leading folder>/<split>/<class>/<file>, and one level more to name files that are too deep. Links may form circles.
_DEPTH = 5
_JUNK = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})
_GZIP = b"\x1f\x8b"


class Names:
    """The names in `source` in Unicode's composed form, each of which stands for one file or folder."""

    def __init__(self, source: str) -> None:
        self.source = source
        self._originals: dict[str, str] = {}

    def composed(self, path: PurePosixPath) -> str:
        """Return the composed form of `path`; raises UserError where another file or folder has the same."""
        name = str(path)
        composed = unicodedata.normalize("NFC", name)
        other = self._originals.setdefault(composed, name)
        if other != name:
            raise UserError(
                f"{self.source}: {other!a} and {name!a} are the same name, {composed!r}, written in two ways;"
                " rename or merge one of them"
            )
        return composed


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in an archive, without the hidden ones.

    Names are in Unicode's composed form, as macOS writes `é` as two characters. `paths` holds the files of a folder by
    name, `spans` those of an archive: offset and size in bytes in the unpacked archive. `folders` includes empty ones.
    `hidden` holds the names of hidden files, and of hidden folders with a `/` behind them.
    """

    path: Path
    paths: dict[str, Path] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", Names(str(self.path)))

    @property
    def files(self) -> list[str]:
        """The names of all files."""
        return [*self.paths, *self.spans]

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of the files `names`, those of an archive in the order in which they lie in it."""
        if self.path.is_dir():
            yield from ((name, _read_file(self.paths[name])) for name in sorted(names, key=self.paths.__getitem__))
            return
        with _open(self.path) as file:
            for name in sorted(names, key=self.spans.__getitem__):
                offset, size = self.spans[name]
                file.seek(offset)
                yield name, file.read(size)


class _Bounded(io.BufferedIOBase):
    """A file that refuses to be read beyond the bounds of an archive, before it fills the memory or takes an hour."""

    def __init__(self, path: Path, file: io.BufferedIOBase) -> None:
        self.path, self.file = path, file

    def tell(self) -> int:
        return self.file.tell()

    def read(self, size: int | None = -1, /) -> bytes:
        if size is None or not 0 <= size <= MAX_FILE:
            raise UserError(f"{self.path}: one file in it has {size or 0:,} bytes; up to {MAX_FILE:,} are read")
        return self.file.read(size)

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        if not 0 <= offset <= MAX_ARCHIVE:
            raise UserError(
                f"{self.path}: unpacks to more than {MAX_ARCHIVE >> 30} GiB; unpack it yourself and use the folder"
            )
        return self.file.seek(offset, whence)


def has_content(path: Path) -> bool:
    """Return True if `path` is a file, or a folder that holds more than hidden files and a README."""
    if not path.is_dir():
        return path.exists()
    return any(not is_junk(entry.name) and not is_readme(entry.name) for entry in path.iterdir())


def is_readme(name: str) -> bool:
    """Return True if `name` is the name of a README, of any suffix."""
    return PurePosixPath(name).stem.upper() == "README"


def refuse_unhashed(path: Path) -> None:
    """Raise UserError where DVC would not hash all files of `path`, as it does not follow links to folders.

    An empty folder is refused too: in the copy that `dvc exp run --temp` makes, neither git nor DVC tracks its images.
    """
    if not has_content(path):
        raise UserError(
            f"{path}: there is nothing in it; put your images there (`mtl run` does it with CIFAR-10) and"
            f" `dvc add {path}`, so that experiments in temporary folders have them too, or set data.path to an"
            " absolute path"
        )
    for folder, folders, _ in os.walk(path, onerror=_refuse):
        folders[:] = sorted(name for name in folders if not is_junk(name))
        for link in (Path(folder, name) for name in folders):
            if link.is_symlink():
                raise UserError(
                    f"{link}: a link to a folder, which DVC does not follow: changes of its images would go unnoticed;"
                    f" put the folder itself there (`cp -rL`), or set data.path to an absolute path without such links"
                )


def pick(path: Path) -> Path:
    """Return the archive or folder of images that `path` stands for: itself, or the one archive in it.

    Raises UserError where there is none, or more than one.
    """
    if not path.exists():
        fault = "a link to a file that is not there" if path.is_symlink() else "no such file or folder"
        raise UserError(f"{path}: {fault}; put your images there or set data.path")
    if not path.is_dir():
        return path
    content = sorted(entry for entry in path.iterdir() if not is_junk(entry.name))
    archives = [entry for entry in content if entry.name.endswith(ARCHIVES)]
    folders = [entry for entry in content if entry.is_dir() and entry not in archives]
    if len(archives) > 1 or (archives and folders):
        names = ", ".join(entry.name for entry in archives + folders)
        raise UserError(f"{path}: holds {names}; leave one archive or one folder of images in it, or set data.path")
    return pick(archives[0]) if archives else path


def list_files(path: Path, depth: int = _DEPTH) -> Tree:
    """List the files of the folder, down to `depth` names in a path, or of the tar archive `path`.

    An archive is read once to its end.

    Raises UserError where the archive is truncated, broken, no archive or too large, or where one of its members is a
    link, a device or outside of it.
    """
    if path.is_dir():
        return _list_folder(path, depth)
    tree = Tree(path)
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while member := archive.next():
                _add_member(tree, member)
                # 60,000 members take 100 MB. The stubs lack this attribute.
                archive.members.clear()  # type: ignore[attr-defined]
            _check_end(path, file, archive.offset)
    except tarfile.ReadError as error:
        if kind := kinds.identify_file(path):
            raise UserError(f"{path}: {kind}, no tar archive; {kinds.advise([path.name])}") from None
        raise UserError(f"{path}: truncated, or no tar archive ({error}); put a whole .tar, .tar.gz there") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise UserError(f"{path}: truncated or broken archive ({error}); copy or download it again") from None
    return tree


@contextmanager
def _open(path: Path) -> Iterator[_Bounded]:
    """Open an archive as a plain tar file, unpacked by gzip where it is compressed."""
    with path.open("rb") as file:
        if file.peek(len(_GZIP))[: len(_GZIP)] != _GZIP:
            yield _Bounded(path, file)
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield _Bounded(path, unpacked)


def _check_end(path: Path, file: _Bounded, offset: int) -> None:
    """Raise UserError unless a block of zeros ends the archive, which `tarfile` does not check, and read the rest."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise UserError(f"{path}: truncated or broken archive (no end mark); copy or download it again")
    while file.read(1 << 20):
        file.seek(file.tell())  # raises beyond the bound; gzip checks its own checksum at the end


def _add_member(tree: Tree, member: tarfile.TarInfo) -> None:
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or member.size < 0:
        raise UserError(f"{tree.path}: refused, its member {member.name!r} is outside of the archive's own folder")
    if not (member.isdir() or member.isfile()) or member.issparse():
        raise UserError(f"{tree.path}: refused, its member {member.name!r} is a link or a device; pack plain files")
    if hidden := hidden_part(path, member.isfile()):
        tree.hidden.add(hidden)
        return
    folders = path.parents if member.isfile() else (path, *path.parents)
    tree.folders.update(tree.names.composed(folder) for folder in folders if folder.name)
    if member.isfile():
        tree.spans[tree.names.composed(path)] = (member.offset_data, member.size)


def _list_folder(path: Path, depth: int) -> Tree:
    tree = Tree(path)
    for folder, folders, files in os.walk(path, followlinks=True, onerror=_refuse):
        parent = PurePosixPath(Path(folder).relative_to(path))
        tree.hidden.update(f"{parent / name}/" for name in folders if is_junk(name))
        tree.hidden.update(str(parent / name) for name in files if is_junk(name))
        folders[:] = [name for name in folders if not is_junk(name)] if len(parent.parts) < depth - 1 else []
        tree.folders.update(tree.names.composed(parent / name) for name in folders)
        tree.paths.update(
            (tree.names.composed(parent / name), Path(folder, name)) for name in files if not is_junk(name)
        )
    return tree


def _read_file(path: Path) -> bytes:
    if not path.is_file():
        raise UserError(f"{path}: not a file, or a link to one that is not there; remove it or put it right")
    if path.stat().st_size > MAX_FILE:
        raise UserError(f"{path}: has {path.stat().st_size:,} bytes; up to {MAX_FILE:,} are read")
    return path.read_bytes()


def _refuse(error: OSError) -> NoReturn:
    raise UserError(f"cannot list {describe_os_error(error)}; give access to it") from error


def hidden_part(path: PurePosixPath, is_file: bool) -> str:
    """Return the part of `path` down to its first hidden name, with a `/` behind a folder; empty if none is hidden."""
    for length, name in enumerate(path.parts, 1):
        if is_junk(name):
            suffix = "" if is_file and length == len(path.parts) else "/"
            return "/".join(path.parts[:length]) + suffix
    return ""


def is_junk(name: str) -> bool:
    """Return True if a file or folder of this name is hidden, or left behind by an operating system."""
    return name.startswith(".") or name in _JUNK
