"""The recipes of params.yaml: a network and how to train it, as frozen, validated types."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Discriminator, Field, JsonValue, Tag, field_validator

from mtl.config.settings import Settings, like

Rate = Annotated[float, Field(gt=0)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
LossName = Literal["categorical_crossentropy", "binary_crossentropy", "mse", "mae", "huber"]
ClassWeight = Annotated[
    Annotated[Literal["balanced"], Tag("rule")]
    | Annotated[dict[Annotated[str, Field(min_length=1)], Rate], Field(min_length=1), Tag("mapping")],
    Discriminator(lambda value: "mapping" if isinstance(value, dict) else "rule"),
]


class Sgd(Settings):
    """Stochastic gradient descent, with Nesterov momentum where momentum is not 0."""

    name: Literal["sgd"]
    learning_rate: Rate
    momentum: Fraction = 0.0
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Adam(Settings):
    """Adam, which with weight decay is AdamW."""

    name: Literal["adam"]
    learning_rate: Rate = 0.001
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Muon(Settings):
    """Muon for the convolutions, Adam at a tenth of its learning rate for everything else."""

    name: Literal["muon"]
    learning_rate: Rate
    momentum: Fraction = 0.95
    weight_decay: Annotated[float, Field(ge=0)] = 0.0


class Constant(Settings):
    """The same learning rate throughout."""

    name: Literal["constant"]


class OneCycle(Settings):
    """The learning rate rises linearly for the fraction `warmup` of all steps, then falls linearly to 0."""

    name: Literal["one_cycle"]
    warmup: Fraction


class Augmentation(Settings):
    """Changes of the training images: mirrored in every second epoch, moved at random by up to `translate` pixels."""

    flip: bool = False
    translate: Annotated[int, Field(ge=0, le=64)] = 0


class Board(Settings):
    """Extras for TensorBoard: a profile of the steps from the first to the last of `profile`."""

    profile: Annotated[tuple[Annotated[int, Field(ge=1)], ...], Field(min_length=2, max_length=2)]

    @field_validator("profile")
    @classmethod
    def _is_in_order(cls, profile: tuple[int, ...]) -> tuple[int, ...]:
        if profile[0] > profile[1]:
            raise ValueError(f"{list(profile)} ends before it begins; write [first step, last step]")
        return profile


class Recipe(Settings):
    """A network and how to train it."""

    network: Annotated[str, like(r"[A-Za-z_][\w.]*(:[A-Za-z_]\w*)?", "a network's name, or module:function")]
    options: dict[str, JsonValue] = Field(default_factory=dict)
    precision: Literal["auto", "float32", "mixed_bfloat16"] = "float32"  # auto: bfloat16 where the machine has it
    loss: LossName | Literal["auto"] = "auto"  # auto: that of the task's kind
    label_smoothing: Fraction = 0.0
    class_weight: ClassWeight | None = None  # of an image's loss, by its class: rare classes count for more
    optimizer: Annotated[Sgd | Adam | Muon, Field(discriminator="name")]
    schedule: Annotated[Constant | OneCycle, Field(discriminator="name")] = Constant(name="constant")
    augmentation: Augmentation = Augmentation()
    batch_size: Annotated[int, Field(ge=1, le=1_000_000)]
    epochs: Annotated[int, Field(ge=1, le=100_000)]
    steps_per_epoch: Annotated[int, Field(ge=1)] | None = None  # batches of an epoch; None: every image once
    steps_per_execution: Annotated[int, Field(ge=1)] = 1  # steps that the device gets at once
    keep: Literal["last", "best"] = "last"
    mirror: bool = False  # the model answers by the mean of an image and its mirror image, which costs twice as much
    calibrate: Literal["none", "temperature"] = "none"  # by the validation images: answers as sure as they are right
    tensorboard: Annotated[
        Annotated[bool, Tag("switch")] | Annotated[Board, Tag("more")],
        Discriminator(lambda value: "switch" if isinstance(value, bool | str | int | None) else "more"),
    ] = False  # write logs/<task> for TensorBoard; changes no result
