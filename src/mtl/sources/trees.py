"""The files of a folder or of a tar archive, listed and checked before any of them is read."""

from __future__ import annotations

import gzip
import os
import tarfile
import unicodedata
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NoReturn

from mtl.errors import UserError, describe_os_error
from mtl.sources import kinds

ARCHIVES = (".tar", ".tar.gz", ".tgz")

# What an archive may hold, unpacked. Every image ends up in one array in memory, so more than a large machine's memory
# is a bomb or belongs in a folder; a file of 256 MiB is an uncompressed image of as many pixels as Pillow accepts.
MAX_ARCHIVE = 16 << 30
MAX_FILE = 256 << 20

# <leading folder>/<split>/<class>/<file>, and one more to name what is too deep: links may run in circles.
_DEPTH = 5
_JUNK = frozenset({"Thumbs.db", "desktop.ini", "__MACOSX"})
_GZIP = b"\x1f\x8b"


class Names:
    """The names in `where` in Unicode's composed form, each of which stands for one file or folder."""

    def __init__(self, where: str) -> None:
        self.where = where
        self._written: dict[str, str] = {}

    def composed(self, place: PurePosixPath) -> str:
        """The composed form of `place`; raises UserError where another file or folder has it too."""
        name = str(place)
        composed = unicodedata.normalize("NFC", name)
        other = self._written.setdefault(composed, name)
        if other != name:
            raise UserError(
                f"{self.where}: {other!a} and {name!a} are the same name, {composed!r}, written in two ways;"
                " rename or merge one of them"
            )
        return composed


@dataclass(frozen=True)
class Tree:
    """The files below a folder or in an archive, without the hidden ones.

    `files` gives for each path in the tree where it is: a path on the disk, or offset and size in the unpacked archive.
    `folders` are all folders, also the empty ones. Names are in Unicode's composed form: macOS writes `é` as two.
    `hidden` are the hidden ones: files, and folders with a `/` behind them.
    """

    path: Path
    files: dict[str, Path | tuple[int, int]] = field(default_factory=dict)
    folders: set[str] = field(default_factory=set)
    hidden: set[str] = field(default_factory=set)
    names: Names = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "names", Names(str(self.path)))

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Yield (name, content) of the files `names`, an archive's in the order in which they lie in it."""
        wanted = sorted((self.files[name], name) for name in names)
        if not self.path.is_file():
            yield from ((name, _read_file(place)) for place, name in wanted)
            return
        with _open(self.path) as file:
            for (offset, size), name in wanted:
                file.seek(offset)
                yield name, file.read(size)


class _Bounded:
    """A file that refuses to be read further than an honest archive goes, before the memory or the hour is spent."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self.path, self.file, self.tell = path, file, file.tell

    def read(self, size: int) -> bytes:
        if not 0 <= size <= MAX_FILE:
            raise UserError(f"{self.path}: one file in it has {size:,} bytes; up to {MAX_FILE:,} are read")
        return self.file.read(size)

    def seek(self, offset: int) -> None:
        if not 0 <= offset <= MAX_ARCHIVE:
            raise UserError(
                f"{self.path}: unpacks to more than {MAX_ARCHIVE >> 30} GiB; unpack it yourself and use the folder"
            )
        self.file.seek(offset)


def has_content(path: Path) -> bool:
    """Whether `path` is a file, or a folder with anything in it besides hidden files and a README."""
    if not path.is_dir():
        return path.exists()
    return any(not is_junk(entry.name) and not is_readme(entry.name) for entry in path.iterdir())


def is_readme(name: str) -> bool:
    """Whether the file `name` explains the others."""
    return PurePosixPath(name).stem.upper() == "README"


def refuse_unhashed(path: Path) -> None:
    """Raise UserError where DVC does not hash all that would be read of `path`: it does not follow links to folders.

    An empty folder is refused too. In the copy that `dvc exp run --temp` makes it is one that neither git nor DVC has.
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
    """The archive or folder of images that `path` means: itself, or the one archive in it.

    Raises UserError where there is nothing, or more than one thing, to choose from.
    """
    if not path.exists():
        what = "a link to a file that is not there" if path.is_symlink() else "no such file or folder"
        raise UserError(f"{path}: {what}; put your images there or set data.path")
    if not path.is_dir():
        return path
    content = sorted(entry for entry in path.iterdir() if not is_junk(entry.name))
    archives = [entry for entry in content if entry.name.endswith(ARCHIVES)]
    folders = [entry for entry in content if entry.is_dir() and entry not in archives]
    if len(archives) > 1 or (archives and folders):
        names = ", ".join(entry.name for entry in archives + folders)
        raise UserError(f"{path}: holds {names}; leave one archive or one folder of images in it, or set data.path")
    return pick(archives[0]) if archives else path


