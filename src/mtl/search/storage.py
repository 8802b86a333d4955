"""The storage of studies: SQLite in the repository, or a database that several machines share."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import optuna
from optuna.exceptions import DuplicatedStudyError, ExperimentalWarning, StorageInternalError
from optuna.storages import RDBStorage
from sqlalchemy import event
from sqlalchemy.exc import SQLAlchemyError

from mtl.errors import UserError, one_line
from mtl.search.drawing import Values, encode
from mtl.search.space import Space
from mtl.search.studies import HEARTBEAT_SECONDS, is_gone, process, queue_again

_LOST = (SQLAlchemyError, StorageInternalError)


def open_storage(url: str) -> RDBStorage:
    """Open or create the storage behind an SQLAlchemy URL. Raises UserError where that fails."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with translating_errors(url, (SQLAlchemyError, ImportError, RuntimeError, ValueError)):
        try:
            return _storage(url)
        except SQLAlchemyError:  # another process may have been creating the same tables
            return _storage(url)


@contextmanager
def translating_errors(url: str, errors: tuple[type[Exception], ...] = _LOST) -> Iterator[None]:
    """Turn the errors of a storage that is away into a UserError."""
    try:
        yield
    except errors as error:
        reason = one_line(error).replace(url, shown(url))[:300]
        raise UserError(f"the storage {shown(url)}: {reason}; start it, or mend --storage") from None


def _storage(url: str) -> RDBStorage:
    sqlite = url.startswith("sqlite")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)  # the heartbeat
        storage = RDBStorage(
            url,
            engine_kwargs={"connect_args": {"timeout": 60}} if sqlite else {"pool_pre_ping": True},
            heartbeat_interval=HEARTBEAT_SECONDS,
            heartbeat_stale_trial_callback=lambda study, trial: queue_again(
                study, trial, "its machine gave no more sign"
            ),
        )
    if sqlite:
        # Optuna reads a trial's state and then changes it. SQLite has no row locks: without a write lock from the
        # start of the transaction, two processes could both take the same trial.
        event.listen(storage.engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(storage.engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        storage.engine.dispose()
    return storage


def shown(url: str) -> str:
    """A URL without user and password."""
    scheme, separator, rest = url.partition("://")
    return scheme + separator + rest.rpartition("@")[2]


def names(storage: RDBStorage) -> list[str]:
    """The names of all studies."""
    return [summary.study_name for summary in optuna.get_all_study_summaries(storage, include_best_trial=False)]


def whole(storage: RDBStorage) -> list[str]:
    """The names of all studies, after those that a killed process had not created completely are removed."""
    for name in names(storage):
        attributes = optuna.load_study(study_name=name, storage=storage).user_attrs
        if "definition" not in attributes and is_gone(attributes.get("maker")):
            optuna.delete_study(study_name=name, storage=storage)
    return names(storage)


def load(storage: RDBStorage, name: str) -> optuna.Study:
    """The study called `name`. Raises UserError where there is none."""
    try:
        return optuna.load_study(study_name=name, storage=storage)
    except KeyError:
        known = ", ".join(names(storage)) or "none"
        raise UserError(f"there is no study {name!r} in {shown(storage.url)}; known: {known}") from None


def create(
    storage: RDBStorage, name: str, space: Space, definition: Values, starts: Sequence[Values], old: str | None = None
) -> optuna.Study | None:
    """Create a study and queue its first trials; None where another process created it first.

    Args:
        storage: of the study.
        name: of the study.
        space: its search space.
        definition: of that space.
        starts: parameters of the first trials. The first of them is the recipe as it stands, which is never stopped
            early, so that there is something to compare the best with.
        old: name of the study that it goes on from.
    """
    goal = space.tune.goal
    try:
        study = optuna.create_study(study_name=name, storage=storage, direction=goal)
    except DuplicatedStudyError:
        return None
    study.set_user_attr("maker", process())
    study.set_user_attr("continues", old)
    baseline = space.present()
    for values in starts:
        encoded = {path: encode(value) for path, value in values.items()}
        study.enqueue_trial(encoded, user_attrs={"queued": encoded, "baseline": values == baseline})
    study.set_user_attr("id", uuid.uuid4().hex)
    study.set_user_attr("definition", definition)  # last: a study that has it is whole
    return study
