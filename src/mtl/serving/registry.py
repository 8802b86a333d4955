"""Models out of MLflow's registry: the joint model that `main_evaluate` logs, or one task's model."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from mtl.serving import loading
from mtl.tracking import bundles, registry

_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")


def current_version(uri: str) -> str | None:
    """The version that the alias in `models:/name@alias` points at now; None for URIs without an alias.

    Raises UserError where the alias does not exist or points at no version, or the store cannot be asked.
    """
    match = _ALIAS.fullmatch(uri)
    if match is None:
        return None
    return registry.at_alias(match["name"], match["alias"]).number


def load(uri: str) -> dict[str, loading.Loaded]:
    """Download, load and compile what `uri` names, `models:/name@alias`, `models:/name/version` or `models:/id`.

    Nothing in it is run: of a joint model only the Keras files are read, in safe mode. What the models tell apart is
    what was logged with them, whatever data/labels holds.

    Raises UserError where it cannot be had, or is neither a joint model nor a task's model of this project.
    """
    # Its files are asked for by its number: the alias may move between two questions.
    number = current_version(uri)
    numbered = f"{uri.partition('@')[0]}/{number}" if number else uri
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundles.fetch(numbered, Path(folder))
        networks = bundles.read(bundle)
    return loading.from_bundle(bundle, networks, number or uri.rpartition("/")[2])
