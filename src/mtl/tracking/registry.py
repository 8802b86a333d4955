"""MLflow's model registry: versions tagged with the md5 of their contents, and the alias `champion`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from io import StringIO
from typing import TYPE_CHECKING

from mtl.errors import UserError
from mtl.tracking.server import prepare_client, public_uri, refuse_absent, translating_errors, uri

if TYPE_CHECKING:
    from mlflow import MlflowClient

JOINT = "joint"  # the registered name of the joint model; a task's model has the task's name
CHAMPION = "champion"
REFERENCE = r"[^/@]+(?:@[^/@]+|/\d+)"  # of a version: <name>@<alias> or <name>/<number>
CONTENTS = ("models/", "data/labels/")  # beginnings of those tags of a version that map a path in dvc.lock to its md5
PREVIOUS = "previous"  # tag of a version: the number of the champion before it
ROLLED_BACK = "rolled_back"  # tag of a version: "true" from `mtl rollback` until it is champion again, then "false"


@dataclass(frozen=True)
class LoggedModel:
    """A model that a run logged."""

    model_id: str
    run_id: str


@dataclass(frozen=True)
class Version:
    """A version of a registered model; `run_id` is the run that logged it, `number` as in models:/name/number."""

    name: str
    number: str
    run_id: str  # empty for a version that no run logged
    tags: dict[str, str]

    @property
    def rolled_back(self) -> bool:
        """Tell whether `mtl rollback` took the alias from it, and nothing restored it since."""
        return self.tags.get(ROLLED_BACK) == "true"

    def __str__(self) -> str:
        return f"{self.name} version {self.number}"


@contextmanager
def connection() -> Iterator[MlflowClient]:
    """Yield a client of the store. Its errors become UserError, one line that names the server."""
    import mlflow

    refuse_absent()
    with translating_errors():
        yield mlflow.MlflowClient(uri(), uri())


def versions(name: str) -> list[Version]:
    """All versions of a registered model, oldest first; none where the name is not registered."""
    with connection() as client:
        entities = client.search_model_versions(f"name = '{name}'")
    # A database returns numbers, a server text.
    ordered = sorted(entities, key=lambda entity: int(entity.version))
    return [Version(entity.name, str(entity.version), entity.run_id or "", entity.tags) for entity in ordered]


def find(name: str, contents: Mapping[str, str]) -> Version | None:
    """The first version of `name` with exactly these contents (path in dvc.lock -> md5); None where there is none."""
    same = (version for version in versions(name) if contents_of(version) == contents)
    return next(same, None)


def contents_of(version: Version) -> dict[str, str]:
    """The contents of a version: path in dvc.lock -> its md5."""
    return {path: md5 for path, md5 in version.tags.items() if path.startswith(CONTENTS)}


def register(name: str, model: LoggedModel, contents: Mapping[str, str], tags: Mapping[str, str]) -> Version:
    """The version of `name` with these contents; where there is none, register the logged model as a new one.

    Of two machines that register the same contents at once, the first counts. The second version is deleted; an
    account that may not delete leaves it, and nothing reads it.
    """
    import mlflow
    from mlflow.exceptions import MlflowException

    registered = find(name, contents)
    if registered is not None:
        return registered
    with connection() as client, redirect_stderr(StringIO()):  # where MLflow prints its progress
        prepare_client()
        new = mlflow.register_model(f"models:/{model.model_id}", name, tags={**tags, **contents})
        first = find(name, contents)
        if first is not None and first.number != str(new.version):  # another machine registered it at the same moment
            try:
                client.delete_model_version(name, str(new.version))
            except MlflowException as error:
                if error.error_code != "PERMISSION_DENIED":
                    raise
            return first
    return version(name, str(new.version))


def aliases(name: str) -> dict[str, str]:
    """The aliases of a registered model and the versions they point at; empty where the name is not registered."""
    with connection() as client:
        models = client.search_registered_models(f"name = '{name}'")
        return {alias: str(number) for model in models for alias, number in model.aliases.items()}


def champion(name: str = JOINT) -> Version | None:
    """The version with the alias `champion`; None also where the alias points at a deleted version."""
    return _by_number(name, aliases(name).get(CHAMPION))


def at_alias(name: str, alias: str) -> Version:
    """The version at an alias. Raises UserError, which lists the aliases or versions, where there is none."""
    known = aliases(name)
    if alias not in known:
        if not versions(name):
            version(name, alias)  # refused: nothing is registered
        raise UserError(f"{public_uri()}: {name} has no alias {alias!r}; known: {', '.join(known) or 'none'}")
    target = _by_number(name, known[alias])
    if target is None:
        raise UserError(dangling_message(name, alias, known[alias]))
    return target


def resolve(reference: str) -> Version:
    """The version that a REFERENCE names. Raises UserError where there is none."""
    name, at, alias = reference.partition("@")
    return at_alias(name, alias) if at else version(*reference.split("/", 1))


def dangling_message(name: str, alias: str, number: str) -> str:
    """The line about an alias whose version was deleted, which servers before MLflow's PR 24825 allow."""
    others = ", ".join(version.number for version in versions(name))
    mend = "`mtl rollback --to VERSION`" if others else "`mtl promote`"
    advice = f"{mend} mends it" if (name, alias) == (JOINT, CHAMPION) else "move or delete the alias in MLflow"
    return (
        f"{public_uri()}: {name}@{alias} points at version {number}, which is gone; known: {others or 'none'}; {advice}"
    )


def _by_number(name: str, number: str | None) -> Version | None:
    return next((version for version in versions(name) if version.number == number), None)


def version(name: str, number: str) -> Version:
    """A version by its number. Raises UserError, which lists the versions, where there is none."""
    known = {version.number: version for version in versions(name)}
    if not known:
        raise UserError(
            f"{public_uri()}: no registered model {name!r} with a version; `mtl promote` registers the models"
        )
    if number not in known:
        raise UserError(f"{public_uri()}: {name} has no version {number!r}; known: {', '.join(known)}")
    return known[number]


def move_champion(to: Version, expected: str | None, *, back: bool = False) -> None:
    """Move the alias `champion` to a version and tag that with its predecessor; `back` tags that as rolled back.

    MLflow cannot compare and set in one step, so the alias is read right before and right after. Of two machines that
    move it at once, the later wins, and the earlier raises. Tags are set before the alias moves: where that fails, the
    alias stays, and a rollback that is interrupted is not undone by the next promotion. Nothing is deleted, because
    accounts of MLflow may write without being allowed to delete.

    Raises UserError where the alias does not point at version `expected` (None: nowhere) before, or at `to` after.
    """
    with connection() as client:
        now = aliases(to.name).get(CHAMPION)
        if now != expected:
            raise UserError(
                f"{to.name}@{CHAMPION} was moved from {_named(expected)} to {_named(now)} meanwhile; try again"
            )
        before = _by_number(to.name, expected)  # None also where the alias pointed at a deleted version
        if before is not None and not back:
            client.set_model_version_tag(to.name, to.number, PREVIOUS, before.number)
        if before is not None and back:
            client.set_model_version_tag(to.name, before.number, ROLLED_BACK, "true")
        if version(to.name, to.number).rolled_back:
            client.set_model_version_tag(to.name, to.number, ROLLED_BACK, "false")
        client.set_registered_model_alias(to.name, CHAMPION, to.number)
        now = aliases(to.name).get(CHAMPION)
        if now != to.number:
            raise UserError(f"{to.name}@{CHAMPION} was moved to {_named(now)} at the same moment, and stays there")


def _named(number: str | None) -> str:
    return "no version" if number is None else f"version {number}"
