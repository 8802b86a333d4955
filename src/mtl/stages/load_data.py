"""Stage `load_data`: load the images into data/raw."""

import os
import sys
from pathlib import Path

import numpy as np

from mtl import sources, tracking
from mtl.config import params
from mtl.data import paths, shards, store
from mtl.sources import duplicates, tfrecord, trees
from mtl.sources.split import hold_out


def main() -> None:
    """Run the stage."""
    settings = params.read()
    if os.environ.get("DVC_STAGE") == "load_data":  # elsewhere, as in `mtl train`, URIs are read
        params.refuse_uri(settings.data)
        if settings.data.source != "generated":
            trees.refuse_unhashed(Path(settings.data.path))
    with tracking.stage_run("load_data", settings) as run:
        dataset = link(settings) if settings.data.source == "tfrecord" else load(settings)
        run.log_dataset(dataset)
        print(f"{dataset.name}: {dataset.train} + {dataset.validation} + {dataset.test} images of {dataset.shape}")


def load(settings: params.Params) -> store.Dataset:
    """Read the images into arrays and write these to data/raw."""
    images = sources.load(settings.data, settings.seed)
    validation = hold_out(images.y_train, settings.data.validation, settings.seed)
    dataset = store.Dataset(
        name=images.name,
        source=settings.data.source,
        official=images.official,
        classes=images.classes,
        encoding=images.encoding,
        train=len(images.x_train) - len(validation),
        validation=len(validation),
        test=len(images.x_test),
        shape=images.x_train.shape[1:],
    )
    arrays: dict[str, np.ndarray] = {
        "x_train": images.x_train,
        "y_train": images.y_train,
        "x_test": images.x_test,
        "y_test": images.y_test,
        "validation": validation,
    }
    store.write_raw(dataset, arrays)
    _warn(duplicates.describe(images.name, duplicates.find_loaded(images, validation)))
    return dataset


def link(settings: params.Params) -> store.Dataset:
    """Check the TFRecord shards of the images and write to data/raw where they are. They hold a split `validation`."""
    records = tfrecord.load(settings.data)
    train, validation, test = (records.labels[split] for split in shards.SPLITS)
    dataset = store.Dataset(
        name=records.manifest.name,
        source="tfrecord",
        official=False,
        classes=records.manifest.classes,
        encoding=records.manifest.encoding,
        train=len(train),
        validation=len(validation),
        test=len(test),
        shape=records.shape,
    )
    arrays = {
        "y_train": np.concatenate([train, validation]),
        "y_test": test,
        "validation": np.arange(len(train), len(train) + len(validation)),
    }
    access = shards.Access(path=settings.data.path, size=settings.data.size, cache=settings.data.cache)
    manifest = records.manifest.model_dump(exclude={"duplicates"})
    store.write_raw(dataset, arrays, {shards.MANIFEST: manifest, paths.SHARDS: access.model_dump()})
    if records.manifest.duplicates:
        _warn(duplicates.describe(settings.data.path, records.manifest.duplicates))
    else:
        _warn(
            f"{settings.data.path}: converted before `mtl convert` looked for images that are in several splits or"
            " classes: not checked"
        )
    return dataset


def _warn(line: str) -> None:
    if line:
        print(line, file=sys.stderr)
