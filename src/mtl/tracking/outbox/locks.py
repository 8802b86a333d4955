"""Locks that a process takes at once or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from filelock import BaseFileLock


@contextmanager
def try_lock(lock: BaseFileLock) -> Iterator[bool]:
    """Hold a lock; yield False where another process holds it, or its folder is gone or cannot be locked."""
    from filelock import Timeout

    try:
        lock.acquire(timeout=0)
    except (Timeout, OSError, NotImplementedError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
