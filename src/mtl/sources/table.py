"""A user's own table: a CSV or Parquet file with a row per image, beside the images that it names."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import numpy as np

from mtl.config.params import PATH, ColumnType, Data
from mtl.errors import UserError
from mtl.sources import kinds, split, tables, trees
from mtl.sources.folder import decode_all, name_of
from mtl.sources.loaded import Loaded, Shifted
from mtl.sources.tables import Table
from mtl.tasks.columns import SPLITS, Split

_DEPTH = 16  # names in the path of an image; links may form circles


def load(data: Data, seed: int) -> Loaded:
    """Load the table in `data.path`: a folder or tar archive that holds it and its images, or the file itself.

    The examples are in the order of the table. Raises UserError where the table, a path in it or an image is wrong.
    """
    path = Path(data.path)
    is_table = path.suffix.lower() in tables.SUFFIXES and path.is_file()
    tree = trees.list_files(path.parent if is_table else trees.pick(path), _DEPTH)
    name = _find(tree, path.name if is_table else data.table)
    table = _read(tree, name, data, data.types)
    for column in (data.group, data.stratify):
        if column is not None:
            tables.check_column(f"{tree.path}: {name}", table.columns.column_names, column)
    files = _paths(tree, name, table)
    order = _order(f"{tree.path}: {name}", table, data, seed)
    images, encoding = decode_all(tree, {part: [files[row] for row in rows] for part, rows in order.items()}, data.size)
    columns = {part: table.columns.take(rows) for part, rows in order.items()}
    return Loaded(
        name_of(Path(PurePosixPath(name).stem) if is_table else tree.path),
        encoding,
        images,
        columns,
        files={part: [files[row] for row in rows] for part, rows in order.items()},
    )


def load_shifted(data: Data, types: Mapping[str, ColumnType]) -> Shifted:
    """Load the table in `data.shifted`, a folder or tar archive that holds it and its images.

    Its rows of the split `test` are read, without a column `split` all of them. Raises UserError as `load`, and where
    a column of `types`, those of the data set, is missing or a value is not of its type.
    """
    tree = trees.list_files(trees.pick(Path(data.shifted)), _DEPTH)
    has_it = any(data.table in (name, PurePosixPath(name).name) for name in tree.files)
    name = _find(tree, data.table if has_it else None)
    table = _read(tree, name, data, types)
    rows = [row for row in range(len(table.files)) if table.splits is None or table.splits[row] == "test"]
    if not rows:
        raise UserError(f"{tree.path}: {name}: no row of split test; the others are not read")
    files = _paths(tree, name, table)
    images, encoding = decode_all(tree, {"shifted": [files[row] for row in rows]}, data.size)
    return Shifted(name_of(tree.path), encoding, images["shifted"], table.columns.select(list(types)).take(rows))


def _read(tree: trees.Tree, name: str, data: Data, types: Mapping[str, ColumnType]) -> Table:
    """Read the table `name` of `tree`."""
    ((_, content),) = tree.read([name])
    return tables.read(content, f"{tree.path}: {name}", data.image, data.missing, types)


def _find(tree: trees.Tree, wanted: str | None) -> str:
    """The name of the table in `tree`: `wanted`, else the only one that lies highest."""
    names = [name for name in tree.files if name.lower().endswith(tables.SUFFIXES)]
    depth = min((name.count("/") for name in names), default=0)
    top = sorted(name for name in names if name.count("/") == depth)
    if wanted is not None:
        top = [name for name in top if PurePosixPath(name).name == wanted or name == wanted]
    if len(top) != 1:
        there = kinds.first_few(sorted(names)) or "none"
        asked = f"no table {wanted!r}" if wanted else "one CSV or Parquet file is needed"
        raise UserError(f"{tree.path}: {asked}; there is {there}: name it in data.table")
    return top[0]


def _paths(tree: trees.Tree, name: str, table: Table) -> list[str]:
    """The name in `tree` of each row's image. Raises UserError where one is missing or elsewhere."""
    here, files = set(tree.files), []
    missing: list[str] = []
    for row, file in enumerate(table.files):
        path = PurePosixPath(unicodedata.normalize("NFC", file))
        if path.is_absolute() or ".." in path.parts or "://" in file:
            raise UserError(
                f"{tree.path}: {name}: column {table.image!r}, row {row + 1}: {file!r} is outside of the table's own"
                " folder; give paths relative to the table"
            )
        files.append(str(PurePosixPath(name).parent / path))
        if files[-1] not in here:
            missing.append(f"row {row + 1}: {file}")
    if missing:
        raise UserError(
            f"{tree.path}: {name}: column {table.image!r}: {len(missing):,} images are not there"
            f" ({kinds.first_few(missing)}); put them there or remove the rows"
        )
    return files


def _order(name: str, table: Table, data: Data, seed: int) -> dict[Split, np.ndarray]:
    """The rows of each split in the order of the table."""
    count = len(table.files)
    groups = None if data.group is None else split.group_numbers(table.columns[data.group].to_pylist())
    strata = None if data.stratify is None else np.array([str(v) for v in table.columns[data.stratify].to_pylist()])
    if table.splits is None:
        if data.test is None:
            raise UserError(f"{name}: no column `split`; add one, or set data.test in {PATH}, such as 0.2")
        test = split.choose(count, data.test, seed, f"{PATH}: data.test", strata, groups)
        part_of = np.where(test, "test", "train").astype(object)
    else:
        part_of = np.array(table.splits, object)
        for part in ("train", "test"):
            if part not in table.splits:
                raise UserError(f"{name}: no row of split {part}; a model is trained on train and judged on test")
        if groups is not None:
            _check_apart(name, data.group or "", table, part_of, groups)
    if "validation" not in part_of and data.validation:
        train = np.flatnonzero(part_of == "train")
        chosen = split.choose(
            len(train),
            data.validation,
            seed,
            f"{PATH}: data.validation",
            None if strata is None else strata[train],
            None if groups is None else groups[train],
            of=count if table.splits is None else None,
        )
        part_of[train[chosen]] = "validation"
    return {part: np.flatnonzero(part_of == part) for part in SPLITS}


def _check_apart(name: str, column: str, table: Table, part_of: np.ndarray, groups: np.ndarray) -> None:
    """Raise UserError where the table's own splits share a value of the column that must be on one side alone."""
    first: Mapping[int, str] = dict(zip(reversed(groups.tolist()), reversed(part_of.tolist()), strict=True))
    for row, (group, part) in enumerate(zip(groups.tolist(), part_of.tolist(), strict=True)):
        if first[group] != part:
            value = table.columns[column][row].as_py()
            raise UserError(
                f"{name}: {column} {value!r} is in {first[group]} and in {part}; leave the column `split` out to split"
                " by data.group, or leave data.group out"
            )
