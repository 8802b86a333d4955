"""Errors that a person reads: one line, exit status 1, no traceback."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable


class UserError(Exception):
    """Something a person can put right; the message is one line: where, what is wrong, what would be right."""


def describe_os_error(error: OSError) -> str:
    """Say what the system refused, in one line (`OSError` of a short write carries no `strerror`)."""
    reason = error.strerror or str(error) or type(error).__name__
    return f"{error.filename}: {reason}" if error.filename else reason


def run(main: Callable[[], object]) -> None:
    """Run a stage's `main`; end the process with one line on stderr where a person has something to mend.

    Under DVC the stage's earlier outputs were removed before it started, so the line says how they come back.
    """
    try:
        main()
    except UserError as error:
        message = str(error)
    except OSError as error:
        message = describe_os_error(error)
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        return
    if "DVC_STAGE" in os.environ:
        message += " (nothing is lost: `dvc checkout` and `git restore metrics` bring the last outputs back)"
    sys.exit(f"error: {message}")
