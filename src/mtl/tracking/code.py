"""A person's own modules, as they go with a logged model, and whether a stranger can load it."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.metadata import packages_distributions
from pathlib import Path

SECONDS = 300  # for a fresh process to import TensorFlow on a busy machine, load a model and ask it
_CHECK = "import sys, mlflow; model = mlflow.pyfunc.load_model(sys.argv[1]); model.predict(model.input_example)"


def sources(modules: Sequence[str]) -> dict[Path, Path]:
    """The files of `modules`, which are imported, and of what of a person's own was imported beside them.

    Returns:
        path below a folder of code -> file; none of packages that are installed, which are requirements.
    """
    own = [name for name in modules if not _is_installed(name)]
    roots = {_root(name) for name in own}
    names = [
        name for name in _imported() if not _is_mtl(name) and any(_file(name).is_relative_to(root) for root in roots)
    ]
    if any(re.search(rb"^\s*(from|import)\s+mtl\b", _file(name).read_bytes(), re.M) for name in names):
        names += filter(_is_mtl, _imported())
    return {_file(name).relative_to(_root(name)): _file(name) for name in names}


def copy(modules: Sequence[str], folder: Path) -> list[str] | None:
    """Copy the `sources` of modules into `folder`; what MLflow calls `code_paths`, None where there is nothing."""
    for below, file in sources(modules).items():
        (folder / below).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / below)
    return sorted(map(str, folder.iterdir())) or None


def distributions(modules: Sequence[str]) -> list[str]:
    """The distributions that those of `modules` come from that are installed."""
    known, tops = packages_distributions(), {name.partition(".")[0] for name in modules if _is_installed(name)}
    return sorted({distribution for top in tops for distribution in known.get(top, [])})


def fault(model: Path) -> str | None:
    """Why a fresh process outside of the repository cannot load and ask a saved model; None where it can."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["CUDA_VISIBLE_DEVICES"] = "-1"  # this process has the GPUs
    with tempfile.TemporaryDirectory() as elsewhere:
        try:
            done = subprocess.run(
                [sys.executable, "-c", _CHECK, str(model.absolute())],
                cwd=elsewhere,
                env=environment,
                capture_output=True,
                text=True,
                errors="replace",
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"no answer within {SECONDS} s"
    if done.returncode == 0:
        return None
    # The message of an exception may have lines of its own, and none of them is indented as a traceback's.
    lines = [line for line in done.stderr.splitlines() if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return (lines or done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1][:300]


def _imported() -> Iterator[str]:
    """The modules with a source file of their own, under the names by which they are imported."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        is_source = spec is not None and spec.name == name and str(spec.origin).endswith(".py")
        if is_source and not _is_installed(name) and _file(name).is_file():
            yield name


def _file(name: str) -> Path:
    return Path(sys.modules[name].__spec__.origin).absolute()


def _root(name: str) -> Path:
    """The folder that a module was found in, as sys.path has it."""
    is_package = hasattr(sys.modules[name], "__path__")
    return _file(name).parents[name.count(".") + is_package]


def _is_installed(name: str) -> bool:
    return str(_file(name)).startswith(_places())


@cache
def _places() -> tuple[str, ...]:
    """Where Python's own modules and installed packages are."""
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({sysconfig.get_path(key) + os.sep for key in keys})


def _is_mtl(name: str) -> bool:
    return name.partition(".")[0] == "mtl"
