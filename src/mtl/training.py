"""Fit the network of one task: deterministic, resumable to the byte."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from numpy.lib.stride_tricks import sliding_window_view

from mtl import optimizers
from mtl.checkpoint import Checkpoint
from mtl.errors import UserError
from mtl.heads import Head, accuracy, one_hot, summed
from mtl.params import Recipe

Row = dict[str, Any]  # one epoch: epoch, loss, acc and, with validation images, val_loss, val_acc


def batches(
    images: np.ndarray, targets: np.ndarray, recipe: Recipe, seed: int, first_epoch: int = 0
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield augmented batches from `first_epoch` on: a pure function of the seed, the epoch and the step.

    Args:
        images: uint8 (N, H, W, C).
        targets: float32 (N, K), one-hot.

    Yields:
        uint8 (B, H, W, C) and float32 (B, K); the last batch of an epoch may be smaller.
    """
    augmentation = recipe.augmentation
    windows = _windows(images, augmentation.translate)
    side = np.random.default_rng(seed).integers(2, size=len(images))
    for epoch in range(first_epoch, recipe.epochs):
        rng = np.random.default_rng([seed, epoch])
        order = rng.permutation(len(images))
        rows, columns = rng.integers(2 * augmentation.translate + 1, size=(2, len(images)))
        for start in range(0, len(order), recipe.batch_size):
            chosen = order[start : start + recipe.batch_size]
            batch = windows[chosen, rows[chosen], columns[chosen]].transpose(0, 2, 3, 1)
            if augmentation.flip:
                # In turn rather than at random: two epochs show both sides of every image (arXiv:2404.00498).
                mirrored = (side[chosen] + epoch) % 2 == 1
                batch[mirrored] = batch[mirrored, :, ::-1]
            yield batch, targets[chosen]


def _windows(images: np.ndarray, pad: int) -> np.ndarray:
    """All positions of the image's frame on the padded image, (N, rows, columns, C, H, W), as a view."""
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)), mode="reflect") if pad else images
    return sliding_window_view(padded, images.shape[1:3], axis=(1, 2))


def fit(
    model: keras.Model,
    recipe: Recipe,
    seed: int,
    train: tuple[np.ndarray, np.ndarray],
    validation: tuple[np.ndarray, np.ndarray],
    folder: Path,
    on_epoch: Callable[[Row], None] = lambda row: None,
    verbose: int = 2,
    heads: Sequence[Head] = (),
) -> tuple[list[Row], int]:
    """Train `model` in place; return the history, one row per epoch, and how many of them were trained just now.

    Args:
        model: as `networks.build` gives it.
        train: images uint8 (N, H, W, C) and labels uint8 (N,), or (N, T) for T heads.
        validation: likewise; may be empty, then rows have no `val_…` and `keep: best` is refused by params.
        folder: where the state of a killed training is; the same training goes on from it.
        on_epoch: called with each row, those of a resumed training first.
        heads: of a network that answers several tasks; the loss is the weighted sum over them, `acc` their mean.

    Raises:
        UserError: the loss became NaN or infinite.
    """
    checkpoint = Checkpoint(folder, _digest(model, recipe, seed, heads, train, validation))
    classes = model.output_shape[-1]
    heads = heads or [Head(classes)]
    per_epoch = math.ceil(len(train[0]) / recipe.batch_size)
    model.compile(
        optimizer=optimizers.build(recipe, per_epoch * recipe.epochs),
        loss=summed(_loss(recipe), heads),
        metrics=[accuracy(heads)],
    )
    model.optimizer.build(model.trainable_variables)
    if checkpoint.epoch:
        print(f"goes on after epoch {checkpoint.epoch} of {recipe.epochs}, where it was stopped", flush=True)
        model.load_weights(checkpoint.weights(checkpoint.epoch))
    before = checkpoint.epoch
    for row in checkpoint.history:
        on_epoch(row)
    targets = one_hot(train[1], heads)
    stream = tf.data.Dataset.from_generator(
        lambda: batches(train[0], targets, recipe, seed, before),
        output_signature=(
            tf.TensorSpec((None, *train[0].shape[1:]), tf.uint8),
            tf.TensorSpec((None, classes), tf.float32),
        ),
    ).prefetch(2)

    def end_epoch(epoch: int, logs: dict[str, float]) -> None:
        row: Row = {"epoch": epoch + 1, **{key: float(value) for key, value in sorted(logs.items())}}
        broken = [(key, value) for key, value in row.items() if not math.isfinite(value)]
        if not all(np.isfinite(weights).all() for weights in model.get_weights()):
            broken.append(("a weight", "nan or inf"))
        if broken:
            raise UserError(
                f"{broken[0][0]} became {broken[0][1]} in epoch {epoch + 1}: no model is kept;"
                " try a smaller learning_rate, or precision: float32"
            )
        checkpoint.save(model, row, keep=best_epoch([*checkpoint.history, row], recipe))
        on_epoch(row)

    if before < recipe.epochs:
        model.fit(
            stream,
            shuffle=False,  # the stream is shuffled already
            steps_per_epoch=per_epoch,
            epochs=recipe.epochs,
            initial_epoch=before,
            validation_data=(validation[0], one_hot(validation[1], heads)) if len(validation[0]) else None,
            validation_batch_size=500,
            callbacks=[keras.callbacks.TerminateOnNaN(), keras.callbacks.LambdaCallback(on_epoch_end=end_epoch)],
            verbose=verbose,
        )
    kept = best_epoch(checkpoint.history, recipe)
    if kept != recipe.epochs:
        model.load_weights(checkpoint.weights(kept))
    return checkpoint.history, recipe.epochs - before


def best_epoch(history: list[Row], recipe: Recipe) -> int:
    """The epoch that the recipe keeps: the last, or the first of those with the smallest validation loss."""
    if recipe.keep == "last":
        return len(history)
    return min(history, key=lambda row: row["val_loss"])["epoch"]


def _loss(recipe: Recipe) -> keras.Loss:
    losses = {
        "categorical_crossentropy": keras.losses.CategoricalCrossentropy,
        "binary_crossentropy": keras.losses.BinaryCrossentropy,
    }
    return losses[recipe.loss](label_smoothing=recipe.label_smoothing)


def _digest(
    model: keras.Model, recipe: Recipe, seed: int, heads: Sequence[Head], *arrays: tuple[np.ndarray, np.ndarray]
) -> str:
    """Digest of all that decides a training's result, so that a state is never taken up by another training."""
    digest = hashlib.blake2b(digest_size=16)
    hardware = tf.config.threading.get_intra_op_parallelism_threads(), tf.distribute.get_strategy().num_replicas_in_sync
    for text in (model.to_json(), recipe.model_dump_json(), str(seed), str(hardware), str(heads)):
        digest.update(text.encode())
    for module in ("training", "optimizers", "networks", "blocks", "heads", "hardware"):
        digest.update(Path(__file__).with_name(f"{module}.py").read_bytes())
    for array in (*model.get_weights(), *(array for pair in arrays for array in pair)):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()
