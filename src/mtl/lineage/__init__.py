"""Facts of git and DVC: commits, the md5 of what stages read and write, and outputs that come back or go.

What MLflow knows of runs is in `tracking`.
"""

from mtl.lineage.commits import git, uncommitted
from mtl.lineage.outputs import leftovers, restore
from mtl.lineage.repository import add, is_in_cache, is_tracked, root
from mtl.lineage.stages import hashes, is_current, loaded_from, locked, outdated

__all__ = [
    "add",
    "git",
    "hashes",
    "is_current",
    "is_in_cache",
    "is_tracked",
    "leftovers",
    "loaded_from",
    "locked",
    "outdated",
    "restore",
    "root",
    "uncommitted",
]
