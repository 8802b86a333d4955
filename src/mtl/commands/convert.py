"""`mtl convert`."""

from __future__ import annotations

from typing import get_args

import click

from mtl.config.params import ColumnType
from mtl.records import conversion


@click.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="INPUT OUTPUT [BEAM_FLAGS]...")
@click.option("--inspect", "folder", metavar="FOLDER", help="Check the shards in FOLDER and print a summary.")
@click.option("--name", help="Name of the data set. Default: the name of INPUT.")
@click.option("--validation", type=click.IntRange(min=0), default=0, help="Images of TRAIN to hold out as VALIDATION.")
@click.option("--stratify", metavar="COLUMN", help="Hold out evenly of its values. Default: class, or the only column.")
@click.option("--seed", type=click.IntRange(min=0), default=0, show_default=True, help="Seed of their choice.")
@click.option(
    "--records-per-shard", "records", type=click.IntRange(min=1), default=conversion.RECORDS, show_default=True
)
@click.option("--image", metavar="COLUMN", help="Column of the table with the images. Default: by its name.")
@click.option("--missing", multiple=True, default=("",), help="What stands for a gap, repeatable. Default: nothing.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="COLUMN=TYPE",
    help="Type of a column, repeatable: text, integer, number or boolean. Default: inferred.",
)
@click.option("--keep-order", is_flag=True, help="Write the images in the order of INPUT. Default: mixed.")
@click.option("--force", is_flag=True, help="First remove the shards that are in OUTPUT.")
def command(
    arguments: tuple[str, ...],
    folder: str | None,
    name: str | None,
    validation: int,
    stratify: str | None,
    seed: int,
    records: int,
    image: str | None,
    missing: tuple[str, ...],
    types: tuple[str, ...],
    keep_order: bool,
    force: bool,
) -> None:
    """Convert images to sharded, compressed TFRecords with a manifest, for `data.source: tfrecord`.

    INPUT is a table, CSV or Parquet, with a column of image paths, a column split (TRAIN, VALIDATION and TEST) and any
    others, or a folder of <split>/<class>/<file>. OUTPUT is a folder. Both are paths, or URIs that fsspec opens. Images
    that cannot be read are listed in OUTPUT/discarded-*.csv. Beam runs here, on all cores; other flags are Beam's own:
    --runner DataflowRunner --project … --region …
    """
    if folder is not None:
        if arguments:
            raise click.UsageError("--inspect takes one folder and nothing else")
        conversion.inspect(folder)
        return
    if len(arguments) < 2 or any(argument.startswith("-") for argument in arguments[:2]):
        raise click.UsageError("give INPUT and OUTPUT first, then Beam's flags")
    source, folder, *flags = arguments
    from mtl.records import output, rows

    rows.refuse_secret(folder)
    if not force:
        output.refuse_written(folder)
    images = rows.hold_out(rows.read(source, image, missing, _types(types)), validation, seed, source, stratify)
    from mtl.records import pipeline

    pipeline.run(rows.plan(images, records, keep_order), name or rows.name_data_set(source), folder, flags)
    conversion.inspect(folder)


def _types(pairs: tuple[str, ...]) -> dict[str, ColumnType]:
    types: dict[str, ColumnType] = {}
    for pair in pairs:
        column, _, kind = pair.rpartition("=")
        typed = next((known for known in get_args(ColumnType) if known == kind), None)
        if not column or typed is None:
            raise click.UsageError(f"--type {pair}: give COLUMN=TYPE with one of {', '.join(get_args(ColumnType))}")
        types[column] = typed
    return types
