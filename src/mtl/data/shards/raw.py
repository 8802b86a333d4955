"""Images in shards, to which data/raw refers."""

from __future__ import annotations

import numpy as np

from mtl import files
from mtl.data import paths
from mtl.data.shards.images import ShardedImages
from mtl.data.shards.manifest import MANIFEST, Access, fetch, parse
from mtl.tasks.columns import Split


def read_images(split: Split, side: tuple[int, int]) -> ShardedImages:
    """Return the images of a split of data/raw, `side` = (height, width) pixels.

    Raises UserError where a shard is missing or has another size than the manifest says.
    """
    manifest = parse(files.read_json(paths.IMAGES / MANIFEST), str(paths.IMAGES / MANIFEST))
    access = Access(**files.read_json(paths.IMAGES / paths.SHARDS))
    shards = manifest.splits[split].shards if split in manifest.splits else ()
    counts = tuple(shard.records for shard in shards)
    return ShardedImages(
        files=tuple(str(fetch(access.path, shard)) for shard in shards),
        counts=counts,
        index=np.arange(sum(counts)),
        side=side,
        size=access.size,
        sha256=tuple(shard.sha256 for shard in shards),
        cache=access.cache,
        mean_bytes=max(1.0, sum(shard.bytes for shard in shards) / max(1, sum(counts))),
    )
