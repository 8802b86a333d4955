"""Heads of a network: each task's outputs, and the targets that its loss takes, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from mtl.config.params import PATH, Params
from mtl.config.recipes import LossName, Recipe
from mtl.errors import UserError
from mtl.tasks import kinds, weights
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Head, Targets, parts

if TYPE_CHECKING:
    import keras


def of_task(settings: Params, spec: TaskSpec, *targets: Targets) -> Head:
    """The head of a task by its recipe, which is trained and validated with `targets`.

    Raises UserError where its loss or class weights do not fit the kind.
    """
    recipe = settings.tasks[spec.name].recipe
    place = f"{PATH}: recipes.{recipe}"
    class_weights = weights.of_classes(settings.recipes[recipe].class_weight, spec, f"{place}.class_weight")
    loss = loss_name(settings.recipes[recipe], spec.kind, f"{place}.loss: {spec.name}")
    gaps = not all(part.known.all() for part in targets)
    return Head(len(spec.names), class_weights=class_weights, kind=spec.kind, loss=loss, gaps=gaps)


def carried(spec: TaskSpec, targets: Targets, head: Head) -> np.ndarray:
    """The labels as a feed carries them to a head, (N,) or (N, ·)."""
    return kinds.find(spec.kind).carried(spec, targets, head.gaps)


def loss_name(recipe: Recipe, kind: str, place: str) -> LossName:
    """The recipe's loss, or where it says nothing the kind's; UserError, which begins with `place`, if unfit."""
    losses = kinds.find(kind).LOSSES
    if recipe.loss == "auto":
        return losses[0]
    if recipe.loss not in losses:
        raise UserError(f"{place} is of the kind {kind}; take {' or '.join(losses)}, or auto, and not {recipe.loss}")
    return recipe.loss


def loss(recipe: Recipe, head: Head) -> keras.Loss:
    """The loss of a head, of Keras tensors."""
    kind = kinds.find(head.kind)
    name = head.loss or (kind.LOSSES[0] if recipe.loss == "auto" else recipe.loss)
    return kind.loss(name, recipe.label_smoothing, head)


def encode(labels: np.ndarray, heads: Sequence[Head]) -> np.ndarray:
    """The targets of all heads, float32 (N, ·), of labels as a feed carries them, (N,) or (N, ·)."""
    block = labels.reshape(len(labels), -1)
    each = zip(heads, parts(kinds.find(head.kind).width(head) for head in heads), strict=True)
    return np.concatenate([kinds.find(head.kind).encode(block[:, part], head) for head, part in each], axis=1)


def target_columns(heads: Sequence[Head]) -> list[slice]:
    """The columns of each head in what `encode` returns."""
    return parts(encode(np.zeros((1, kinds.find(head.kind).width(head))), [head]).shape[1] for head in heads)
