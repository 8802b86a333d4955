"""Errors that a person reads: one line, exit status 1, no traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

FULL = re.compile("No space left on device|File too large|Disk quota exceeded")


class UserError(Exception):
    """Something a person can put right; the message is one line: where, what is wrong, what would be right."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def describe_os_error(error: OSError) -> str:
    """Say what the system refused, in one line (`OSError` of a short write carries no `strerror`)."""
    reason = " ".join(error.strerror.split()) if error.strerror else one_line(error)
    if inner := re.search(r"filename = '([^']*)'.*error message = '([^']*)'", reason):  # HDF5's, among its addresses
        return f"{inner[1]}: {inner[2]}"
    return f"{error.filename}: {reason}" if error.filename else reason


def run(main: Callable[[], object]) -> None:
    """Run a stage's `main`; end the process with one line on stderr where a person has something to mend.

    DVC removes a stage's outputs before it starts the stage, so under DVC the line says how earlier ones come back.
    """
    try:
        main()
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = describe_os_error(error)
    except RuntimeError as error:  # what HDF5 says where a file cannot be closed
        if not FULL.search(str(error)):
            raise
        message = describe_os_error(OSError(str(error)))
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        return
    if FULL.search(message) and "make room" not in message:
        message += "; make room"
    if "DVC_STAGE" in os.environ:
        message += " (outputs of an earlier run: `dvc checkout`; metrics that were committed: `git restore metrics`)"
    if FULL.search(message) and "h5py" in sys.modules:
        # HDF5 cannot close the file that it was writing, and would say so at length at the end, or crash.
        print(f"error: {message}", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)
    sys.exit(f"error: {message}")
