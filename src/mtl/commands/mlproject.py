"""The entry points of MLproject: the DAG or one task's training, with values of params.yaml changed by DVC."""

from __future__ import annotations

import subprocess
import sys

import click

from mtl import errors
from mtl.config import params
from mtl.errors import UserError


def changes(settings: params.Params, task: str, recipe: str, epochs: int) -> list[str]:
    """The values to change, `recipes.compact.epochs=2`, as `dvc exp run -S` takes them.

    Args:
        settings: params.yaml.
        task: the task to train; empty for all.
        recipe: the recipe of that task, or of all; empty as it is.
        epochs: the epochs of the recipes in use; 0 as they are.

    Raises:
        UserError: there is no such task or recipe.
    """
    tasks = {task: settings.task(task)} if task else settings.tasks
    if recipe and recipe not in settings.recipes:
        raise UserError(f"{params.PATH}: there is no recipe {recipe!r}; known: {', '.join(settings.recipes)}")
    used = dict.fromkeys(recipe or each.recipe for each in tasks.values())
    return [
        *(f"tasks.{name}.recipe={recipe}" for name, each in tasks.items() if recipe and each.recipe != recipe),
        *(f"recipes.{name}.epochs={epochs}" for name in used if epochs not in (0, settings.recipes[name].epochs)),
    ]


@click.command
@click.option("--task", default="")
@click.option("--recipe", default="")
@click.option("--epochs", type=click.IntRange(min=0), default=0)
def command(task: str, recipe: str, epochs: int) -> None:
    """Run the DAG, or train TASK, with another recipe or number of epochs."""
    settings = params.read()
    params.refuse_uri(settings.data)
    changed = [part for change in changes(settings, task, recipe, epochs) for part in ("-S", change)]
    dvc = ["exp", "run", *changed] if changed else ["repro"]
    target = [f"train@{task}"] if task else []
    sys.exit(subprocess.run([sys.executable, "-m", "dvc", *dvc, *target]).returncode)


if __name__ == "__main__":
    errors.run(command)
