"""Reading a file of parameters into types, with its faults in one line.

It is read with the YAML 1.2 rules that DVC uses, so that `yes` is text and `1e-3` a number in both.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from mtl.config.settings import Settings
from mtl.errors import UserError, one_line

S = TypeVar("S", bound=Settings)

MOST_NODES = 1_000_000  # values of a file; a thousand times as many as a large one has
NUMBER_LENGTH = 300
# The demand behind each type of pydantic's errors.
_WANTED = {
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a whole number of fewer digits",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must have at least {min_length} character",
    "string_too_long": "must have at most {max_length} characters",
    "literal_error": "must be {expected}",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "tuple_type": "must be a list, such as [a, b]",
    "list_type": "must be a list, such as [a, b]",
    "dict_type": "must be a mapping, keys with values",
    "model_type": "must be a mapping, keys with values",
    "model_attributes_type": "must be a mapping, keys with values",
}


def read_as(kind: type[S], path: Path) -> S:
    """Read and validate a file of parameters; raises UserError with one line that names the key."""
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    yaml = YAML(typ="safe", pure=True)
    try:
        if (size := _expanded(path, yaml.compose(path), {})) > MOST_NODES:
            raise UserError(f"{path}: its aliases (*name) stand for {size:.1g} values; write out what is meant")
        tree = yaml.load(path)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; run from the root of the repository") from None
    except (YAMLError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: not valid YAML: {one_line(error)}") from None
    try:
        _refuse_odd_keys(path, tree)
        return validate(tree, kind)
    except ValidationError as error:
        raise UserError(f"{path}: {first_line(error)}") from None
    except (RecursionError, ValueError):
        raise UserError(f"{path}: nested without end; write it without anchors to itself") from None


def validate(tree: object, kind: type[S]) -> S:
    """The types of what such a file holds; raises pydantic's ValidationError, which `first_line` puts into one line."""
    # JSON in strict mode: a number in quotes is refused, a list is still taken for a tuple.
    return kind.model_validate_json(json.dumps(tree, default=str), strict=True)


def _expanded(path: Path, node: Any, known: dict[int, int]) -> int:
    """The number of values of a composed node with its aliases written out; a node within itself counts once.

    Raises UserError where one is not to be had in Python or JSON.
    """
    if id(node) not in known:
        known[id(node)] = 1
        content = getattr(node, "value", "")  # None stands for an empty file
        if isinstance(content, str):
            _refuse_odd_scalar(path, node, content)
        else:  # a list of nodes, or of pairs of them
            parts = (part for child in content for part in (child if isinstance(child, tuple) else (child,)))
            known[id(node)] += sum(_expanded(path, part, known) for part in parts)
    return known[id(node)]


def _refuse_odd_scalar(path: Path, node: Any, content: str) -> None:
    if str(getattr(node, "tag", "")).endswith(":int") and len(content) > NUMBER_LENGTH:
        line = node.start_mark.line + 1
        raise UserError(f"{path}: line {line}: a number of {len(content):,} digits; no value is so large")
    if any("\ud800" <= character <= "\udfff" for character in content):
        raise UserError(f"{path}: line {node.start_mark.line + 1}: half a character (\\ud800 to \\udfff); leave it out")


def _refuse_odd_keys(path: Path, tree: object) -> None:
    """JSON makes text of every key, so that `1:` and `'1':` would be one."""
    for key, value in tree.items() if isinstance(tree, dict) else ():
        if not isinstance(key, str) or not key.isprintable():
            raise UserError(f"{path}: key {key!r} is not text; write it in quotes")
        _refuse_odd_keys(path, value)


def first_line(error: ValidationError, known: str = "see the comments in params.yaml for those there are") -> str:
    """`tasks.model1.recipe: is missing (and 2 more)`, from pydantic's list of errors, in the words of the file.

    `known` says where the known keys are.
    """
    first, *more = error.errors(include_url=False)
    # Pydantic puts the tag of a union ('sgd') into the path, behind the key (or the index) that holds the union, and
    # `[key]` behind a key that is itself wrong.
    parts = [str(part) for part in first["loc"] if part != "[key]"]
    task = ["tasks", *parts[1:2]]
    tagged = [
        before in ("optimizer", "schedule", "tensorboard", "class_weight") or before.isdigit() or parts[:i] == task
        for i, before in enumerate(["", *parts])
    ]
    place = ".".join(part or "''" for part, tag in zip(parts, tagged, strict=False) if not tag)
    return (f"{place}: " if place else "") + _words(first, known) + (f" (and {len(more)} more)" if more else "")


def _words(error: ErrorDetails, known: str) -> str:
    """The fault of a value and what would be right."""
    context = {key: int(x) if isinstance(x, float) and x.is_integer() else x for key, x in error.get("ctx", {}).items()}
    match error["type"]:
        case "value_error":
            return error["msg"].removeprefix("Value error, ")
        case "kind":
            task = error["input"]
            return f"{error['msg']}, not {_shown(task.get('kind') if isinstance(task, dict) else task)}"
        case "missing":
            return "is missing; add it"
        case "extra_forbidden":
            return f"unknown key; {known}"
        case "union_tag_not_found":
            return f"its name is missing, such as {{name: sgd, …}}; {known}"
        case "union_tag_invalid":
            name = str(context["discriminator"]).strip("'")
            return f"unknown {name} {context['tag']!r}; use one of {context['expected_tags']}"
        case "too_short" | "too_long":
            bound = "at least {min_length}" if error["type"] == "too_short" else "at most {max_length}"
            return f"{context['actual_length']} entries; give {bound.format(**context)}"
        case kind:
            wanted = _WANTED[kind].format(**context) if kind in _WANTED else f"is refused ({error['msg']})"
            return f"{wanted}, not {_shown(error['input'])}"


def _shown(value: object) -> str:
    """A value as the file may have it, shortened."""
    if isinstance(value, str):
        text = repr(value)
    elif isinstance(value, bool | None):
        text = json.dumps(value)
    elif isinstance(value, dict):
        text = f"a mapping of {len(value)} keys"
    else:
        text = f"a list of {len(value)}" if isinstance(value, list) else str(value)
    return text if len(text) <= 80 else text[:79] + "…"
