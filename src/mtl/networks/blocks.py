"""The parts of the compact networks: a trunk of convolutional blocks, heads, whitening."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from numpy.lib.stride_tricks import sliding_window_view

WHITENING = "whitening"  # name of the layer whose kernel comes from the training images
WHITENED = 5000  # training images that the whitening layer is made from


class FusedBatchNormalization(layers.BatchNormalization):
    """Batch normalisation without scale, in training one bfloat16 kernel instead of a chain of float32 ones.

    It has the weights and the configuration of the Keras layer, which takes its place when the model is saved. Where
    several devices or machines share a batch, its statistics are those of the whole batch.
    """

    def call(self, inputs: Any, training: bool | None = None, mask: Any = None) -> Any:
        if not training:
            return super().call(inputs, training=training, mask=mask)
        if tf.distribute.in_cross_replica_context() or tf.distribute.get_strategy().num_replicas_in_sync == 1:
            outputs, mean, variance = self._of_one(inputs)
        else:
            outputs, mean, variance = self._of_all(inputs)
        for moving, current in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + current * (1 - self.momentum))
        return outputs

    def _of_one(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The normalised inputs, and mean and variance (n - 1 in the denominator) of each channel."""
        outputs, mean, variance = tf.compat.v1.nn.fused_batch_norm(
            inputs,
            tf.ones_like(self.moving_mean),
            tf.convert_to_tensor(self.beta),
            epsilon=self.epsilon,
            is_training=True,
        )
        return outputs, mean, variance

    def _of_all(self, inputs: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
        """The same over the images of all replicas. Gradients go back through the statistics of the others too."""
        x = tf.cast(inputs, tf.float32)
        replica = tf.distribute.get_replica_context()
        own = tf.cast(tf.size(x) // x.shape[-1], tf.float32)
        total = replica.all_reduce("sum", tf.concat([tf.reduce_sum(x, axis=(0, 1, 2)), [own]], axis=0))
        count = total[-1]
        mean = total[:-1] / count
        squares = replica.all_reduce("sum", tf.reduce_sum(tf.square(x - mean), axis=(0, 1, 2)))
        variance = squares / count
        outputs = (x - mean) * tf.math.rsqrt(variance + self.epsilon) + tf.cast(self.beta, tf.float32)
        return tf.cast(outputs, inputs.dtype), mean, squares / tf.maximum(count - 1, 1)


@keras.saving.register_keras_serializable("mtl")
class TaskUncertainty(keras.Layer):
    """Passes its inputs on and holds `log_variances`, float32 (heads,): the log σ² of each task, learned with the loss.

    Kendall, Gal and Cipolla, Multi-task learning using uncertainty to weigh losses, CVPR 2018.
    """

    def __init__(self, heads: int, **settings: Any) -> None:
        super().__init__(**{"dtype": "float32", **settings})
        self.heads = heads

    def build(self, input_shape: Any) -> None:
        self.log_variances = self.add_weight(shape=(self.heads,), initializer="zeros", name="log_variances")

    def call(self, inputs: Any) -> Any:
        return inputs

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "heads": self.heads}


def _normalise(x: keras.KerasTensor) -> keras.KerasTensor:
    return layers.Activation("silu")(FusedBatchNormalization(momentum=0.6, epsilon=1e-5, scale=False)(x))


def trunk(inputs: keras.KerasTensor, widths: Sequence[int]) -> keras.KerasTensor:
    """Features (N, h, w, widths[-1]) of uint8 images (N, H, W, C): whitening, then a block per width."""
    x = layers.Rescaling(1 / 128, offset=-1.0)(inputs)
    x = layers.Conv2D(2 * 4 * inputs.shape[-1], 2, use_bias=False, trainable=False, name=WHITENING)(x)
    x = layers.Activation("silu")(x)
    for width in widths:
        x = layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x)
        x = _normalise(layers.MaxPooling2D(2)(x))
        x = _normalise(layers.Conv2D(width, 3, padding="same", use_bias=False, kernel_initializer="he_normal")(x))
    return x


def head(features: keras.KerasTensor, outputs: int, activation: str = "softmax") -> keras.KerasTensor:
    """Answers, float32 (N, outputs), of the features (N, h, w, C) of a trunk."""
    x = layers.GlobalAveragePooling2D()(features)
    if activation == "softmax":  # which a bias for each class helps little
        return layers.Softmax(dtype="float32")(layers.Dense(outputs, use_bias=False)(x))
    return layers.Activation(activation, dtype="float32")(layers.Dense(outputs)(x))


def start_at_identity(model: keras.Model) -> None:
    """Let the first filters of every trainable convolution each pass one channel on; the others stay as they are.

    Zagoruyko and Komodakis, DiracNets (arXiv:1706.00388), as airbench has it.
    """
    for layer in model.layers:
        if isinstance(layer, layers.Conv2D) and layer.trainable:
            (kernel,) = layer.get_weights()  # (height, width, channels, filters)
            height, width, *sizes = kernel.shape
            kernel[..., : min(sizes)] = 0
            for channel in range(min(sizes)):
                kernel[height // 2, width // 2, channel, channel] = 1
            layer.set_weights([kernel])


def whitening_kernel(images: np.ndarray, size: int = 2, epsilon: float = 5e-4) -> np.ndarray:
    """A convolution kernel that makes the patches of `images` uncorrelated, with unit variance, and its negative.

    The eigenvectors of the patches' covariance, divided by the root of their eigenvalues (Page, How to train your
    ResNet, 2018). Pixels are taken as `compact` rescales them.

    Args:
        images: uint8 (N, H, W, C); the first WHITENED are used.

    Returns:
        float32 (size, size, C, 2·size²·C).
    """
    windows = sliding_window_view(images[:WHITENED] / np.float32(128) - 1, (size, size), axis=(1, 2))
    patches = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, size * size * images.shape[-1])
    values, vectors = np.linalg.eigh(np.cov(patches, rowvar=False))
    kernel = (vectors / np.sqrt(values + epsilon)).reshape(size, size, images.shape[-1], -1)
    return np.concatenate([kernel, -kernel], axis=-1).astype(np.float32)
