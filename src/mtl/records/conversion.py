"""`mtl convert`: images to TFRecord shards, by Apache Beam."""

from __future__ import annotations

import click

from mtl import text
from mtl.errors import UserError
from mtl.records import files

RECORDS = 4096  # of a shard, unless said otherwise: 8 MB of thumbnails, some hundred of photographs


def refuse_written(output: str) -> None:
    """Raise UserError where a conversion has left something in `output`."""
    there = files.written(output)
    if there and there[0] == files.MANIFEST:
        raise UserError(f"{output}: shards are there already; give another OUTPUT, or --force to replace them")
    if there:
        raise UserError(
            f"{output}: {there[0]} is there without {files.MANIFEST}, of a conversion that failed or of another"
            " program; give another OUTPUT, or --force to replace what is there"
        )


def inspect(folder: str) -> None:
    """Check every shard in `folder` against the manifest and print what they hold."""
    from mtl.data import shards
    from mtl.sources import duplicates, tfrecord

    manifest = tfrecord.read_manifest(folder)
    listed = []
    for split, content in manifest.splits.items():
        for shard in content.shards:
            shards.check(shards.local(folder, shard), shard, shards.join(folder, shard.file))
        size = sum(shard.bytes for shard in content.shards) / 1e6
        listed.append((split, str(len(content.shards)), f"{content.count:,}", f"{size:.1f}"))
    (low, high), (narrow, wide) = manifest.height, manifest.width
    click.echo(f"{manifest.name}: {manifest.encoding}, from {narrow}x{low} to {wide}x{high} pixels; checksums right")
    click.echo(text.aligned(("split", "shards", "images", "MB"), listed, ("shards", "images", "MB")))
    counts = [(name, *(str(s.classes.get(name, 0)) for s in manifest.splits.values())) for name in manifest.classes]
    click.echo(text.aligned(("class", *manifest.splits), counts, tuple(manifest.splits)))
    if manifest.duplicates and (line := duplicates.line(folder, manifest.duplicates)):
        click.echo(line, err=True)
    gone = manifest.discarded
    click.echo(f"discarded: {gone.count:,}" + "".join(f"; {count:,} {why}" for why, count in gone.reasons.items()))
