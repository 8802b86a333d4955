"""Events of a training for TensorBoard: `tensorboard: true` in a recipe writes logs/<task>, and changes no result.

TensorFlow alone writes them, as the protocol buffers that TensorBoard reads. TensorBoard need not be installed.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
import tensorflow as tf

from mtl.config.recipes import Recipe
from mtl.data.feeds import Feed, Plan
from mtl.evaluation import figures
from mtl.tasks import statistics
from mtl.tasks.kinds.classes import MOST_IN_CONFUSION
from mtl.tasks.spec import TaskSpec

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOGS = Path("logs")  # no DVC out
SAMPLES = 24  # images of the first batch that are shown
BUCKETS = 30  # of a histogram


def callbacks(recipe: Recipe, task: TaskSpec, train: Feed, validation: Feed) -> list[keras.callbacks.Callback]:
    """The callback for the recipe's `tensorboard`; none where that is false.

    Args:
        recipe: its `tensorboard` may name the steps of a profile.
        task: the folder of its name in `logs` is written, and emptied before unless a killed training resumes.
        train: training images, of whose first batch, augmented, some are shown.
        validation: images of the confusion matrix, which tasks of up to MOST_IN_CONFUSION classes have.
    """
    if not recipe.tensorboard:
        return []
    profile = None if recipe.tensorboard is True else recipe.tensorboard.profile
    return [Board(LOGS / task.name, task, recipe, train, validation, profile)]


class Board(keras.callbacks.Callback):
    """Writes losses, accuracies, the learning rate, weight histograms, the graph, pictures and a profile."""

    def __init__(
        self,
        folder: Path,
        task: TaskSpec,
        recipe: Recipe,
        train: Feed,
        validation: Feed,
        profile: tuple[int, ...] | None,
    ) -> None:
        super().__init__()
        self.folder, self.task, self.recipe = folder, task, recipe
        self.train, self.validation, self.profile = train, validation, profile
        self.writers: dict[str, Any] = {}
        self.steps = 0  # done by this process
        self.is_profiling = False

    def on_epoch_begin(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        if self.writers:
            return
        if epoch == 0:
            shutil.rmtree(self.folder, ignore_errors=True)
        for split in ("train", "validation") if len(self.validation) else ("train",):
            (self.folder / split).mkdir(parents=True, exist_ok=True)
            self.writers[split] = tf.summary.create_file_writer(str(self.folder / split))
        self.forward = tf.function(lambda images: self.model(images, training=False))
        with self.writers["train"].as_default():
            spec = tf.TensorSpec((None, *self.train.shape), tf.uint8)
            tf.summary.graph(self.forward.get_concrete_function(spec).graph)
            self._write("train", "images", epoch, image=_image(self._samples()))

    def on_train_batch_begin(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.first_batch = batch
        if self.profile and self.steps + 1 >= self.profile[0] and not self.is_profiling:
            tf.profiler.experimental.start(str(self.folder))
            self.is_profiling = True

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.steps += batch - self.first_batch + 1  # several, with steps_per_execution
        if self.profile and self.is_profiling and self.steps >= self.profile[1]:
            self._end_profile()

    def on_epoch_end(self, epoch: int, logs: Mapping[str, float] | None = None) -> None:
        for key, value in (logs or {}).items():
            split = "validation" if key.startswith("val_") else "train"
            self._write(split, key.removeprefix("val_"), epoch + 1, simple_value=float(value))
        rate = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self._write("train", "learning_rate", epoch + 1, simple_value=rate)
        for variable in self.model.variables:
            values = variable.numpy().astype(np.float64)
            self._write("train", variable.path, epoch + 1, histo=_histogram(values))
        is_drawn = self.task.kind == "classes" and len(self.task.names) <= MOST_IN_CONFUSION
        if len(self.validation) and is_drawn:
            figure = figures.confusion(self.task.name, self._confusion())
            self._write("validation", "confusion", epoch + 1, image=_image(figure))
        for writer in self.writers.values():
            writer.flush()

    def on_train_end(self, logs: Mapping[str, float] | None = None) -> None:
        if self.profile and self.is_profiling:
            self._end_profile()
        elif self.profile:
            print(f"tensorboard: no profile: the training ended after step {self.steps}, before {self.profile[0]}")
        for writer in self.writers.values():
            writer.close()

    def _end_profile(self) -> None:
        tf.profiler.experimental.stop()
        self.profile = None

    def _write(self, split: str, tag: str, step: int, **value: Any) -> None:
        """Write one value of a tag: simple_value, image or histo."""
        summary = tf.compat.v1.Summary(value=[tf.compat.v1.Summary.Value(tag=tag, **value)])
        with self.writers[split].as_default():
            tf.summary.experimental.write_raw_pb(summary.SerializeToString(), step=step)

    def _samples(self) -> Figure:
        """A figure of the first images that the network trains on."""
        images, labels = next(self.train.batches(Plan(self.recipe, seed=0)))
        pictures = [
            figures.Picture(image, self._caption(label), ())
            for image, label in zip(images[:SAMPLES], labels[:SAMPLES], strict=True)
        ]
        return figures.gallery(f"{self.task.name}: images as the network receives them", pictures)

    def _caption(self, label: np.ndarray) -> str:
        """A label as the feed carries it: the name of a class, else the numbers."""
        return self.task.names[int(label)] if self.task.kind == "classes" else np.array2string(label, precision=2)

    def _confusion(self) -> list[statistics.Row]:
        actual, predicted = [], []
        for images, labels in self.validation.whole(500):
            actual.append(labels)
            predicted.append(np.argmax(self.forward(tf.constant(images)), axis=1))
        return statistics.confusion(np.concatenate(actual), np.concatenate(predicted), self.task.names)


def _image(figure: Figure) -> tf.compat.v1.Summary.Image:
    """A figure as an image of a summary; `figures.png` draws 100 pixels per inch."""
    width, height = (round(100 * inches) for inches in figure.get_size_inches())
    return tf.compat.v1.Summary.Image(
        height=height, width=width, colorspace=4, encoded_image_string=figures.png(figure)
    )


def _histogram(values: np.ndarray) -> tf.compat.v1.HistogramProto:
    counts, edges = np.histogram(values, BUCKETS)
    return tf.compat.v1.HistogramProto(
        min=values.min(),
        max=values.max(),
        num=values.size,
        sum=values.sum(),
        sum_squares=np.square(values).sum(),
        bucket_limit=edges[1:].tolist(),
        bucket=counts.tolist(),
    )
