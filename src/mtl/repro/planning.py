"""What DVC would run, and what each stage waits for."""

from __future__ import annotations

import logging
from collections.abc import Sequence


def plan(targets: Sequence[str], force: bool, done: set[str], allow_missing: bool = False) -> dict[str, set[str]]:
    """Ask DVC what is to run, but for `done`: each stage, in its order, with what it waits for."""
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
