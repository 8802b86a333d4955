"""Prediction in Python with models from MLflow: `mtl.load("models:/joint@champion").predict("cat.png")`."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageOps

from mtl.errors import UserError
from mtl.sources import decoding
from mtl.tasks import kinds, relations
from mtl.tasks.relations import UNRELATED, Relations
from mtl.tasks.spec import TaskSpec
from mtl.tracking import bundles

if TYPE_CHECKING:
    import keras

Picture = str | Path | bytes | Image.Image | np.ndarray
_PNG_MODES = ("1", "L", "LA", "I", "I;16", "P", "RGB", "RGBA")


@dataclass(frozen=True)
class Answer:
    """The answer to one task for an image; what its kind does not have is None.

    Attributes:
        name: of `classes`: the name of the label.
        probability: of `classes`: its probability.
        probabilities: of `classes` and `multilabel`: those of all names, the model's outputs as they are; those of a
            network that ends in sigmoids need not sum to 1.
        names: of `multilabel`: those that are taken for true.
        value: of `value`: the number.
        unit: of `value`: its unit.
        content: the answer as JSON, as the gateway gives it; of a person's own kind all that there is.
    """

    name: str | None = None
    probability: float | None = None
    probabilities: dict[str, float] | None = None
    names: tuple[str, ...] | None = None
    value: float | None = None
    unit: str | None = None
    content: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Prediction:
    """The answers to all tasks for an image.

    Attributes:
        tasks: the answer to each task, by its option `answer` when the joint model was made.
        contradicts: whether two models answer what never goes together; None where no labels can contradict each
            other.
    """

    tasks: dict[str, Answer]
    contradicts: bool | None


class Predictor:
    """The models of some tasks, ready to predict.

    Attributes:
        tasks: the tasks and the names of their outputs, in their order.
        specs: what the answers of each task mean.
        shape: height, width and channels of the images that the models take.
    """

    def __init__(
        self,
        networks: Mapping[str, keras.Model],
        specs: Mapping[str, TaskSpec],
        related: Relations = UNRELATED,
    ) -> None:
        self.tasks = {task: spec.names for task, spec in specs.items()}
        self.shape: tuple[int, int, int] = next(iter(networks.values())).input_shape[1:]
        self.specs = dict(specs)
        self._networks, self._relations = dict(networks), related.among(specs)

    def predict(self, image: Picture | Sequence[Picture]) -> Prediction | list[Prediction]:
        """Predict for one image, or for a batch in its order.

        Args:
            image: a path, the bytes of a PNG or JPEG file or a PIL image, which are resized to the size of the
                models as `data.size` does; or a uint8 array of `shape`. A batch is a list of these, or one array of one
                more dimension.

        Raises:
            UserError: a file is missing or no complete image, or an array has another shape or dtype.
        """
        if isinstance(image, str | Path | bytes | Image.Image) or (isinstance(image, np.ndarray) and image.ndim != 4):
            return self._predict(self._pixels(image)[np.newaxis])[0]
        pixels = [self._pixels(picture) for picture in image]
        return self._predict(np.stack(pixels)) if pixels else []

    def _pixels(self, image: Picture) -> np.ndarray:
        if isinstance(image, np.ndarray):
            if image.shape != self.shape or image.dtype != np.uint8:
                raise UserError(f"an array of {image.dtype} {image.shape}; uint8 {self.shape} is needed")
            return image
        content, name = (image, "image") if isinstance(image, bytes) else _read(image)
        pixels, _ = decoding.decode(content, name)
        return decoding.fitted(pixels, self.shape)

    def _predict(self, images: np.ndarray) -> list[Prediction]:
        """Predict for uint8 images (N, H, W, C)."""
        from mtl.networks import inference

        outputs = {task: inference.predict(network, images) for task, network in self._networks.items()}
        contradicts = self._contradictions(outputs)
        answers = {
            task: _answers(
                self._relations.meaning(spec),
                relations.answered(self._relations, outputs, spec),
                self._relations.note(task),
            )
            for task, spec in self.specs.items()
        }
        return [
            Prediction(
                {task: of_task[index] for task, of_task in answers.items()},
                None if contradicts is None else bool(contradicts[index]),
            )
            for index in range(len(images))
        ]

    def _contradictions(self, outputs: Mapping[str, np.ndarray]) -> np.ndarray | None:
        """The images with a contradiction, bool (N,); None where no labels can contradict each other."""
        contradicted = relations.contradictions(self._relations, relations.labels_of(self.specs, outputs))
        return np.any(list(contradicted.values()), axis=0) if contradicted else None


def _answers(spec: TaskSpec, outputs: np.ndarray, note: Mapping[str, str]) -> list[Answer]:
    """The answers for outputs (N, K); `note` goes into the content of each."""
    answers = []
    for content, row in zip(kinds.find(spec.kind).decode(spec, outputs), outputs.tolist(), strict=True):
        has_names = spec.kind in ("classes", "multilabel")
        answers.append(
            Answer(
                name=content.get("label"),
                probability=content.get("probability"),
                probabilities=dict(zip(spec.names, row, strict=True)) if has_names else None,
                names=tuple(content["labels"]) if spec.kind == "multilabel" else None,
                value=content.get("value"),
                unit=content.get("unit"),
                content={**content, **note},
            )
        )
    return answers


def _read(image: str | Path | Image.Image) -> tuple[bytes, str]:
    """The bytes of an image file, or of a PIL image as PNG, and a name for messages."""
    if not isinstance(image, Image.Image):
        try:
            return Path(image).read_bytes(), str(image)
        except OSError as error:
            raise UserError(f"{image}: {error.strerror}; give an image file") from None
    upright = ImageOps.exif_transpose(image)
    file = io.BytesIO()
    (upright if upright.mode in _PNG_MODES else upright.convert("RGB")).save(file, "PNG")
    return file.getvalue(), "image"


def load(uri: str, imports: Sequence[str] = ()) -> Predictor:
    """Load a joint model, or one task's model, as this project logs and registers them.

    No code that comes with the model is run: the Keras files are read in safe mode. A network with layers of your own
    needs the module that registers them, which is imported only where `imports` names it.

    Args:
        uri: `models:/joint@champion`, `models:/joint/3`, `models:/model1/1` or `models:/<model id>`, in the store that
            MLFLOW_TRACKING_URI names, else in mlflow.db of the working directory.
        imports: your own modules to import first, in the working directory or on PYTHONPATH.

    Raises:
        UserError: no such model, alias or version, no answer from the server, or a model of another project; a module
            that cannot be imported.
    """
    from mtl.data import backend

    backend.import_tensorflow()
    from mtl.networks import catalog

    for module in imports:
        catalog.import_own(module)
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundles.fetch(uri, Path(folder))
        networks = bundles.read(bundle)
    return Predictor(networks, bundle.tasks, bundle.relations)
