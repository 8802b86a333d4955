"""The registry: `mtl promote` behind a gate, `mtl rollback`, and models by name from Python."""

from __future__ import annotations

import click


@click.command
@click.option("--dry-run", is_flag=True, help="Judge and say what would be done; register and move nothing.")
@click.option("--allow-dirty", is_flag=True, help="Also with uncommitted changes, or stages that would rerun.")
@click.option("--again", is_flag=True, help="Also a version that `mtl rollback` took back.")
def promote(**flags: bool) -> None:
    """Register the models of dvc.lock, and make the joint one models:/joint@champion if it passes.

    The gate is the section promote: of params.yaml, decided on the validation images. Exit status 0: promoted, or
    nothing new; 1: not promoted.
    """
    from mtl.registry import promotion

    promotion.promote(**flags)


@click.command
@click.option("--to", metavar="VERSION", help="A version of the joint model; else the champion before this one.")
def rollback(to: str | None) -> None:
    """Move models:/joint@champion back, and keep `mtl promote` from moving it forward again by itself."""
    from mtl.registry import promotion

    promotion.rollback(to)
