"""The stages that DVC would run, and those that each waits for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from mtl.errors import UserError, one_line


def plan(targets: Sequence[str], force: bool, done: set[str], allow_missing: bool = False) -> dict[str, set[str]]:
    """Ask DVC for the stages to run, but for `done`: each, in its order, with those that it waits for."""
    import networkx as nx
    from dvc.repo import Repo

    logging.disable(logging.WARNING)  # a dry run announces stages as if it ran them
    try:
        # Busy at first is an error, as for `dvc repro`; after hours of training it is worth a wait.
        with Repo(_wait_for_lock=bool(done)) as repo:
            # Unforced, a dry run fails on the first output that is not there yet.
            selected = repo.reproduce(list(targets), dry=True, force=True)
            with repo.lock:
                todo = {stage.addressing for stage in selected if force or stage.changed(allow_missing)} - done
            graph = nx.relabel_nodes(repo.index.graph, lambda stage: stage.addressing)
    finally:
        logging.disable(logging.NOTSET)
    # An edge leads from a stage to what it needs: networkx's ancestors are what is downstream.
    affected = todo.union(*(nx.ancestors(graph, name) for name in todo)) - done
    order = [stage.addressing for stage in selected if stage.addressing in affected]
    return {name: nx.descendants(graph, name).intersection(order) for name in order}


def refuse_broken_lock(path: Path = Path("dvc.lock")) -> None:
    """Raise UserError where a dvc.lock exists that no `dvc repro` gets past, with the advice."""
    from dvc.schema import COMPILED_LOCKFILE_SCHEMA
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError
    from voluptuous import Invalid

    try:
        if path.read_bytes():
            COMPILED_LOCKFILE_SCHEMA(YAML(typ="safe", pure=True).load(path))
            return
        fault = "is empty, as a full disk leaves it"
    except FileNotFoundError:
        return
    except (YAMLError, Invalid, ValueError) as error:
        fault = f"is not what DVC writes ({one_line(error)[:100]})"
    raise UserError(f"{path} {fault}: remove it, or `git restore {path}` where git has it; then `dvc repro` writes it")
