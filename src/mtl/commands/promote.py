"""`mtl promote`: register the models of dvc.lock, and make the joint one the champion if it passes the gate."""

from __future__ import annotations

import click


@click.command
@click.option("--dry-run", is_flag=True, help="Judge and print what would be done; register and move nothing.")
@click.option("--allow-dirty", is_flag=True, help="Also with uncommitted changes, or stages that would rerun.")
@click.option("--again", is_flag=True, help="Also a version that `mtl rollback` took back.")
def command(**flags: bool) -> None:
    """Register the models of dvc.lock, and make the joint one models:/joint@champion if it passes.

    The gate is the section promote: of params.yaml, decided on the validation images. Exit status 0: promoted, or
    nothing new; 1: not promoted.
    """
    from mtl.release import promotion

    promotion.promote(**flags)
