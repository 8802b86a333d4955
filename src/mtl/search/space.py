"""The search space of a study: the parameters of `tune:` by full path, and the params.yaml that a trial stands for."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mtl.config.editing import get, holds, put
from mtl.config.params import PATH, Params
from mtl.config.reading import first_line, validate
from mtl.config.tune import Parameter, Tune
from mtl.data import paths
from mtl.data.shards import MANIFEST
from mtl.errors import UserError
from mtl.search.drawing import Values, grid_size, probes
from mtl.tracking import flat

MOST_POINTS = 1_000  # of a grid: all are queued when its study is created


@dataclass(frozen=True)
class Space:
    """The tasks of a study, params.yaml as its trials start from it, and the parameters by full path."""

    tasks: tuple[str, ...]
    settings: Params
    tune: Tune
    parameters: dict[str, Parameter]

    @property
    def recipes(self) -> list[str]:
        """The recipes of the tasks, each once."""
        return list(dict.fromkeys(self.settings.tasks[task].recipe for task in self.tasks))

    def reduced(self, values: Mapping[str, Any]) -> Values:
        """The changes beside `values` in a trial: fewer epochs, shorter ones."""
        tree, tune = self.settings.model_dump(mode="json"), self.tune
        changes: Values = {}
        for recipe in self.recipes:
            if tune.epochs:
                changes[f"recipes.{recipe}.epochs"] = tune.epochs
            batch = f"recipes.{recipe}.batch_size"
            size = values.get(batch, get(tree, batch))
            if tune.images_per_epoch and isinstance(size, int) and size > 0:  # else the recipe refuses it
                at_once = self.settings.recipes[recipe].steps_per_execution
                calls = max(1, round(tune.images_per_epoch / size / at_once))
                changes[f"recipes.{recipe}.steps_per_epoch"] = calls * at_once
        return {path: value for path, value in changes.items() if path not in self.parameters}

    def present(self) -> Values:
        """The values of the searched parameters in params.yaml as it is."""
        tree = self.settings.model_dump(mode="json")
        return {path: get(tree, path) for path in self.parameters}

    def changed(self, values: Mapping[str, Any]) -> Params:
        """params.yaml with `values` and reduced epochs. Raises UserError where a recipe refuses a value."""
        tree = self.settings.model_dump(mode="json")
        for path, value in {**self.reduced(values), **values}.items():
            put(tree, path, value)
        try:
            return validate(tree, Params)
        except ValidationError as error:
            raise UserError(first_line(error)) from None

    def definition(self) -> Values:
        """All that must stay the same while a study runs so that its trials can be compared, with dotted keys."""
        tree = self.settings.model_dump(mode="json")
        changed = {**self.reduced({}), **self.parameters}
        for path in changed:
            put(tree, path, "changed by trials")  # stays where it is an item of a list
        held = {f"recipes.{recipe}": tree["recipes"][recipe] for recipe in self.recipes}
        base = dict(flat({"seed": tree["seed"], "threads": tree["hardware"]["threads"], **held}))
        base = {path: value for path, value in base.items() if path not in changed}
        tune = {key: getattr(self.tune, key) for key in ("metric", "goal", "epochs", "images_per_epoch")}
        tune["grid"] = self.tune.algorithm == "grid"
        for path, parameter in self.parameters.items():
            declared = parameter.model_dump(mode="json", exclude={"name"})
            tune |= {f"{path}.{key}": value for key, value in declared.items()}
        return {**{f"tune.{key}": value for key, value in tune.items()}, **base, "images": _digest(self.tasks)}


def read(settings: Params, tasks: Sequence[str]) -> Space:
    """The space that `tune:` declares for `tasks`.

    Raises UserError where there is no such section, for an unknown path, and for a parameter all of whose values the
    recipe refuses.
    """
    tune = settings.tune
    if tune is None:
        raise UserError(f"{PATH}: there is no section tune; README.md shows one")
    recipes = list(dict.fromkeys(settings.task(task).recipe for task in tasks))
    parameters = {_full(parameter.name, recipes): parameter for parameter in tune.parameters}
    if len(parameters) < len(tune.parameters):
        raise UserError(f"{PATH}: tune.parameters: a parameter is declared twice, once by its full path; leave one")
    if tune.algorithm == "grid" and (points := grid_size(parameters)) > MOST_POINTS:
        raise UserError(f"{PATH}: tune: a grid of {points} points; give fewer values ({MOST_POINTS}), or random or tpe")
    space = Space(tuple(tasks), settings, tune, parameters)
    tree = settings.model_dump(mode="json")
    for path, parameter in parameters.items():
        if not holds(tree, path):
            section = path.rpartition(".")[0]
            raise UserError(f"{PATH}: tune.parameters: {parameter.name}: {_known(tree, section)}")
        refused = [reason for value in probes(parameter) if (reason := refusal(space, {path: value}))]
        if len(refused) == len(probes(parameter)):
            raise UserError(f"{PATH}: tune.parameters: {parameter.name}: no value is accepted: {refused[0]}")
    smoothed = any(path.endswith((".label_smoothing", ".loss", ".class_weight")) for path in parameters)
    if tune.metric == "val_loss" and smoothed and tune.early_stopping != "none":
        raise UserError(
            f"{PATH}: tune: class_weight, label_smoothing and loss change the val_loss that early stopping compares;"
            " take metric: val_acc, or early_stopping: none"
        )
    return space


def _full(name: str, recipes: Sequence[str]) -> str:
    """The full path of a parameter. A short one belongs to the one recipe that the tasks share."""
    if not name.startswith("recipes."):
        if len(recipes) > 1:
            raise UserError(
                f"{PATH}: tune.parameters: {name}: the tasks have several recipes; write recipes.{recipes[0]}.{name}"
            )
        return f"recipes.{recipes[0]}.{name}"
    recipe = name.split(".")[1]
    if recipe not in recipes:
        raise UserError(
            f"{PATH}: tune.parameters: {name}: recipe {recipe!r} is not of this study: {', '.join(recipes)}"
        )
    return name


def _known(tree: Any, section: str) -> str:
    """The message on a path whose last part is not in `section`."""
    entry = get(tree, section) if holds(tree, section) else None
    known = f"known in {section}: {', '.join(entry)}" if isinstance(entry, dict) else "see recipes in params.yaml"
    return f"unknown path; {known}"


def refusal(space: Space, values: Values) -> str | None:
    """The reason why a recipe refuses `values`, everything else being as it is; None where it takes them."""
    try:
        space.changed(values)
    except UserError as error:
        return str(error)
    return None


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`tune.….max: 0.5 -> 0.8` for all that two definitions do not share."""
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    return [f"{key}: {before.get(key, 'not there')} -> {after.get(key, 'not there')}" for key in keys]


def _digest(tasks: Sequence[str]) -> str:
    """Digest of the training and validation images and of the tasks' labels. The test images are not opened."""
    digest = hashlib.blake2b(digest_size=8)
    images = (MANIFEST,) if (paths.IMAGES / paths.SHARDS).exists() else ("x_train.npy", "x_validation.npy")
    labels = [path for task in tasks for path in sorted((paths.LABELS / task).glob("*.npy")) if "test" not in path.name]
    for path in [paths.DATASET, *(paths.IMAGES / name for name in images), *labels]:
        try:
            with path.open("rb") as file:
                digest.update(hashlib.file_digest(file, "blake2b").digest())
        except FileNotFoundError:
            raise UserError(f"{path} is missing: run `dvc repro`, or `dvc checkout` if it ran before") from None
    return digest.hexdigest()
