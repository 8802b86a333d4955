"""Waits for the end of an `mtl repro` and then ends what that left running: `python -m mtl.repro.guard <mark>`."""

from __future__ import annotations

import sys

from mtl.repro.processes import end, marked


def main() -> None:
    """Wait until nobody holds the other end of stdin any more: the process that started this one was killed."""
    sys.stdin.read()
    end(marked(sys.argv[1]))


if __name__ == "__main__":
    main()
