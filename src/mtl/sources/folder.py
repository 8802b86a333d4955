"""A user's own images: a folder or tar archive of `<split>/<class>/<file>`, with the splits `train` and `test`."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mtl.config.params import Data
from mtl.errors import UserError
from mtl.sources import kinds, trees
from mtl.sources.decoding import decode, no_bombs, progress
from mtl.sources.kinds import SUFFIXES
from mtl.sources.loaded import Loaded, class_column
from mtl.tasks.columns import Split
from mtl.tasks.grouping import check_class_count

SPLITS: tuple[Split, ...] = ("train", "test")

Groups = dict[tuple[str, str], list[str]]


def load(data: Data, seed: int) -> Loaded:
    """Load the images in `data.path`: a folder, an archive (.tar, .tar.gz, .tgz), or a folder that holds one of them.

    Images are in the order of their classes' names and their own; the one column is `class`. Raises UserError where
    there is nothing to load, or an image or the layout of the folders is wrong.
    """
    return load_tree(trees.list_files(trees.pick(Path(data.path))), data.size)


def load_tree(tree: trees.Tree, size: int | None) -> Loaded:
    """Load the images of `tree`, resized to size x size; with None they must all be of one size."""
    groups = arrange(tree)
    classes = sorted({name for _, name in groups})
    _check(tree.path, groups, classes)
    # In the order of the names, so that the bytes do not depend on how a disk or an archive orders its files.
    order = {split: [file for name in classes for file in sorted(groups[split, name])] for split in SPLITS}
    images, encoding = decode_all(tree, order, size)
    counts = {split: [len(groups[split, name]) for name in classes] for split in SPLITS}
    columns = {split: class_column(np.repeat(np.arange(len(classes)), counts[split]), classes) for split in SPLITS}
    return Loaded(name_of(tree.path), encoding, images, columns, files=order)


def arrange(tree: trees.Tree) -> Groups:
    """Group the image files by (split, class), including classes without images; print on stderr what was left out.

    There may be one folder above the splits. Raises UserError where images or splits are not where they should be.
    """
    images = [name for name in tree.files if name.lower().endswith(SUFFIXES)]
    if not images:
        raise UserError(
            f"{tree.path}: {kinds.explain_no_images(others(tree), kinds.hidden_images(tree.hidden, SPLITS))}"
        )
    tops = {name.split("/")[0] for name in images if "/" in name}
    lead = f"{tops.pop()}/" if len(tops) == 1 and tops.isdisjoint(SPLITS) else ""
    inside = {name: name.removeprefix(lead).split("/") for name in images}
    present = {split for split, *rest in inside.values() if rest}
    for split in SPLITS:
        if split not in present:
            raise UserError(
                f"{tree.path}: no images in {lead}{split}/<class>/; expected the folders train and test, in small"
                f" letters (found: {', '.join(sorted(present)) or 'none'})"
            )
    folders = [folder.removeprefix(lead).split("/") for folder in tree.folders if folder.startswith(lead)]
    groups: Groups = {(parts[0], parts[1]): [] for parts in folders if len(parts) == 2 and parts[0] in SPLITS}
    for name, parts in inside.items():
        if parts[0] not in SPLITS:
            continue
        if len(parts) != 3:
            raise UserError(f"{tree.path}: {name} is not at {lead}<split>/<class>/<file>; move or remove it")
        groups.setdefault((parts[0], parts[1]), []).append(name)
    _report_left_out(tree, [name for name, parts in inside.items() if parts[0] not in SPLITS])
    return groups


def _check(path: Path, groups: Groups, classes: Sequence[str]) -> None:
    for name in classes:
        for split, other in (SPLITS, SPLITS[::-1]):
            if (split, name) not in groups:
                raise UserError(f"{path}: class {name!r} is in {other} alone; put images of it into {split} too")
            if not groups[split, name]:
                raise UserError(f"{path}: class {name!r} has no images in {split}; add some or remove the class")
        if not name.isprintable():
            raise UserError(f"{path}: class {name!r} has a name that cannot be written as text; rename the folder")
    check_class_count(str(path), classes)


def decode_all(
    tree: trees.Tree, order: Mapping[Split, Sequence[str]], size: int | None
) -> tuple[dict[Split, np.ndarray], str]:
    """Decode file by file straight into the arrays of the splits, so that no image is in memory twice.

    Returns an array uint8 (N, H, W, 3) for each split, and the encoding of all: jpeg, png or mixed.
    """
    positions: dict[str, list[tuple[Split, int]]] = {}  # a table may name an image in two splits
    for split, names in order.items():
        for index, name in enumerate(names):
            positions.setdefault(name, []).append((split, index))
    x: dict[Split, np.ndarray] = {}
    encodings: set[str] = set()
    first, shape = "", (0, 0, 0)
    with no_bombs():
        for name, content in progress(tree.read(positions), len(positions), "decoding"):
            image, encoding = decode(content, f"{tree.path}: {name}", size)
            encodings.add(encoding)
            if not x:
                first, shape = name, image.shape
                x = {split: _empty(tree.path, (len(names), *shape)) for split, names in order.items()}
            if image.shape != shape:
                raise UserError(
                    f"{tree.path}: {first} is {shape[1]}x{shape[0]} pixels and {name}"
                    f" {image.shape[1]}x{image.shape[0]}; make them agree or set data.size, to which all are resized"
                )
            for split, index in positions[name]:
                x[split][index] = image
    return x, encodings.pop() if len(encodings) == 1 else "mixed"


def _empty(path: Path, shape: tuple[int, ...]) -> np.ndarray:
    try:
        return np.empty(shape, np.uint8)
    except MemoryError:
        raise UserError(
            f"{path}: {shape[0]:,} images of {shape[2]}x{shape[1]} pixels do not fit into memory; set data.size"
        ) from None


def name_of(path: Path) -> str:
    """Return the name of the data set, which is that of its archive or folder."""
    name = path.name or path.resolve().name
    return next((name.removesuffix(suffix) for suffix in trees.ARCHIVES if name.endswith(suffix)), name)


def others(tree: trees.Tree) -> list[str]:
    """List the files that are not images by their names, except for a README."""
    return [name for name in tree.files if not name.lower().endswith(SUFFIXES) and not trees.is_readme(name)]


def _report_left_out(tree: trees.Tree, strays: Sequence[str]) -> None:
    kinds.report_left_out(str(tree.path), others(tree), kinds.hidden_images(tree.hidden, SPLITS))
    if strays:
        strayed = f"{len(strays):,} images outside of train/ and test/: {kinds.first_few(strays)}"
        print(f"{tree.path}: left out {strayed}", file=sys.stderr)
