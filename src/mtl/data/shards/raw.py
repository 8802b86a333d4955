"""What data/raw says of images in shards."""

from __future__ import annotations

import numpy as np

from mtl import files
from mtl.data import paths
from mtl.data.shards.images import Images
from mtl.data.shards.manifest import MANIFEST, Manifest, Place, local, parse


def read_manifest() -> tuple[Manifest, Place]:
    """The manifest in data/raw and where its shards are."""
    manifest = parse(files.read_json(paths.RAW / MANIFEST), str(paths.RAW / MANIFEST))
    return manifest, Place(**files.read_json(paths.RAW / paths.SHARDS))


def read_images(split: str, side: tuple[int, int]) -> Images:
    """The images of data/raw, `side` pixels high and wide: with `train` those of validation come behind those of train.

    Raises UserError where a shard is missing or has another size than the manifest says.
    """
    manifest, place = read_manifest()
    names = ("train", "validation") if split == "train" else (split,)
    shards = [shard for name in names if name in manifest.splits for shard in manifest.splits[name].shards]
    counts = tuple(shard.records for shard in shards)
    return Images(
        files=tuple(str(local(place.path, shard)) for shard in shards),
        counts=counts,
        index=np.arange(sum(counts)),
        side=side,
        size=place.size,
        sha256=tuple(shard.sha256 for shard in shards),
        cache=place.cache,
        mean_bytes=max(1.0, sum(shard.bytes for shard in shards) / max(1, sum(counts))),
    )
