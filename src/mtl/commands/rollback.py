"""`mtl rollback`: make the champion before this one, or another version, the champion again."""

from __future__ import annotations

import click


@click.command
@click.option("--to", metavar="VERSION", help="A version of the joint model; else the champion before this one.")
def command(to: str | None) -> None:
    """Move models:/joint@champion back, and keep `mtl promote` from moving it forward again by itself."""
    from mtl.release import promotion

    promotion.rollback(to)
