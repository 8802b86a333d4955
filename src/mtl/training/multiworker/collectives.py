"""Exchange between the workers of `multi_worker`: sums, means, and the values of the chief.

Worker 0, the chief, alone has checkpoints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import numpy as np
import tensorflow as tf

from mtl.errors import UserError

# What a collective operation raises when another worker is gone, or stopped answering (after about 10 s).
GONE = (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.DeadlineExceededError)


@contextmanager
def workers_stay() -> Iterator[None]:
    """Turn the errors of TensorFlow where another worker is gone into a UserError."""
    try:
        yield
    except GONE as error:
        raise UserError(
            f"another worker is gone ({type(error).__name__}): start all workers again, and the training goes on after"
            " the last whole epoch"
        ) from None


def synchronise(model: keras.Model, epoch: int, digest: str) -> int:
    """Give every worker the chief's epoch, weights and optimizer's state; return the epoch.

    Raises UserError where a worker's `digest` of what decides the training is another than the chief's.
    """
    mine, strategy = np.frombuffer(bytes.fromhex(digest), np.int64), model.distribute_strategy

    @tf.function
    def chiefs(values: list[tf.Tensor]) -> list[tf.Tensor]:
        return strategy.run(of_chief, args=(values,))

    @tf.function
    def summed(value: tf.Tensor) -> tf.Tensor:
        return strategy.run(total, args=(value,))

    with workers_stay():
        theirs, epoch = (value.numpy() for value in chiefs([tf.constant(mine), tf.constant(epoch, tf.int64)]))
        differs = int(summed(tf.constant((theirs != mine).any(), tf.int64)))
        if differs:
            raise UserError(
                f"strategy multi_worker: {differs} of the workers are given other images, labels, parameters or code"
                " than worker 0: all must have the same"
            )
        if epoch:
            variables = [*model.variables, *model.optimizer.variables]
            # Collectives do not support unsigned numbers, such as the states of random generators.
            wide = [
                tf.identity(v.value) if v.value.dtype.is_floating else tf.cast(v.value, tf.int64) for v in variables
            ]
            for variable, value in zip(variables, chiefs(wide), strict=True):
                variable.assign(tf.cast(value, variable.value.dtype))
    return int(epoch)


def total(value: tf.Tensor) -> tf.Tensor:
    """The sum of the workers' values."""
    # An input of a graph has no device yet and cannot be reduced. Its copy is on this worker's device.
    return tf.distribute.get_replica_context().all_reduce("sum", tf.identity(value))


def _chief_value(value: tf.Tensor) -> tf.Tensor:
    chief = tf.equal(tf.distribute.get_replica_context().replica_id_in_sync_group, 0)
    return total(tf.where(chief, value, tf.zeros_like(value)))


def of_chief(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """The chief's values."""
    return [_chief_value(value) for value in values]


def mean(values: list[tf.Tensor]) -> list[tf.Tensor]:
    """The means of the workers' values, and exactly these where all have the same."""
    replica, means = tf.distribute.get_replica_context(), []
    for value in values:
        first = _chief_value(value)
        means.append(first + replica.all_reduce("mean", value - first))
    return means
