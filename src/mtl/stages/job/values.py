"""Values of a params file that flags change, as services that search give them: `--optimizer.learning_rate=0.1`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mtl.config import addresses
from mtl.config.editing import get, holds, put
from mtl.config.params import Params
from mtl.config.reading import first_line, validate
from mtl.errors import UserError, one_line

EXAMPLE = "values of the params file are changed by --NAME=VALUE, such as --optimizer.learning_rate=0.1"


def parse(words: Sequence[str]) -> dict[str, str]:
    """Parse `--name=value` and `--name value`, each name once. Raises UserError for anything else."""
    texts: dict[str, str] = {}
    rest = iter(words)
    for word in rest:
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name == "--":
            raise UserError(f"{word!r} is not understood; {EXAMPLE}")
        if not equals:
            value = next(rest, "--")
            if value.startswith("--"):
                raise UserError(f"{name} has no value; {EXAMPLE}")
        if name[2:] in texts:
            raise UserError(f"{name} is given twice; give it once")
        texts[name[2:]] = value
    return texts


def change(settings: Params, task: str, texts: dict[str, str], path: Path) -> tuple[Params, dict[str, Any]]:
    """The settings with other values, and these by their full dotted paths.

    Args:
        settings: those of the params file.
        task: the task that is trained; a name that begins with no section is one of its recipe's.
        texts: the value of each name, as YAML.
        path: the params file, for what an error says.

    Raises:
        UserError: an unknown task or name, or a value that is refused.
    """
    if task not in settings.tasks:
        raise UserError(f"{path}: there is no task {task!r}; known: {', '.join(settings.tasks)}")
    tree, values = settings.model_dump(mode="json"), {}
    # The recipe itself may be changed by a flag: full names come first.
    for name in sorted(texts, key=lambda name: not _is_full(name)):
        full = name if _is_full(name) else f"recipes.{get(tree, f'tasks.{task}.recipe')}.{name}"
        _refuse_unknown(tree, name, full, path)
        values[full] = _read(name, texts[name], get(tree, full) if holds(tree, full) else None)
        put(tree, full, values[full])
    try:
        return validate(tree, Params), values
    except ValidationError:
        tree = settings.model_dump(mode="json")
    for name, (full, value) in zip(sorted(texts, key=lambda name: not _is_full(name)), values.items(), strict=True):
        put(tree, full, value)
        try:
            validate(tree, Params)
        except ValidationError as error:  # the first value that does not fit those before it
            raise UserError(f"--{name}={addresses.shown(texts[name])}: {first_line(error)}") from None
    raise AssertionError("all values together were refused")


def _is_full(name: str) -> bool:
    return name.partition(".")[0] in Params.model_fields


def _refuse_unknown(tree: Any, name: str, full: str, path: Path) -> None:
    section = full.rpartition(".")[0]
    if holds(tree, full) or section.endswith(".options"):  # what a network takes is known to the network alone
        return
    while section and not (holds(tree, section) and isinstance(get(tree, section), dict)):
        section = section.rpartition(".")[0]
    known = get(tree, section) if section else tree
    raise UserError(f"--{name}: {path} has no {full}; known in {section or 'it'}: {', '.join(known) or 'nothing'}")


def _read(name: str, text: str, present: object) -> Any:
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        value = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        raise UserError(f"--{name}={addresses.shown(text)}: not valid YAML: {one_line(error)}") from None
    # Some services write every number as 512.0.
    whole = isinstance(present, int) and isinstance(value, float) and value.is_integer()
    return int(value) if whole else value
