"""Images in TFRecord shards, as `mtl convert` writes them: their manifest, and reading them like an array."""

from mtl.data.shards.images import CHUNK, ENDED, ShardedImages, read_columns
from mtl.data.shards.manifest import (
    FETCHED,
    MANIFEST,
    VERSION,
    Access,
    Column,
    Discarded,
    Duplicates,
    Manifest,
    Shard,
    SplitRecords,
    check_shards,
    read_manifest,
)
from mtl.data.shards.raw import read_images

__all__ = [
    "CHUNK",
    "ENDED",
    "FETCHED",
    "MANIFEST",
    "VERSION",
    "Access",
    "Column",
    "Discarded",
    "Duplicates",
    "Manifest",
    "Shard",
    "ShardedImages",
    "SplitRecords",
    "check_shards",
    "read_columns",
    "read_images",
    "read_manifest",
]
