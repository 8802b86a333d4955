"""metrics/main_evaluate.json and metrics/study.json as types, with a line for each that is missing or stale."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mtl import files
from mtl.config.reading import first_line
from mtl.data import paths, store
from mtl.errors import UserError
from mtl.tasks import relations
from mtl.tasks.relations import Relations

VERDICT = paths.METRICS / "main_evaluate.json"
STUDY = paths.METRICS / "study.json"


class Part(BaseModel):
    """A part of a metrics file. Keys that are not read here are ignored, and keys that may be missing are None."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)


class Before(Part):
    """The figures of a model before it was calibrated."""

    nll: float
    ece: float


class OfTask(Part):
    """The verdict on one task's own model, on the test images; the figures that its kind does not have are None.

    Those of other kinds than `classes` are read by `figure`.
    """

    model_config = ConfigDict(extra="allow")

    kind: str = "classes"
    unit: str | None = None
    loss: float
    acc: float | None = None
    nll: float | None = None
    one_class: bool = False
    acc_low: float | None = None
    acc_high: float | None = None
    ece: float | None = None
    nll_ratio: float | None = None
    examples: int | None = None
    skill: float | None = None
    balanced_acc: float | None = None
    macro_f1: float | None = None
    auc: float | None = None
    average_precision: float | None = None
    before_calibration: Before | None = None

    def figure(self, name: str) -> float | None:
        """A figure by its key; None where it is undefined or missing."""
        value = getattr(self, name, None)
        return float(value) if isinstance(value, int | float) else None


class Subset(Part):
    """The images on which a task's own model and its base agree, or those on which they do not, with accuracies."""

    images: int
    acc: float | None = None
    from_acc: float | None = None


class OfDerived(Part):
    """The answer that another task's model implies.

    `gain` is what the own model has more of: accuracy, or of another kind than `classes` mean utility.
    """

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="allow")

    base: str = Field(alias="from")
    acc: float | None = None
    contradiction_rate: float = 0.0
    gain: float | None = None
    gain_low: float | None = None
    gain_high: float | None = None
    p_value: float | None = None
    contradict: Subset | None = None


class Gains(Part):
    """What a combined answer has more of than another: accuracy or mean utility, and how much smaller its loss is."""

    gain: float
    gain_low: float
    gain_high: float
    p_value: float
    nll_gain: float
    nll_gain_low: float
    nll_gain_high: float
    nll_p_value: float


class OfCombined(Part):
    """A task's own answer and the derived one, weighted on the validation images, on the test images."""

    model_config = ConfigDict(frozen=True, populate_by_name=True, extra="allow")

    base: str = Field(alias="from")
    own_weight: float
    derived_weight: float
    nll: float
    over_own: Gains
    over_derived: Gains
    multiply_adds: dict[str, int] | None = None


class OfShifted(Part):
    """The verdict on the shifted test set: its examples, and the tasks of which a label is known there."""

    examples: int
    tasks: dict[str, OfTask]


class Verdict(Part):
    """metrics/main_evaluate.json."""

    sum_loss: float
    ave_acc: float | None = None
    ave_skill: float | None = None
    tasks: dict[str, OfTask]
    derived: dict[str, OfDerived] = {}
    combined: dict[str, OfCombined] = {}
    contradiction_rate: float | None = None
    shifted: OfShifted | None = None


class Score(Part):
    """One task in one run of the study: its primary score and skill; of `classes` also accuracy and NLL in nats."""

    score: float | None = None
    skill: float | None = None
    acc: float | None = None
    nll: float | None = None

    @model_validator(mode="after")
    def _has_a_score(self) -> Score:
        """A study of an earlier version has the accuracy alone."""
        return self if self.score is not None or self.acc is None else self.model_copy(update={"score": self.acc})


class StudyRun(Part):
    """One arrangement with one seed. `tasks` holds those that it answers; `combined` has `independent`'s networks."""

    arrangement: str
    seed: int
    tasks: dict[str, Score]
    multiply_adds: int
    parameters: int
    images_seen: int
    seconds: float | None = None
    cpu_seconds: float | None = None
    milliseconds_per_image: float | None = None


class StudyResults(Part):
    """metrics/study.json."""

    data: str
    machine: dict[str, str | int | bool | None]
    tasks: list[str]
    images: int | None = None  # that it is judged on; an earlier version: the test images
    base: str | None = None  # the task that `derived` trains and derives the others from
    runs: list[StudyRun]


P = TypeVar("P", bound=Part)


def read() -> tuple[Verdict | None, StudyResults | None, list[str]]:
    """Both files, None for one that is not there or is about other data, and a line for each of those.

    Raises:
        UserError: there is neither, or one is broken.
    """
    notes = []
    verdict, study = _read(Verdict, VERDICT), _read(StudyResults, STUDY)
    if verdict is None:
        notes.append(f"{VERDICT} is missing: `dvc repro` writes it")
    if study is None:
        notes.append(f"{STUDY} is missing: `cd study && mtl repro --jobs 2` writes it")
    elif (stale := _stale(study, verdict)) is not None:
        notes.append(f"{STUDY} is left out: {stale}; `cd study && mtl repro --jobs 2` writes it anew")
        study = None
    if verdict is None and study is None:
        raise UserError("nothing to report: " + "; ".join(notes))
    return verdict, study, notes


def read_relations() -> Relations | None:
    """metrics/relations.json; None where it is not there or of an earlier version."""
    return relations.read(files.read_json(paths.RELATIONS)) if paths.RELATIONS.exists() else None


def _read(kind: type[P], path: Path) -> P | None:
    if not path.exists():
        return None
    try:
        return kind.model_validate(files.read_json(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_line(error)}; the stage that writes it does so anew") from None


def _stale(study: StudyResults, verdict: Verdict | None) -> str | None:
    """The difference of the study's data or tasks from the pipeline's, as a clause; None where there is none."""
    data = store.read_dataset().name if store.is_loaded() else study.data
    if data != study.data:
        return f"it is about {study.data}, and data/raw holds {data}"
    if verdict is not None and not set(verdict.tasks) <= set(study.tasks):
        return f"it has no task {', '.join(sorted(set(verdict.tasks) - set(study.tasks)))}"
    return None
