"""Fit the network of one task: deterministic, resumable to the byte."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from mtl.config.recipes import Recipe
from mtl.data import backend
from mtl.data.feeds import Feed, Plan, readable
from mtl.errors import UserError
from mtl.tasks.targets import Head
from mtl.training import hardware, optimizers
from mtl.training.checkpoint import Checkpoint, Row
from mtl.training.losses import accuracy, summed
from mtl.training.multiworker import cluster, collectives, loop

# The code that dvc.yaml names for the stage `train`, below this package. A state that other code left is not resumed.
CODE = ("data", "files.py", "networks", "stages/train.py", "tasks", "training")


def fit(
    model: keras.Model,
    plan: Plan,
    train: Feed,
    validation: Feed,
    folder: Path,
    on_epoch: Callable[[Row], None] = lambda row: None,
    verbose: int = 2,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    judge: Callable[[], Mapping[str, float]] = dict,
) -> tuple[list[Row], int]:
    """Train `model` in place. Return the history, a row per epoch, and the number of epochs trained in this call.

    Args:
        model: as `catalog.build` returns it.
        plan: recipe, seed and heads; the loss is the heads' weighted sum, `acc` their mean. The rest is decided here.
        train: images and labels; those of several heads are (N, T).
        validation: likewise; may be empty, then rows have no `val_…` and `keep: best` is refused by params.
        folder: where the state of a killed training is; the same training goes on from it.
        on_epoch: called with each row, with those of a resumed training first.
        callbacks: more of Keras' callbacks; they must not change the model.
        judge: called after each epoch; its figures join the epoch's row, and stay in it where the training goes on.

    Call it outside of the strategy's scope, in which Keras would turn what it saves into variables.
    Under `multi_worker` the chief's folder is the one that counts, and another worker's history is what it saw itself.

    Raises:
        UserError: the loss became NaN or infinite, the recipe does not fit the images, they cannot be read, or another
            worker is gone.
    """
    recipe = plan.recipe
    if recipe.keep == "best" and not len(validation):
        raise UserError("keep: 'best' is chosen on the validation images and there are none; add some, or keep: last")
    strategy = model.distribute_strategy
    together = hardware.name(strategy) == "multi_worker"
    chief = not together or cluster.read().chief
    digest = _digest(model, plan, train, validation)
    checkpoint = Checkpoint(folder, digest, lambda rows: best_epoch(rows, recipe))
    heads = plan.heads or (Head(model.output_shape[-1]),)
    per_epoch = train.steps(recipe)
    if per_epoch % recipe.steps_per_execution:  # Keras would go on into the next epoch
        raise UserError(
            f"steps_per_execution: {recipe.steps_per_execution} does not divide the {per_epoch} steps of an epoch;"
            " take one that does, or set steps_per_epoch to a multiple of it"
        )
    if together:
        loop.check(recipe, train, strategy.num_replicas_in_sync)
    with strategy.scope():
        model.compile(
            optimizer=optimizers.build(recipe, per_epoch * recipe.epochs),
            loss=summed(recipe, heads, model),
            metrics=accuracy(heads),
            steps_per_execution=recipe.steps_per_execution,
        )
        model.optimizer.build(model.trainable_variables)
    if checkpoint.epoch:
        print(f"goes on after epoch {checkpoint.epoch} of {recipe.epochs}, where it was stopped", flush=True)
        checkpoint.load(model, checkpoint.epoch)
    before = collectives.synchronise(model, checkpoint.epoch, digest) if together else checkpoint.epoch
    plan = replace(plan, heads=heads, first_epoch=before)
    for row in checkpoint.history:
        on_epoch(row)

    def end_epoch(epoch: int, logs: dict[str, float]) -> None:
        row: Row = {"epoch": epoch + 1, **{key: float(value) for key, value in sorted(logs.items())}}
        row |= judge()
        broken = [(key, value) for key, value in row.items() if not math.isfinite(value)]
        if not all(np.isfinite(weights).all() for weights in model.get_weights()):
            broken.append(("a weight", "nan or inf"))
        if broken:
            raise UserError(
                f"{broken[0][0]} became {broken[0][1]} in epoch {epoch + 1}: no model is kept;"
                " try a smaller learning_rate, or precision: float32"
            )
        if chief:
            checkpoint.save(model, row)
        on_epoch(row)

    called = [keras.callbacks.LambdaCallback(on_epoch_end=end_epoch), *callbacks]
    with readable(train, validation):
        if before < recipe.epochs and together:
            ours = cluster.read()
            share = replace(plan, worker=ours.index, workers=len(ours.workers))
            loop.fit(model, share, train, validation, called, verbose)
        elif before < recipe.epochs:
            model.fit(
                train.stream(plan),
                shuffle=False,  # the stream is shuffled already
                steps_per_epoch=per_epoch,
                epochs=recipe.epochs,
                initial_epoch=before,
                validation_data=validation.in_order(heads) if len(validation) else None,
                callbacks=[keras.callbacks.TerminateOnNaN(), *called],
                verbose=verbose,
            )
    kept = best_epoch(checkpoint.history, recipe) if chief else recipe.epochs
    if kept != recipe.epochs:
        checkpoint.load(model, kept)
    return checkpoint.history, recipe.epochs - before


def best_epoch(history: Sequence[Row], recipe: Recipe) -> int:
    """The epoch that the recipe keeps: the last, or the first of those with the smallest validation loss."""
    if recipe.keep == "last":
        return len(history)
    return min(history, key=lambda row: row["val_loss"])["epoch"]


def _digest(model: keras.Model, plan: Plan, *feeds: Feed) -> str:
    """Digest of all that decides a training's result, so that no other training goes on from its state."""
    digest = hashlib.blake2b(digest_size=16)
    where = tf.config.threading.get_intra_op_parallelism_threads(), model.distribute_strategy.num_replicas_in_sync
    outside = backend.settings(os.environ)
    told = plan.recipe.model_dump_json(), str(plan.seed), str(plan.heads)
    for text in (model.to_json(), *told, str(where), str(outside)):
        digest.update(text.encode())
    package = Path(__file__).parents[1]
    for path in sorted(path for name in CODE for path in (package / name, *(package / name).rglob("*.py"))):
        if path.suffix == ".py":
            digest.update(path.read_bytes())
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).data)
    for part in (part for feed in feeds for part in feed.content()):
        digest.update(part)
    return digest.hexdigest()
