"""`mtl convert`."""

from __future__ import annotations

import click

from mtl.records import conversion, files


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("where", nargs=-1, type=click.UNPROCESSED, metavar="INPUT OUTPUT [BEAM_FLAGS]...")
@click.option("--inspect", "folder", metavar="FOLDER", help="Check the shards in FOLDER and print what they hold.")
@click.option("--name", help="What the data set is called. Default: as INPUT is.")
@click.option("--validation", type=click.IntRange(min=0), default=0, help="Hold so many out of TRAIN, where none are.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Of what is held out.")
@click.option(
    "--records-per-shard", "records", type=click.IntRange(min=1), default=conversion.RECORDS, show_default=True
)
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
        conversion.inspect(folder)
        return
    if len(where) < 2 or any(given.startswith("-") for given in where[:2]):
        raise click.UsageError("give INPUT and OUTPUT first, then Beam's flags")
    source, output, *flags = where
    from mtl.records import rows

    rows.refuse_secret(output)
    if not force:
        conversion.refuse_written(output)
    found = rows.hold_out(rows.read(source), validation, seed, source)
    from mtl.records import pipeline

    pipeline.run(rows.plan(found, records), name or files.stem(source), output, flags)
    conversion.inspect(output)
