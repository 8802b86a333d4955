"""Promotion of the joint model of the current dvc.lock, and rollback to the champion before; both print a report."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import numpy as np

from mtl import lineage
from mtl.config import params
from mtl.config.gate import Gate
from mtl.data import backend, store
from mtl.errors import UserError
from mtl.release import candidate, judging
from mtl.release.decision import Decision, decide
from mtl.tasks import kinds
from mtl.tasks.answers import Answers
from mtl.tracking import artifacts, registry

HEAD = ("score", "required", "this *", "champion *", "p *", "test")


@contextmanager
def exclusive() -> Iterator[None]:
    """Hold this repository's lock for moving the alias. Raises UserError where another process has it."""
    from filelock import FileLock, Timeout

    folder = lineage.root() / ".dvc"
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; run from the root of the repository")
    folder = folder / "tmp"
    folder.mkdir(exist_ok=True)
    try:
        with FileLock(folder / "mtl-promote.lock", timeout=0):
            yield
    except Timeout:
        raise UserError(
            "another `mtl promote` or `mtl rollback` is running in this repository; wait for its end"
        ) from None


def promote(*, dry_run: bool, allow_dirty: bool, again: bool) -> None:
    """Register the models of dvc.lock, judge the joint one, and make it the champion if it passes the gate.

    Args:
        dry_run: judge and print, and change nothing.
        allow_dirty: promote with uncommitted changes, or with stages that would rerun.
        again: promote also a version that was rolled back.

    Raises:
        UserError: it does not pass (the message names each reason), or cannot be judged.
    """
    settings = params.read()
    gate = _gate(settings)
    with exclusive(), tempfile.TemporaryDirectory() as folder:
        if not allow_dirty:
            candidate.check_clean()
        candidate.check_data()
        _check_scores(gate)
        at = registry.aliases(registry.JOINT).get(registry.CHAMPION)
        champion = registry.champion()
        models = candidate.find(Path(folder))
        backend.import_tensorflow()
        backend.configure(settings.hardware, "float32", settings.seed)  # before images are read, from shards by it
        version = registry.find(registry.JOINT, models.joint.contents) if dry_run else _register(models)
        if version is not None and _is_settled(version, champion, again):
            return
        images = judging.validation_images()
        champion_answers: dict[str, Answers] = {}
        indices = np.arange(0)
        if gate.significance is not None and champion is not None:
            champion_answers, indices = judging.champion_answers(champion, settings, images, click.echo)
        answers = judging.validation_answers(models.bundle, settings, images)
        if not set(answers) == set(settings.tasks) == {part.name for part in models.tasks}:
            raise UserError(
                f"{params.PATH} and the joint model of dvc.lock have other tasks or classes; run `dvc repro`"
            )
        decision = decide(gate, answers, champion_answers, indices, models.bundle.relations)
        click.echo(table(decision, gate, artifacts.run_metrics(models.joint.model.run_id), len(images)))
        name = str(version or f"{registry.JOINT} (a new version)")
        before = f"version {at}{'' if champion else ', which is gone,'}" if at else "no version"
        if not decision.passed:
            raise UserError(f"{name} is not promoted: {'; '.join(decision.reasons)}")
        if dry_run or version is None:
            click.echo(f"{name} passes and would become @{registry.CHAMPION}, now {before}; nothing was changed")
            return
        registry.move_champion(version, at)
        click.echo(f"{name} is @{registry.CHAMPION} now, {before} before")


def _gate(settings: params.Params) -> Gate:
    """The gate of params.yaml. Raises UserError where there is none, or where it names an unknown task."""
    if settings.promote is None:
        raise UserError(f"{params.PATH}: there is no promote: section; name at least an accuracy per task in it")
    for key, named in {"accuracy": settings.promote.accuracy, "minimum": settings.promote.minimum}.items():
        for task in named or {}:
            if task not in settings.tasks:
                known = ", ".join(settings.tasks)
                raise UserError(f"{params.PATH}: promote.{key}.{task}: no such task; known: {known}")
    return settings.promote


def _check_scores(gate: Gate) -> None:
    """Raise UserError where the gate asks for a score that a task does not have."""
    for task, minima in gate.minima.items():
        spec = store.read_task(task)
        for score in minima:
            if fault := kinds.fault_of_score(spec, score, "maximize"):
                raise UserError(f"{params.PATH}: promote.minimum.{task}.{score}: {fault}")


