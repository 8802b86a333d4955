"""Images in shards, to which data/raw refers."""

from __future__ import annotations

import numpy as np

from mtl import files
from mtl.data import paths
from mtl.data.shards.images import Images
from mtl.data.shards.manifest import MANIFEST, Access, fetch, parse


def read_images(split: str, side: tuple[int, int]) -> Images:
    """Return the images of data/raw, `side` = (height, width) pixels; for `train`, those of validation come last.

    Raises UserError where a shard is missing or has another size than the manifest says.
    """
    manifest = parse(files.read_json(paths.RAW / MANIFEST), str(paths.RAW / MANIFEST))
    access = Access(**files.read_json(paths.RAW / paths.SHARDS))
    names = ("train", "validation") if split == "train" else (split,)
    shards = [shard for name in names if name in manifest.splits for shard in manifest.splits[name].shards]
    counts = tuple(shard.records for shard in shards)
    return Images(
        files=tuple(str(fetch(access.path, shard)) for shard in shards),
        counts=counts,
        index=np.arange(sum(counts)),
        side=side,
        size=access.size,
        sha256=tuple(shard.sha256 for shard in shards),
        cache=access.cache,
        mean_bytes=max(1.0, sum(shard.bytes for shard in shards) / max(1, sum(counts))),
    )
