"""Errors that a person reads: one line, exit status 1, no traceback."""

from __future__ import annotations

import difflib
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

FULL = re.compile("No space left on device|File too large|Disk quota exceeded")


class UserError(Exception):
    """Something a person can put right; the message is one line: where, what is wrong, what would be right."""


def one_line(error: BaseException) -> str:
    """The message of an error in one line; its type where that is empty."""
    if isinstance(error, UnicodeEncodeError) and (odd := re.search(r"[^\s'\"]*[\ud800-\udfff][^\s'\"]*", error.object)):
        # Python holds a file name that is not UTF-8 in surrogates.
        return f"the name {os.fsencode(odd[0][-200:]).decode(errors='backslashreplace')} is not UTF-8; rename it"
    return " ".join(str(error).split()) or type(error).__name__


def describe_os_error(error: OSError) -> str:
    """The file and the reason of a system error in one line (`OSError` of a short write carries no `strerror`)."""
    reason = " ".join(error.strerror.split()) if error.strerror else one_line(error)
    if inner := re.search(r"filename = '([^']*)'.*error message = '([^']*)'", reason):  # HDF5's, among its addresses
        return f"{inner[1]}: {inner[2]}"
    return f"{error.filename}: {reason}" if error.filename else reason


def nearest(name: str, names: Sequence[str]) -> str:
    """The one of `names`, which are not empty, that is spelt most like `name`."""
    return difflib.get_close_matches(name, names, n=1, cutoff=0)[0]


def run(main: Callable[[], object], restore: Callable[[str], bool] | None = None) -> None:
    """Run a command's or a stage's `main`; end the process with one line on stderr where a person can mend something.

    Args:
        restore: brings back the outputs of an earlier run of the stage of this name, which DVC removes before it starts
            the stage; False where they are not to be had. It is called however `main` fails.
    """
    stage = os.environ.get("DVC_STAGE")
    try:
        main()
        return
    except BaseException as error:
        message = _message(error)
        failed = not isinstance(error, SystemExit) or error.code
        restored = bool(stage and restore and failed and restore(stage))
        if isinstance(error, KeyboardInterrupt):
            sys.exit(130)
        if message is None:
            raise
    if stage and not restored:
        message += " (outputs of an earlier run: `dvc checkout`; metrics that were committed: `git restore metrics`)"
    elif not stage and re.search("`dvc (repro|checkout)", message):
        message += _advice_on_folder()
    if FULL.search(message) and "h5py" in sys.modules:
        # HDF5 cannot close the file that it was writing, and would say so at length at the end, or crash.
        print(f"error: {message}", file=sys.stderr)
        for stream in (sys.stdout, sys.stderr):
            stream.flush()
        os._exit(1)
    sys.exit(f"error: {message}")


def _message(error: BaseException) -> str | None:
    """The line for a person; None for what nobody but a programmer can mend."""
    if isinstance(error, UserError):
        message = str(error)
    elif isinstance(error, UnicodeEncodeError):
        message = one_line(error)
    elif isinstance(error, OSError):
        message = describe_os_error(error)
    elif isinstance(error, RuntimeError) and FULL.search(str(error)):  # HDF5's, of a file that it cannot close
        message = describe_os_error(OSError(str(error)))
    else:
        return None
    return f"{message}; make room" if FULL.search(message) and "make room" not in message else message


def _advice_on_folder() -> str:
    """The folder to run DVC in, where that is not the working directory; else empty."""
    try:
        here = Path.cwd()
    except FileNotFoundError:
        return " (this folder was removed)"
    root = next((folder for folder in (here, *here.parents) if (folder / "dvc.yaml").exists()), None)
    if root == here:
        return ""
    return f" (there is no dvc.yaml in {here}; do it in {root or 'the root of a project'})"