def _register(models: candidate.Candidate) -> registry.Version:
    """Register the models that are not registered yet; return the version of the joint model."""
    tags = {"git_commit": lineage.git().get("git_commit", "unknown")}
    for part in models.tasks:
        _register_part(part, tags)
    if registry.find(registry.JOINT, models.joint.contents) is None:
        judging.attach_fingerprints(models.joint.model.run_id)
    return _register_part(models.joint, tags)


def _register_part(part: candidate.Part, tags: dict[str, str]) -> registry.Version:
    known = registry.find(part.name, part.contents)
    version = known or registry.register(part.name, part.model, part.contents, tags)
    click.echo(f"{version}: {'registered before' if known else 'registered'}")
    return version


def _is_settled(version: registry.Version, champion: registry.Version | None, again: bool) -> bool:
    """Tell, and print, whether nothing is to be done: it is the champion, or was rolled back."""
    if champion is not None and version.number == champion.number:
        click.echo(f"{version} is @{registry.CHAMPION} already: nothing to do")
    elif version.rolled_back and not again:
        click.echo(f"{version} was rolled back: nothing done; --again promotes it all the same")
    else:
        return False
    return True


def table(decision: Decision, gate: Gate, metrics: dict[str, float], count: int) -> str:
    """The comparison as a text table.

    Args:
        decision: on `count` validation images.
        gate: what it was decided by.
        metrics: those of main_evaluate's run, on the test images.
        count: the number of validation images.
    """

    def line(name: str, *values: float | None) -> str:
        return f"{name:<18}" + "".join(f"{'' if value is None else format(value, '.4f'):>10}" for value in values)

    lines = [f"{'validation images':<18}" + "".join(f"{name:>10}" for name in HEAD)]
    for row in decision.tasks:
        compared = [row.candidate, row.champion, row.p_value]
        for number, score in enumerate(row.scores):
            name, test = f" {score.name}" if number else row.task, metrics.get(f"tasks.{row.task}.{score.name}")
            lines.append(line(name, score.value, score.minimum, *([None] * 3 if number else compared), test))
    if decision.contradictions is not None:
        test = metrics.get("contradiction_rate")
        lines.append(line("contradictions", decision.contradictions, gate.contradictions, None, None, None, test))
    known = {row.task: row.examples for row in decision.tasks}
    if min(known.values()) < count:
        of_task = ", ".join(f"{task} {examples}" for task, examples in known.items())
        lines.append(f"of the {count} validation images, those with a label: {of_task}")
    images = next((row.images for row in decision.tasks if row.images is not None), None)
    if images is not None:
        lines.append(
            f"* on the {images} validation images that the champion was not trained on; p: how probable so large a lead"
            f" of the champion is by chance, refused below {gate.significance:g}"
        )
    return "\n".join(lines)


def rollback(to: str | None) -> None:
    """Move the alias back to the champion before, or to the version `to`, which needs no present champion.

    Raises UserError where there is no champion, none before it, or no such version.
    """
    with exclusive():
        at = registry.aliases(registry.JOINT).get(registry.CHAMPION)
        champion = registry.champion()
        target = registry.version(registry.JOINT, to) if to else _before(champion, at)
        if target.number == at:
            raise UserError(f"{target} is @{registry.CHAMPION} already")
        registry.move_champion(target, at, back=True)
        click.echo(
            f"{target} is @{registry.CHAMPION} again, {at} no more" if at else f"{target} is @{registry.CHAMPION} now"
        )


def _before(champion: registry.Version | None, at: str | None) -> registry.Version:
    """The champion before this one. Raises UserError where there is none, or it is unknown."""
    name_one = "name one: `mtl rollback --to VERSION`"
    if at is None:
        raise UserError(
            f"no version of {registry.JOINT} is @{registry.CHAMPION}; `mtl promote` makes one, or {name_one}"
        )
    if champion is None:
        raise UserError(registry.dangling_message(registry.JOINT, registry.CHAMPION, at))
    number = champion.tags.get(registry.PREVIOUS)
    if not number:
        raise UserError(f"{champion} is the first champion: there is none before it")
    known = {version.number: version for version in registry.versions(registry.JOINT)}
    if number not in known:
        raise UserError(
            f"version {number}, @{registry.CHAMPION} before, is gone; {name_one} (known: {', '.join(known)})"
        )
    if known[number].rolled_back:
        raise UserError(f"version {number}, @{registry.CHAMPION} before, was rolled back itself; {name_one}")
    return known[number]
