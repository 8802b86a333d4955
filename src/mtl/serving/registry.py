"""Models from MLflow's registry: the joint model that `main_evaluate` logs, or one task's model."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from mtl.errors import UserError
from mtl.serving import loading
from mtl.tracking import bundles, registry

_ALIAS = re.compile(r"models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)")


def current_version(uri: str) -> str | None:
    """Look up the version that the alias in `models:/name@alias` points at; None for URIs without an alias.

    Raises UserError if the alias does not exist, or if the store cannot be reached.
    """
    match = _ALIAS.fullmatch(uri)
    if match is None:
        return None
    number = registry.aliases(match["name"]).get(match["alias"])
    if number is None:
        raise UserError(f"{uri}: no such alias")
    return number


def load(uri: str) -> dict[str, loading.Loaded]:
    """Download, load and compile the models of `models:/name@alias`, `models:/name/version` or `models:/id`.

    No code in them is run: of a joint model only the Keras files are read, in safe mode. Their labels are those that
    were logged with them, whatever data/labels contains.

    Raises UserError if the download fails, or if it is neither a joint model nor a task's model of this project.
    """
    match = _ALIAS.fullmatch(uri)
    # The download is by number: the alias may move between two requests.
    number = match and registry.aliases(match["name"]).get(match["alias"])
    with tempfile.TemporaryDirectory() as folder:
        bundle = bundles.fetch(f"models:/{match['name']}/{number}" if match and number else uri, Path(folder))
        networks = bundles.read(bundle)
    return loading.from_bundle(bundle, networks, number or uri.rpartition("/")[2])
