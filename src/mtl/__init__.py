"""Multi-task learning with independent models: the library the DVC stages are made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mtl.release.predictor import Predictor


def load(uri: str, imports: Sequence[str] = ()) -> Predictor:
    """Load models from MLflow, `mtl.load("models:/joint@champion")`; see `mtl.release.predictor.load`."""
    from mtl.release import predictor

    return predictor.load(uri, imports)
