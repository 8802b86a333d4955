"""Opening the study of a `mtl tune`: the latest, a new one, or one that goes on from an old one."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass

import click
import numpy as np
import optuna
from optuna.storages import RDBStorage

from mtl.config import editing, params
from mtl.config.params import PATH, Params
from mtl.config.tune import Double, Integer, Tune
from mtl.data import backend, store
from mtl.errors import UserError
from mtl.repro.devices import gpu_devices
from mtl.search import ranges, space, studies
from mtl.search.display import best
from mtl.search.drawing import Values, carried, contains, grid, values_of
from mtl.search.space import Space
from mtl.search.storage import create, load, open_storage, shown, whole
from mtl.tasks import kinds, scores
from mtl.training import hardware

SETUP_SECONDS = 120.0  # for another process to queue the first trials of a study


@dataclass(frozen=True)
class OpenedStudy:
    """A study, its search space, and the URL of its storage."""

    study: optuna.Study
    space: Space
    url: str


def checked_settings(task: str | None) -> Params:
    """Read params.yaml.

    Raises:
        UserError: there is no such task, there are no validation images, or it asks for several machines.
    """
    settings = params.read()
    hardware.one_machine(settings.hardware, "a search")
    if task is not None:
        settings.task(task)
    dataset = store.read_dataset()
    if dataset.validation == 0:
        raise UserError(f"{PATH}: data.validation is 0: trials are judged on validation images; hold some out")
    tasks = list(settings.tasks) if task is None else [task]
    for name in tasks:
        _check_metric(name, settings.tune)
    images = settings.tune.images_per_epoch if settings.tune else None
    if images and images > dataset.train:
        raise UserError(
            f"{PATH}: tune.images_per_epoch: {images} is more than the {dataset.train} training images; take fewer, or"
            " null for all of them"
        )
    # All trials of a study have the same precision, whatever machine joins it.
    gpus = gpu_devices(os.environ)
    recipes = {name: backend.resolve(recipe, gpus) for name, recipe in settings.recipes.items()}
    used = {settings.tasks[name].recipe for name in tasks}
    for name in sorted(name for name in used if recipes[name] is not settings.recipes[name]):
        click.echo(f"recipes.{name}.precision: {recipes[name].precision}, by auto")
    return settings.model_copy(update={"recipes": recipes})


def _check_metric(task: str, tune: Tune | None) -> None:
    """Raise UserError where the metric is undefined for a task on its validation images."""
    labels, known = store.read_targets(task, "validation")
    if not known.any():
        raise UserError(f"{task}: the label of no validation image is known, and trials are judged on those")
    if tune is None:
        return
    spec, score = store.read_task(task), tune.metric.removeprefix("val_")
    if score == "loss":
        fault = "" if tune.goal == "minimize" else "maximize makes the loss worse; goal: minimize"
    else:
        fault = kinds.fault_of_score(spec, score, tune.goal)
    if not fault and score in scores.OF_TWO_CLASSES and len(np.unique(labels[known])) != 2:
        fault = f"the validation images of {task} have labels of one class; take val_balanced_acc or val_macro_f1"
    if fault:
        raise UserError(f"{PATH}: tune.metric: {tune.metric}: {fault}")


def open_study(
    settings: Params, tasks: Sequence[str], url: str, stem: str, name: str | None, old: str | None
) -> OpenedStudy:
    """Join the study of these tasks, or create it.

    Args:
        settings: params.yaml.
        tasks: the tasks that the study trains.
        url: of the storage.
        stem: of the study's name: `stem`, or of later ones `stem-2`, …
        name: of the study, where it is not the latest of its stem.
        old: name of a study to make a new one from.

    Raises:
        UserError: the study's space is not the one that params.yaml declares now, or there is no study `old`.
    """
    if name is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*", name):
        raise UserError(f"--name {name!r}: a study's name is letters, digits, _, . and -")
    searched = space.read(settings, tasks)
    storage = open_storage(url)
    existing = whole(storage)
    latest = max((_count(known, stem), known) for known in [stem, *existing] if _count(known, stem))
    carry: list[Values] = []
    if old is not None and not _goes_on(storage, existing, name or latest[1], old, searched):
        source = load(storage, old)
        if name in existing:
            raise UserError(f"--name {name}: there is such a study already; give the new one another name")
        name = name or f"{stem}-{max(latest[0], int(stem in existing)) + 1}"
        searched = _learn(source, searched)
        top = best(source)
        carry = [values] if top and (values := carried(top, searched.parameters)) else []
    name = name or latest[1]
    definition = searched.definition()
    study = None if name in existing else create(storage, name, searched, definition, _starts(searched, carry), old)
    study = study or load(storage, name)
    if changes := space.difference(_definition(study), definition):
        raise UserError(
            f"study {name!r} in {shown(url)} was begun with something else: {'; '.join(changes)}. Undo that in {PATH},"
            f" or begin a new study from what it learned: --continue {name}"
        )
    return OpenedStudy(study, searched, url)


def _goes_on(storage: RDBStorage, existing: Sequence[str], name: str, old: str, searched: Space) -> bool:
    """Return whether `name` is a study that was begun by `--continue old` and is not over."""
    if name not in existing:
        return False
    study = load(storage, name)
    return study.user_attrs.get("continues") == old and not studies.is_over(study, searched.tune)


def _count(name: str, stem: str) -> int:
    """1 for `stem`, 2 for `stem-2`, …; 0 for other names."""
    match = re.fullmatch(rf"{re.escape(stem)}(?:-([1-9]\d*))?", name)
    return int(match[1] or 1) if match else 0


def _definition(study: optuna.Study) -> dict:
    """The definition that a study was begun with. Another process may be about to write it, and is waited for."""
    deadline = time.monotonic() + SETUP_SECONDS
    while "definition" not in (attributes := study.user_attrs):
        if time.monotonic() > deadline:
            raise UserError(f"study {study.study_name!r} was never begun as a whole; give another one with --name")
        time.sleep(0.2)
    return attributes["definition"]


def _starts(searched: Space, carry: Sequence[Values]) -> list[Values]:
    """The trials queued at the start: params.yaml as it is, the best of an old study, and all points of a grid."""
    present = searched.present()
    inside = all(contains(searched.parameters[path], value) for path, value in present.items())
    points = grid(searched.parameters) if searched.tune.algorithm == "grid" else []
    starts: list[Values] = []
    for values in [*([present] if inside else []), *carry, *points]:
        if values not in starts:
            starts.append(values)
    return starts


def _learn(old: optuna.Study, searched: Space) -> Space:
    """The space of a new study: params.yaml's where it was changed, else with other ranges, written into params.yaml.

    Raises UserError where the old study has no complete trial.
    """
    ranked = studies.ranked(old)
    if not ranked:
        raise UserError(f"study {old.study_name!r} has no complete trial to learn from; go on with it first")
    before, now = old.user_attrs.get("definition", {}), searched.definition()
    if any(line.startswith("tune.recipes.") for line in space.difference(before, now)):
        click.echo(f"the ranges are those of {PATH}, which differ from those of {old.study_name}")
        return searched
    new = ranges.changed(
        searched.parameters,
        [values_of(trial, searched.parameters) for trial in ranked],
        lambda path, value: space.refusal(searched, {path: value}) is None,
    )
    edited: dict[str, float] = {}
    for index, (path, parameter) in enumerate(searched.parameters.items()):
        if path in new and isinstance(parameter, Double | Integer):
            low, high = new[path]
            click.echo(f"{PATH}: {path}: {parameter.min:g} … {parameter.max:g} -> {low:g} … {high:g}")
            edited |= {f"tune.parameters.{index}.min": low, f"tune.parameters.{index}.max": high}
    if not edited and space.difference(before, now):
        return searched
    if not edited:
        raise UserError(f"study {old.study_name!r} changes no range: go on with it, with a larger tune.max_trials")
    editing.set_params(edited)
    return space.read(params.read(), searched.tasks)
