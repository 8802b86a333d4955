"""One model trained by several machines: TensorFlow's own training loop, as Keras 3's `fit` cannot do it.

Each worker takes its share of every batch, gradients are summed, and so every worker holds the same weights after every
step: those that one process would have, but for the rounding of sums.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from mtl.config.recipes import Recipe
from mtl.data.feeds import Feed, Plan
from mtl.errors import UserError
from mtl.tasks.kinds import PerExample
from mtl.tasks.targets import Head
from mtl.training.losses import mean_accuracy
from mtl.training.multiworker import collectives


def check(recipe: Recipe, train: Feed, workers: int) -> None:
    """Raise UserError where one of the `workers` would have no image of a batch."""
    last = recipe.batch_size if recipe.steps_per_epoch else len(train) % recipe.batch_size or recipe.batch_size
    if min(recipe.batch_size, last) < workers:
        raise UserError(
            f"strategy multi_worker: a batch of {min(recipe.batch_size, last)} is too small for {workers} workers;"
            " choose another batch_size, or set steps_per_epoch, which makes all batches whole"
        )


def fit(
    model: keras.Model,
    plan: Plan,
    train: Feed,
    validation: Feed,
    callbacks: Sequence[keras.callbacks.Callback],
    verbose: int,
) -> None:
    """Train a compiled `model` in place, as `Model.fit` does: the same logs, the same callbacks.

    Args:
        model: compiled in the strategy's scope; its loss and optimizer are used.
        plan: with this worker's share of each batch; `steps_per_execution` steps run in one call.
        train: images and labels; this worker takes its share of each batch.
        validation: likewise; may be empty.
        callbacks: called at the end of each call of steps and of each epoch.
        verbose: as Keras has it.
    """
    recipe, heads, strategy = plan.recipe, plan.heads, model.distribute_strategy
    per_epoch, at_once = train.steps(recipe), recipe.steps_per_execution
    step, judge = _step(model, heads), _judge(model, heads)

    @tf.function
    def steps(iterator: Any) -> tf.Tensor:
        sums = strategy.run(step, args=next(iterator))
        for _ in tf.range(at_once - 1):
            sums += strategy.run(step, args=next(iterator))
        return sums

    @tf.function
    def judged(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        return strategy.run(judge, args=(images, targets))

    @tf.function
    def total(sums: tf.Tensor) -> tf.Tensor:
        return strategy.run(collectives.total, args=(sums,))

    # Batch normalisation without the other workers' statistics leaves each worker its own averages.
    averages = [v for v in model.non_trainable_variables if v.value.dtype.is_floating]

    @tf.function
    def means() -> list[tf.Tensor]:
        return strategy.run(collectives.mean, args=([tf.identity(v.value) for v in averages],))

    def size(number: tf.Tensor) -> tf.Tensor:
        """Images of the whole batch of a step, of all workers."""
        left = recipe.batch_size if recipe.steps_per_epoch else len(train) - number % per_epoch * recipe.batch_size
        return tf.cast(tf.minimum(tf.constant(recipe.batch_size, tf.int64), left), tf.float32)

    stream = train.stream(plan)
    sizes = tf.data.Dataset.range(plan.first_epoch * per_epoch, recipe.epochs * per_epoch).map(size)
    iterator = iter(tf.data.Dataset.zip(stream, sizes).map(lambda pair, count: (*pair, count)).prefetch(2))
    hooks = keras.callbacks.CallbackList(
        list(callbacks),
        add_progbar=verbose > 0 and plan.worker == 0,
        model=model,
        verbose=verbose,
        epochs=recipe.epochs,
        steps=per_epoch,
    )
    with collectives.workers_stay():
        hooks.on_train_begin()
        for epoch in range(plan.first_epoch, recipe.epochs):
            hooks.on_epoch_begin(epoch)
            sums = np.zeros(3)
            for start in range(0, per_epoch, at_once):
                hooks.on_train_batch_begin(start)
                sums += steps(iterator).numpy()
                hooks.on_train_batch_end(start + at_once - 1)
            for variable, value in zip(averages, means(), strict=True):
                variable.assign(value)
            logs = _logs(total(sums).numpy(), heads)
            if len(validation):
                sums = np.zeros(3)
                for images, targets in validation.in_order(heads):
                    share = slice(plan.worker, None, plan.workers)
                    sums += judged(images[share], targets[share]).numpy()
                logs |= {f"val_{key}": value for key, value in _logs(total(sums).numpy(), heads).items()}
            hooks.on_epoch_end(epoch, logs)
        hooks.on_train_end()


def _step(model: keras.Model, heads: Sequence[Head]) -> Callable[..., tf.Tensor]:
    """A training step on this worker's share: sums of losses and of accuracies, and the number of images."""
    replicas, correct = model.distribute_strategy.num_replicas_in_sync, _correct(heads)

    def step(images: tf.Tensor, targets: tf.Tensor, size: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            outputs = tf.cast(model(images, training=True), tf.float32)
            losses = tf.reduce_sum(model.loss.call(targets, outputs))
            own = tf.add_n(model.losses) if model.losses else 0.0  # a person's network may have regularizers
            minimised = losses / size + own / replicas
        variables = model.trainable_variables
        gradients = tape.gradient(minimised, variables)
        model.optimizer.apply_gradients(zip(gradients, variables, strict=True))  # it sums them over the workers
        count = tf.cast(tf.shape(images)[0], tf.float32)
        return tf.stack([losses + own * count, tf.reduce_sum(correct(targets, outputs)), count])

    return step


def _judge(model: keras.Model, heads: Sequence[Head]) -> Callable[..., tf.Tensor]:
    """The same sums of validation images."""
    correct = _correct(heads)

    def judge(images: tf.Tensor, targets: tf.Tensor) -> tf.Tensor:
        outputs = tf.cast(model(images, training=False), tf.float32)
        count = tf.cast(tf.shape(images)[0], tf.float32)
        own = tf.add_n(model.losses) if model.losses else 0.0
        losses = tf.reduce_sum(model.loss.call(targets, outputs)) + own * count
        return tf.stack([losses, tf.reduce_sum(correct(targets, outputs)), count])

    return judge


def _correct(heads: Sequence[Head]) -> PerExample:
    """The accuracy of each example; 0 where no head has one."""
    return mean_accuracy(heads) or (lambda targets, outputs: tf.zeros(tf.shape(outputs)[0]))


def _logs(sums: np.ndarray, heads: Sequence[Head]) -> dict[str, float]:
    """Loss and, where a head has one, accuracy from the sums of all workers."""
    loss, acc, count = sums
    return {"loss": loss / count} | ({} if mean_accuracy(heads) is None else {"acc": acc / count})
