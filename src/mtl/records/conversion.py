"""Settings and results of `mtl convert`, without Apache Beam, which takes seconds to import."""

from __future__ import annotations

import click

from mtl import text

RECORDS = 4096  # records of a shard by default: 8 MB of thumbnails, some hundred MB of photographs


def inspect(folder: str) -> None:
    """Check every shard in `folder` against the manifest and print a summary of them."""
    from mtl.data import shards
    from mtl.sources import duplicates

    manifest = shards.read_manifest(folder)
    sizes = []
    for name, split in manifest.splits.items():
        shards.check_shards(folder, split)
        megabytes = sum(shard.bytes for shard in split.shards) / 1e6
        sizes.append((name, str(len(split.shards)), f"{split.count:,}", f"{megabytes:.1f}"))
    (low, high), (narrow, wide) = manifest.height, manifest.width
    click.echo(f"{manifest.name}: {manifest.encoding}, from {narrow}x{low} to {wide}x{high} pixels; checksums right")
    click.echo(text.aligned(("split", "shards", "images", "MB"), sizes, ("shards", "images", "MB")))
    splits = manifest.splits.values()
    if manifest.version == 1:
        counts = [(name, *(str(split.classes.get(name, 0)) for split in splits)) for name in manifest.classes]
        click.echo(text.aligned(("class", *manifest.splits), counts, tuple(manifest.splits)))
    else:
        known = [(name, kind, *(f"{split.known[name]:,}" for split in splits)) for name, kind in manifest.types.items()]
        click.echo(text.aligned(("column", "type", *manifest.splits), known, tuple(manifest.splits)))
    if manifest.duplicates and (warning := duplicates.describe(folder, manifest.duplicates)):
        click.echo(warning, err=True)
    discarded = manifest.discarded
    reasons = "".join(f"; {count:,} {reason}" for reason, count in discarded.reasons.items())
    click.echo(f"discarded: {discarded.count:,}{reasons}")
