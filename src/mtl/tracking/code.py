"""The user's own modules that are logged with a model, and a check that the model loads elsewhere."""

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

SECONDS = 300  # for a new process to import TensorFlow on a busy machine, load a model and predict
_CHECK = "import sys, mlflow; model = mlflow.pyfunc.load_model(sys.argv[1]); model.predict(model.input_example)"


def sources(modules: Sequence[str]) -> dict[Path, Path]:
    """The source files of `modules`, and of the user's other modules that were imported from the same folders.

    Args:
        modules: names of imported modules.

    Returns:
        Path relative to a folder of sys.path -> file. Installed packages are left out: they are requirements.
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
    """Copy the `sources` of modules into `folder`; return MLflow's `code_paths`, None where nothing was copied."""
    for relative, file in sources(modules).items():
        (folder / relative).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(file, folder / relative)
    return sorted(map(str, folder.iterdir())) or None


def distributions(modules: Sequence[str]) -> list[str]:
    """The names of the distributions that provide the installed ones among `modules`."""
    by_package, tops = packages_distributions(), {name.partition(".")[0] for name in modules if _is_installed(name)}
    return sorted({distribution for top in tops for distribution in by_package.get(top, [])})


def load_error(model: Path) -> str | None:
    """The error of a new process outside of the repository that loads a saved model and predicts; None where it can."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    environment["CUDA_VISIBLE_DEVICES"] = "-1"  # this process has the GPUs
    with tempfile.TemporaryDirectory() as elsewhere:
        try:
            process = subprocess.run(
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
    if process.returncode == 0:
        return None
    # A message may have several lines. Unlike those of a traceback, its first line is not indented.
    lines = process.stderr.splitlines()
    messages = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt)\b", line)]
    return (messages or lines or [f"exit status {process.returncode}"])[-1][:300]


def _imported() -> Iterator[str]:
    """Yield the names of the imported modules that have a source file and are not installed."""
    for name, module in list(sys.modules.items()):
        spec = getattr(module, "__spec__", None)
        is_source = spec is not None and spec.name == name and str(spec.origin).endswith(".py")
        if is_source and not _is_installed(name) and _file(name).is_file():
            yield name


def _file(name: str) -> Path:
    spec = sys.modules[name].__spec__
    if spec is None or spec.origin is None:
        raise ImportError(f"{name} has no source file")
    return Path(spec.origin).absolute()


def _root(name: str) -> Path:
    """The folder of sys.path that a module was imported from."""
    is_package = hasattr(sys.modules[name], "__path__")
    return _file(name).parents[name.count(".") + is_package]


def _is_installed(name: str) -> bool:
    return str(_file(name)).startswith(_installed_roots())


@cache
def _installed_roots() -> tuple[str, ...]:
    """The folders of the standard library and of installed packages."""
    keys = ("stdlib", "platstdlib", "purelib", "platlib")
    return tuple({sysconfig.get_path(key) + os.sep for key in keys})


def _is_mtl(name: str) -> bool:
    return name.partition(".")[0] == "mtl"
