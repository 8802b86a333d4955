"""Images in TFRecord shards, as `mtl convert` writes them: their manifest, and reading them like an array."""

from mtl.data.shards.images import CHUNK, ENDED, Images, pixels, read_labels
from mtl.data.shards.manifest import (
    FETCHED,
    MANIFEST,
    SPLITS,
    Discarded,
    Duplicates,
    Manifest,
    Place,
    Shard,
    SplitRecords,
    check,
    is_remote,
    join,
    local,
    parse,
)
from mtl.data.shards.raw import read_images, read_manifest

__all__ = [
    "CHUNK",
    "ENDED",
    "FETCHED",
    "MANIFEST",
    "SPLITS",
    "Discarded",
    "Duplicates",
    "Images",
    "Manifest",
    "Place",
    "Shard",
    "SplitRecords",
    "check",
    "is_remote",
    "join",
    "local",
    "parse",
    "pixels",
    "read_images",
    "read_labels",
    "read_manifest",
    "resolve",
]
