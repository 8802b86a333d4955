"""MLflow's model registry: versions that say which bytes they hold, and the one alias that counts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from mtl.errors import UserError
from mtl.tracking.server import answers, prepare_client, refuse_absent, shown, uri

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel

JOINT = "joint"  # the registered name of the joint model; a task's model has the task's name
CHAMPION = "champion"
HOLDS = ("models/", "data/labels/")  # tags of a version that begin so are what it holds: path in dvc.lock -> its md5
PREVIOUS = "previous"  # tag of a version: the one that was champion before it
ROLLED_BACK = "rolled_back"  # tag: "true" once `mtl rollback` took the alias from a version, "false" when it is back


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `run_id` is the run that logged it."""

    name: str
    number: str
    run_id: str
    tags: dict[str, str]

    @property
    def rolled_back(self) -> bool:
        """Whether `mtl rollback` took the alias from it, and nothing gave it back since."""
        return self.tags.get(ROLLED_BACK) == "true"

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


@contextmanager
def connection() -> Iterator[MlflowClient]:
    """A client of the store. What fails in it becomes one line that names the server."""
    import mlflow

    refuse_absent()
    with answers():
        yield mlflow.MlflowClient(uri(), uri())


def versions(name: str) -> list[Version]:
    """All versions of a registered model, oldest first; none where the name is not registered."""
    with connection() as client:
        found = client.search_model_versions(f"name = '{name}'")
    # A database gives numbers, a server text.
    return [Version(v.name, str(v.version), v.run_id, v.tags) for v in sorted(found, key=lambda v: int(v.version))]


def holding(name: str, holds: Mapping[str, str]) -> Version | None:
    """The first version of `name` that holds exactly these bytes (path -> md5)."""
    same = (version for version in versions(name) if held(version) == holds)
    return next(same, None)


def held(version: Version) -> dict[str, str]:
    """Which bytes a version holds: path in dvc.lock -> its md5."""
    return {path: md5 for path, md5 in version.tags.items() if path.startswith(HOLDS)}


def register(name: str, model: LoggedModel, holds: Mapping[str, str], tags: Mapping[str, str]) -> Version:
    """The version of `name` that holds these bytes: the one there is, else a new one of the logged model.

    Of two that are made at the same moment the first counts. The second is deleted where we may; an account that may
    write and not delete leaves it, and nothing reads it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    there = holding(name, holds)
    if there is not None:
        return there
    with connection() as client, redirect_stderr(StringIO()):  # it says there what it does
        prepare_client()
        made = mlflow.register_model(f"models:/{model.model_id}", name, tags={**tags, **holds})
        first = holding(name, holds)
        if first is not None and first.number != str(made.version):  # another machine did the same at the same moment
            try:
                client.delete_model_version(name, str(made.version))
            except MlflowException as error:
                if error.error_code != "PERMISSION_DENIED":
                    raise
            return first
    return version(name, str(made.version))


def aliases(name: str) -> dict[str, str]:
    """The aliases of a registered model and the versions they point at; empty where the name is not registered."""
    with connection() as client:
        found = client.search_registered_models(f"name = '{name}'")
        return {alias: str(version) for model in found for alias, version in model.aliases.items()}


def champion(name: str = JOINT) -> Version | None:
    """The version that holds the alias `champion`; None also where the alias points at one that is gone."""
    return _known(name, aliases(name).get(CHAMPION))


def at_alias(name: str, alias: str) -> Version:
    """The version at an alias. Raises UserError where there is none, naming the aliases or versions there are."""
    known = aliases(name)
    if alias not in known:
        if not versions(name):
            version(name, alias)  # refused: nothing is registered
        raise UserError(f"{shown()}: {name} has no alias {alias!r}; known: {', '.join(known) or 'none'}")
    found = _known(name, known[alias])
    if found is None:
        raise UserError(dangling(name, alias, known[alias]))
    return found


def dangling(name: str, alias: str, number: str) -> str:
    """What to do about an alias whose version was deleted. Servers before MLflow's PR 24825 leave such ones."""
    others = ", ".join(found.number for found in versions(name))
    mend = "`mtl rollback --to VERSION`" if others else "`mtl promote`"
    advice = f"{mend} mends it" if (name, alias) == (JOINT, CHAMPION) else "move or delete the alias in MLflow"
    return f"{shown()}: {name}@{alias} points at version {number}, which is gone; known: {others or 'none'}; {advice}"


def _known(name: str, number: str | None) -> Version | None:
    return next((found for found in versions(name) if found.number == number), None)


def version(name: str, number: str) -> Version:
    """A version by its number. Raises UserError where there is none, naming those there are."""
    there = {found.number: found for found in versions(name)}
    if not there:
        raise UserError(f"{shown()}: no registered model {name!r} with a version; `mtl promote` registers the models")
    if number not in there:
        raise UserError(f"{shown()}: {name} has no version {number!r}; known: {', '.join(there)}")
    return there[number]


def move_champion(to: Version, expected: str | None, *, back: bool = False) -> None:
    """Move the alias `champion` to a version, and write down which one it had before (unless it goes `back`).

    MLflow cannot compare and set in one step. So the alias is looked at right before and right after; between two
    machines the later move holds, and the earlier one says so. The alias always names one whole version. Tags are set
    before it moves: where they cannot be, it stays, and a rollback that is cut off is not undone by the next promotion.
    Nothing is deleted: MLflow's accounts may write without being allowed to delete.

    Raises UserError where the alias does not point at the version `expected` (None: nowhere), before or after.
    """
    with connection() as client:
        now = aliases(to.name).get(CHAMPION)
        if now != expected:
            raise UserError(
                f"{to.name}@{CHAMPION} was moved from {_named(expected)} to {_named(now)} meanwhile; try again"
            )
        before = _known(to.name, expected)  # None also where the alias pointed at a version that is gone
        if before is not None and not back:
            client.set_model_version_tag(to.name, to.number, PREVIOUS, before.number)
        if before is not None and back:
            client.set_model_version_tag(to.name, before.number, ROLLED_BACK, "true")
        if version(to.name, to.number).rolled_back:
            client.set_model_version_tag(to.name, to.number, ROLLED_BACK, "false")
        client.set_registered_model_alias(to.name, CHAMPION, to.number)
        now = aliases(to.name).get(CHAMPION)
        if now != to.number:
            raise UserError(f"{to.name}@{CHAMPION} was moved to {_named(now)} at the same moment: that holds")


def _named(number: str | None) -> str:
    return "no version" if number is None else f"version {number}"
