"""Errors that a person reads: one line, exit status 1, no traceback."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable

from mtl import orphans


class UserError(Exception):
    """Something a person can put right; the message is one line: where, what is wrong, what would be right."""


def one_line(error: BaseException) -> str:
    """What an error says, in one line; its type where it says nothing."""
    if isinstance(error, UnicodeEncodeError) and (odd := re.search(r"[^\s'\"]*[\ud800-\udfff][^\s'\"]*", error.object)):
        # How Python holds a file name that is not UTF-8.
        return f"the name {os.fsencode(odd[0][-200:]).decode(errors='backslashreplace')} is not UTF-8; rename it"
    return " ".join(str(error).split()) or type(error).__name__


def describe_os_error(error: OSError) -> str:
    """Say what the system refused, in one line (`OSError` of a short write carries no `strerror`)."""
    reason = " ".join(error.strerror.split()) if error.strerror else one_line(error)
    return f"{error.filename}: {reason}" if error.filename else reason


def run(main: Callable[[], object]) -> None:
    """Run a stage's `main`; end the process with one line on stderr where a person has something to mend.

    DVC removes a stage's outputs before it starts the stage, so under DVC the line says how earlier ones come back.
    A stage ends with the DVC that started it.
    """
    orphans.end_with_dvc()
    try:
        main()
    except UserError as error:
        message = str(error)
    except UnicodeEncodeError as error:
        message = one_line(error)
    except OSError as error:
        message = describe_os_error(error)
    except KeyboardInterrupt:
        sys.exit(130)
    else:
        return
    if "DVC_STAGE" in os.environ:
        message += " (outputs of an earlier run: `dvc checkout`; metrics that were committed: `git restore metrics`)"
    sys.exit(f"error: {message}")