def list_files(path: Path) -> Tree:
    """List the files of the folder or tar archive `path`, reading an archive once to its end.

    Raises UserError where the archive is truncated, broken, no archive or too large, or has a member that is a link, a
    device or outside of it.
    """
    if path.is_dir():
        return _list_folder(path)
    tree = Tree(path)
    try:
        with _open(path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            while member := archive.next():
                _add_member(tree, member)
                archive.members.clear()  # 60,000 of them are 100 MB
            _check_end(path, file, archive.offset)
    except tarfile.ReadError as error:
        if kind := kinds.of_file(path):
            raise UserError(f"{path}: {kind}, no tar archive; {kinds.advice([path.name])}") from None
        raise UserError(f"{path}: truncated, or no tar archive ({error}); put a whole .tar, .tar.gz there") from None
    except (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError) as error:
        raise UserError(f"{path}: truncated or broken archive ({error}); copy or download it again") from None
    return tree


@contextmanager
def _open(path: Path) -> Iterator[_Bounded]:
    """Open an archive as the plain tar it is or unpacks to."""
    with path.open("rb") as file:
        if file.peek(len(_GZIP))[: len(_GZIP)] != _GZIP:
            yield _Bounded(path, file)
            return
        with gzip.GzipFile(fileobj=file) as unpacked:
            yield _Bounded(path, unpacked)


def _check_end(path: Path, file: _Bounded, offset: int) -> None:
    """A whole archive ends with a block of zeros, then its checksum; `tarfile` stops silently without either."""
    file.seek(offset)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise UserError(f"{path}: truncated or broken archive (no end mark); copy or download it again")
    while file.read(1 << 20):
        file.seek(file.tell())  # past the bound: an error


def _add_member(tree: Tree, member: tarfile.TarInfo) -> None:
    place = PurePosixPath(member.name)
    if place.is_absolute() or ".." in place.parts or member.size < 0:
        raise UserError(f"{tree.path}: refused, its member {member.name!r} is outside of the archive's own folder")
    if not (member.isdir() or member.isfile()) or member.issparse():
        raise UserError(f"{tree.path}: refused, its member {member.name!r} is a link or a device; pack plain files")
    junk = next((number for number, part in enumerate(place.parts, 1) if is_junk(part)), 0)
    if junk:
        is_file = junk == len(place.parts) and member.isfile()
        tree.hidden.add("/".join(place.parts[:junk]) + ("" if is_file else "/"))
        return
    folders = place.parents if member.isfile() else (place, *place.parents)
    tree.folders.update(tree.names.composed(folder) for folder in folders if folder.name)
    if member.isfile():
        tree.files[tree.names.composed(place)] = (member.offset_data, member.size)


def _list_folder(path: Path) -> Tree:
    tree = Tree(path)
    for folder, folders, files in os.walk(path, followlinks=True, onerror=_refuse):
        place = PurePosixPath(Path(folder).relative_to(path))
        tree.hidden.update(f"{place / name}/" for name in folders if is_junk(name))
        tree.hidden.update(str(place / name) for name in files if is_junk(name))
        folders[:] = [name for name in folders if not is_junk(name)] if len(place.parts) < _DEPTH - 1 else []
        tree.folders.update(tree.names.composed(place / name) for name in folders)
        tree.files.update(
            (tree.names.composed(place / name), Path(folder, name)) for name in files if not is_junk(name)
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


def is_junk(name: str) -> bool:
    """Whether a file or folder of this name is hidden, or one that a system leaves behind."""
    return name.startswith(".") or name in _JUNK
