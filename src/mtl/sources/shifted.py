"""The shifted test set: a second one, of another source than the data set, such as another camera."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from mtl.config.params import PATH, SHIFTED, Data
from mtl.errors import UserError
from mtl.sources import cifar10, folder, kinds, official, table, trees
from mtl.sources.loaded import CLASS, Loaded, Shifted, class_column
from mtl.sources.pickles import CLASSES
from mtl.tasks import columns
from mtl.tasks.columns import SPLITS
from mtl.tasks.spec import shorten

TEST = "test"
_SOURCES = ("cifar10", "folder", "table")


def exists(data: Data) -> bool:
    """Tell whether `data.shifted` holds anything but a README.

    Raises UserError where it is no file or folder, or where `data.source` has no shifted test set.
    """
    path = Path(data.shifted)
    if not trees.has_content(path):
        if data.shifted != SHIFTED and not path.exists():
            raise UserError(f"{PATH}: data.shifted: {path}: no such file or folder; put images there, or leave it out")
        return False
    if data.source not in _SOURCES:
        raise UserError(
            f"{path}: a shifted test set is read where data.source is {', '.join(_SOURCES)}, and it is {data.source};"
            " move it away, or name an empty folder in data.shifted"
        )
    return True


def load(data: Data, loaded: Loaded) -> Shifted:
    """Load the images in `data.shifted`, of the shape and with the columns of the data set that was loaded.

    Of `cifar10` it is an .npz of `x_test` and `y_test`, or images as of `folder`: a folder or tar archive of
    `test/<class>/<file>` or `<class>/<file>`, in the order of the names. Of `table` it is what `table.load_shifted`
    reads. Raises UserError where it is broken, or has a class or a shape that the data set does not have.
    """
    path, train = Path(data.shifted), loaded.columns["train"]
    if data.source == "table":
        shifted = table.load_shifted(data, columns.types(train))
    else:
        place = cifar10.pick(path) if data.source == "cifar10" else trees.pick(path)
        if data.source == "cifar10" and place.suffix == cifar10.ARRAYS:
            shifted = _from_arrays(place, data.size)
        else:
            shifted = _from_tree(trees.list_files(place), data.size, train[CLASS].unique().to_pylist())
    height, width, _ = loaded.images["train"].shape[1:]
    if shifted.images.shape[1:3] != (height, width):
        own = f"{shifted.images.shape[2]}x{shifted.images.shape[1]}"
        raise UserError(
            f"{path}: images of {own} pixels, and those of {data.path} are {width}x{height}; make them agree or set"
            " data.size, to which all are resized"
        )
    return shifted


def _from_arrays(path: Path, size: int | None) -> Shifted:
    arrays = official.read_arrays(path, (TEST,))
    images = arrays["x_test"] if size in (None, official.SIDE) else cifar10.resized(arrays["x_test"], size)
    return Shifted(path.stem, "raw", images, class_column(arrays["y_test"], CLASSES))


def _from_tree(tree: trees.Tree, size: int | None, classes: list[str]) -> Shifted:
    groups = _arrange(tree)
    if strangers := sorted(set(groups) - set(classes)):
        raise UserError(
            f"{tree.path}: class {shorten(strangers)} is none of the data set's, which are {shorten(sorted(classes))};"
            " rename or remove it"
        )
    names = sorted(groups)
    files = [file for name in names for file in sorted(groups[name])]
    images, encoding = folder.decode_all(tree, {"shifted": files}, size)
    labels = np.repeat(np.arange(len(names)), [len(groups[name]) for name in names])
    return Shifted(folder.name_of(tree.path), encoding, images["shifted"], class_column(labels, names))


def _arrange(tree: trees.Tree) -> dict[str, list[str]]:
    """Group the image files by class; print on stderr what was left out. There may be one folder above.

    Raises UserError where there are none, or one is not where it should be.
    """
    images = [name for name in tree.files if name.lower().endswith(kinds.SUFFIXES)]
    others = folder.others(tree)
    expected = f"expected {TEST}/<class>/<file> or <class>/<file>"
    if not images:
        reason = f", but {kinds.count_by_suffix(others)}; {kinds.advise(others)}" if others else ""
        raise UserError(f"{tree.path}: no images that are read{reason}: {expected}")
    tops = {name.split("/")[0] for name in images}
    is_led = len(tops) == 1 and tops.isdisjoint(SPLITS) and all(name.count("/") > 1 for name in images)
    lead = f"{tops.pop()}/" if is_led else ""
    test = f"{lead}{TEST}/"
    if any(name.startswith(test) and name.removeprefix(test).count("/") == 1 for name in images):
        lead = test
    groups: dict[str, list[str]] = {}
    for name in images:
        label, *file = name.removeprefix(lead).split("/")
        if name.startswith(lead):
            if len(file) != 1:
                raise UserError(f"{tree.path}: {name} is not where it should be; {expected}")
            groups.setdefault(label, []).append(name)
    kinds.report_left_out(str(tree.path), others, ())
    if strays := [name for name in images if not name.startswith(lead)]:
        strayed = f"{len(strays):,} images outside of {lead}: {kinds.first_few(strays)}"
        print(f"{tree.path}: left out {strayed}", file=sys.stderr)
    return groups
