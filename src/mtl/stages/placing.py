"""The place of the images: where `mtl run` takes CIFAR-10 from, and how it gets into data.path under DVC."""

from __future__ import annotations

import filecmp
import os
import shutil
import stat
from collections.abc import Sequence
from pathlib import Path

import click

from mtl import lineage
from mtl.config import params
from mtl.config.editing import set_param, set_params
from mtl.data import paths, store
from mtl.errors import UserError

EXTERNAL, NO_IMAGES = "data/external", "data/generated"  # values of data.path


def choose_images(settings: params.Params) -> None:
    """Set data.source to what can be had here; a copy in $CIFAR10_PATH, in Keras' cache or downloaded is taken.

    Raises UserError where $CIFAR10_PATH is not there, or the download breaks off.
    """
    folder = Path(settings.data.path)
    if copy := os.environ.get("CIFAR10_PATH"):
        choose_images_from(Path(copy), settings)
    elif settings.data.source == "generated" and not folder.exists():
        set_param("data.path", NO_IMAGES)
    elif settings.data.source == "cifar10":
        from mtl.sources import cifar10, official

        found = cifar10.find_local(settings.data.path)
        if found == folder:
            click.echo(f"images: {folder}")
        elif store.is_loaded() and lineage.is_current("load_data"):
            click.echo(f"images: {paths.RAW}, loaded before; {folder} is not here")
        elif found:
            place_copy(found, folder, official.ARCHIVE)
        elif cifar10.can_download():
            click.echo("images: CIFAR-10 is downloaded (163 MB)")
            place_copy(official.download(folder), folder, official.ARCHIVE)
        else:
            set_params({"data.source": "generated", "data.path": NO_IMAGES})


def choose_images_from(copy: Path, settings: params.Params) -> None:
    """Take CIFAR-10 from `copy`: put it into data.path and set data.source."""
    folder = EXTERNAL if settings.data.path == NO_IMAGES else settings.data.path
    place_copy(copy, Path(folder), copy.resolve().name)
    changes = {"data.source": "cifar10", "data.path": folder}
    if changes != {"data.source": settings.data.source, "data.path": settings.data.path}:
        set_params(changes)


def place_copy(copy: Path, folder: Path, name: str) -> None:
    """Put a copy of the file or folder `copy` into `folder`, in the place of a link or of what DVC's cache has.

    It is no link: DVC protects what it has and follows no link to a folder.

    Raises UserError where `copy` is not there or something else is in the way.
    """
    if not copy.exists():
        raise UserError(f"CIFAR10_PATH: {copy} does not exist; give an archive or a folder")
    copy, target = copy.resolve(), folder / name
    if folder.resolve().is_relative_to(copy):
        raise UserError(f"CIFAR10_PATH: {copy} is {folder} itself or holds it; leave CIFAR10_PATH out")
    folder.mkdir(parents=True, exist_ok=True)
    others = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if not others or not (target in others and not target.is_symlink() and _same(copy, target)):
        _make_room(folder, others)
        temporary = folder / f".{name}.tmp"
        _remove(temporary)
        _copy(copy, temporary)
        temporary.rename(target)
    click.echo(f"images: {target}, a copy of {copy}")
    _track(folder)


def _copy(copy: Path, to: Path) -> None:
    """Copy a file or a folder with what its links lead to, writable for its owner whatever the original is."""
    if not copy.is_dir():
        shutil.copyfile(copy, to)
        return
    shutil.copytree(copy, to, copy_function=shutil.copyfile)
    for folder in (to, *(path for path in to.rglob("*") if path.is_dir())):
        folder.chmod(folder.stat().st_mode | stat.S_IRWXU)


def _same(copy: Path, target: Path) -> bool:
    """Whether two files, or two folders with all that is in them, have the same content."""
    if not copy.is_dir() or not target.is_dir():
        return copy.is_file() and target.is_file() and filecmp.cmp(copy, target)
    names = [sorted(path.relative_to(top) for path in top.rglob("*") if path.is_file()) for top in (copy, target)]
    return names[0] == names[1] and not any(filecmp.cmpfiles(copy, target, map(str, names[0]))[1:])


def _make_room(folder: Path, others: Sequence[Path]) -> None:
    """Remove `others` from `folder`: links, and what DVC brings back. Raises UserError where they are neither."""
    real = [path for path in others if not path.is_symlink()]
    if real and not lineage.is_in_cache(folder):
        raise UserError(f"CIFAR10_PATH: {real[0]} is in the way; move it away, or leave CIFAR10_PATH out to use it")
    for other in others:
        click.echo(f"images: no longer {other}" + (f" -> {other.readlink()}" if other.is_symlink() else ""))
        _remove(other)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _track(folder: Path) -> None:
    """Put `folder` under DVC, unless it or a folder above it is, or it is none of this repository."""
    if not folder.is_absolute() and not lineage.is_tracked(folder):
        lineage.add(folder)
        click.echo(f"images: {folder} is tracked by DVC, in {folder}.dvc")
