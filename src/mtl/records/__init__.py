"""`mtl convert`: images to TFRecord shards, by Apache Beam."""

from __future__ import annotations

import click

from mtl import tables
from mtl.errors import UserError
from mtl.records import files

RECORDS = 4096  # of a shard, unless said otherwise: 8 MB of thumbnails, some hundred of photographs


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("where", nargs=-1, type=click.UNPROCESSED, metavar="INPUT OUTPUT [BEAM_FLAGS]...")
@click.option("--inspect", "folder", metavar="FOLDER", help="Check the shards in FOLDER and print what they hold.")
@click.option("--name", help="What the data set is called. Default: as INPUT is.")
@click.option("--validation", type=click.IntRange(min=0), default=0, help="Hold so many out of TRAIN, where none are.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is held out.")
@click.option("--records-per-shard", "records", type=click.IntRange(min=1), default=RECORDS, show_default=True)
@click.option("--force", is_flag=True, help="Remove the shards that are in OUTPUT first.")
def command(
    where: tuple[str, ...], folder: str | None, name: str | None, validation: int, seed: int, records: int, force: bool
) -> None:
    """Convert images to sharded, compressed TFRecords with a manifest, for `data.source: tfrecord`.

    INPUT is a CSV file with the columns split, image_uri and label (splits TRAIN, VALIDATION and TEST), or a folder of
    <split>/<class>/<file>. OUTPUT is a folder. Both are paths, or URIs that fsspec opens. Images that cannot be read
    are listed in OUTPUT/discarded-*.csv. Beam runs here, on all cores; other flags are Beam's own: --runner
    DataflowRunner --project … --region …
    """
    if folder is not None:
        if where:
            raise click.UsageError("--inspect takes one folder and nothing else")
        inspect(folder)
        return
    if len(where) < 2 or any(given.startswith("-") for given in where[:2]):
        raise click.UsageError("give INPUT and OUTPUT first, then Beam's flags")
    source, output, *flags = where
    from mtl.records import rows

    rows.refuse_secret(output)
    if not force:
        _refuse_written(output)
    found = rows.hold_out(rows.read(source), validation, seed, source)
    from mtl.records import pipeline

    pipeline.run(rows.plan(found, records), name or files.stem(source), output, flags)
    inspect(output)


def _refuse_written(output: str) -> None:
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
    from mtl import shards
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
    click.echo(tables.aligned(("split", "shards", "images", "MB"), listed, ("shards", "images", "MB")))
    counts = [(name, *(str(s.classes.get(name, 0)) for s in manifest.splits.values())) for name in manifest.classes]
    click.echo(tables.aligned(("class", *manifest.splits), counts, tuple(manifest.splits)))
    if manifest.duplicates and (line := duplicates.line(folder, manifest.duplicates)):
        click.echo(line, err=True)
    gone = manifest.discarded
    click.echo(f"discarded: {gone.count:,}" + "".join(f"; {count:,} {why}" for why, count in gone.reasons.items()))
