"""Stage `load_data`: load the data set into data/raw."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from mtl import sources, tracking
from mtl.config import params
from mtl.data import paths, shards, store
from mtl.errors import UserError
from mtl.sources import duplicates, shifted, split, tables, tfrecord, trees
from mtl.tasks import columns
from mtl.tasks.columns import SPLITS, Split

if TYPE_CHECKING:
    import pyarrow as pa


def main() -> None:
    """Run the stage."""
    settings = params.read()
    if os.environ.get("DVC_STAGE") == "load_data":  # elsewhere, as in `mtl train`, URIs are read
        params.refuse_uri(settings.data)
        if settings.data.source != "generated":
            trees.refuse_unhashed(Path(settings.data.path))
        if settings.data.source == "table" and Path(settings.data.path).suffix.lower() in tables.SUFFIXES:
            raise UserError(
                f"{params.PATH}: data.path: {settings.data.path!r} is the table alone, of which DVC would not see a"
                " changed image; give the folder that holds it and its images, and data.table"
            )
        if shifted.exists(settings.data):
            trees.refuse_unhashed(Path(settings.data.shifted))
    with tracking.stage_run("load_data", settings) as run:
        dataset = link(settings) if settings.data.source == "tfrecord" else load(settings)
        run.log_dataset(dataset)
        print(f"{dataset.name}: {dataset.train} + {dataset.validation} + {dataset.test} images of {dataset.shape}")


def load(settings: params.Params) -> store.Dataset:
    """Read the examples, and those of a shifted test set, into arrays and write these to data/raw."""
    has_second = shifted.exists(settings.data)
    loaded = split.with_validation(sources.load(settings.data, settings.seed), settings.data.validation, settings.seed)
    _report(settings.data, duplicates.describe(loaded.name, duplicates.find_loaded(loaded)))
    dataset = describe(
        loaded.columns,
        name=loaded.name,
        source=settings.data.source,
        official=loaded.official,
        encoding=loaded.encoding,
        shape=loaded.images["train"].shape[1:],
    )
    second = shifted.load(settings.data, loaded) if has_second else None
    store.write_raw(dataset, columns.join(loaded.columns), loaded.images)
    if second is None:
        store.write_shifted({}, None, None)
    else:
        store.write_shifted(second.description(), second.images, second.columns)
        print(f"shifted test set {second.name}: {len(second.images)} images")
    return dataset


def link(settings: params.Params) -> store.Dataset:
    """Check the TFRecord shards of the images and write to data/raw where they are."""
    shifted.exists(settings.data)  # raises where there is one
    records = tfrecord.load(settings.data)
    if records.manifest.duplicates:
        _report(settings.data, duplicates.describe(settings.data.path, records.manifest.duplicates))
    else:
        _warn(
            f"{settings.data.path}: converted before `mtl convert` looked for images that are in several splits or"
            " classes: not checked"
        )
    dataset = describe(
        records.columns,
        name=records.manifest.name,
        source="tfrecord",
        official={},
        encoding=records.manifest.encoding,
        shape=records.shape,
    )
    access = shards.Access(path=settings.data.path, size=settings.data.size, cache=settings.data.cache)
    manifest = records.manifest.model_dump(exclude={"duplicates"})
    documents = {shards.MANIFEST: manifest, paths.SHARDS: access.model_dump()}
    store.write_raw(dataset, columns.join(records.columns), {}, documents)
    store.write_shifted({}, None, None)
    return dataset


def describe(
    tables: Mapping[Split, "pa.Table"],
    *,
    name: str,
    source: str,
    official: Mapping[str, str],
    encoding: str,
    shape: tuple[int, int, int],
) -> store.Dataset:
    """Describe a data set by what its source says of it and by its columns."""
    counts = {part: tables[part].num_rows for part in SPLITS}
    types = columns.types(tables["train"])
    return store.Dataset(
        name=name, source=source, official=official, encoding=encoding, shape=shape, columns=types, **counts
    )


def _report(data: params.Data, line: str) -> None:
    """Print a line about duplicates on stderr; raise it as UserError where `data.duplicates` is `refuse`."""
    if line and data.duplicates == "refuse":
        raise UserError(line)
    _warn(line)


def _warn(line: str) -> None:
    if line:
        print(line, file=sys.stderr)
