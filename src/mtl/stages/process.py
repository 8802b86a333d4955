"""A stage as a process of its own: what every entry does around the stage's function."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from mtl import errors, lineage
from mtl.training import leftovers


def run(main: Callable[[], object]) -> None:
    """Run a stage, and end with the DVC that started it; a failure is one line and brings back the earlier outputs."""
    _end_with_dvc()

    def clear_and_run() -> None:
        leftovers.clear()
        main()

    errors.run(clear_and_run, lineage.restore)


def _end_with_dvc() -> None:
    """Under DVC, watch the process that started us and end when it is gone: a killed `dvc repro` leaves no orphan."""
    if "DVC_STAGE" not in os.environ:
        return
    import psutil

    ancestors = psutil.Process().parents()
    # DVC starts a stage through a shell (`sh -c …`), which survives DVC; some shells replace themselves.
    through_shell = "-c" in ancestors[0].cmdline()[1:2]
    watched = ancestors[: 2 if through_shell else 1]

    def watch() -> None:
        while all(process.is_running() for process in watched):
            time.sleep(1)
        os._exit(1)

    threading.Thread(target=watch, name="end-with-dvc", daemon=True).start()
