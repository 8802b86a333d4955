"""`mtl report`."""

from __future__ import annotations

import click

from mtl.report import sections


@click.command("report")
@click.option("--markdown", is_flag=True, help="Tables for a README, each between the comments that name it.")
def command(markdown: bool) -> None:
    """Print the tables of the verdict and the study, and for each task whether to keep, derive, combine or share.

    It reads metrics/main_evaluate.json (`dvc repro`) and metrics/study.json (`cd study && mtl repro`), either may be
    missing. The advice follows the rule in src/mtl/report/advice.py.
    """
    texts, notes = sections.sections(markdown)
    for note in notes:
        click.echo(note, err=True)
    for name, text in texts.items():
        block = f"<!-- mtl report: {name} -->\n\n{text}\n\n<!-- mtl report: end -->" if markdown else text
        click.echo(f"{block}\n")
