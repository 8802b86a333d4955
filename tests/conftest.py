"""A temporary clone of the project with small images, and commands run in it as a person would."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import dvc  # noqa: F401, binds its log handlers to the session's output here, not to that of the first test with capsys
import numpy as np
import pytest
from hypothesis import settings
from PIL import Image
from ruamel.yaml import YAML
from servers import deployment, postgresql  # noqa: F401, as fixtures

from mtl.data import backend
from mtl.tasks import relations
from mtl.tasks.relations import Relations
from mtl.tasks.spec import TaskSpec
from mtl.tasks.targets import Targets

settings.register_profile("any speed", deadline=None)
settings.load_profile("any speed")

ROOT = Path(__file__).parents[1]
CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def task_spec(
    name: str, groups: Mapping[str, str] | Sequence[str], names: Sequence[str] | None = None, column: str = "class"
) -> TaskSpec:
    """A task of equally frequent names; `groups` has the name of each value, or the values are the names."""
    group_of = groups if isinstance(groups, Mapping) else {value: value for value in groups}
    names = tuple(dict.fromkeys(group_of.values()) if names is None else names)
    shares = (1 / len(names),) * len(names)
    return TaskSpec(name=name, columns=(column,), names=names, groups=dict(group_of), frequencies=shares)


def regrouped(*specs: TaskSpec) -> Relations:
    """The relations between tasks that group the values of one column, of which each is in training once."""
    values = sorted(specs[0].groups)
    targets = {
        spec.name: Targets(np.array([spec.names.index(spec.groups[v]) for v in values]), np.ones(len(values), bool))
        for spec in specs
    }
    return relations.learn({spec.name: spec for spec in specs}, targets)


class Project:
    """A clone in a folder of its own: `run` a command in it, `edit` its params.yaml."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root, self.environment = root, environment

    def run(self, *command: str, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
        """Run a command with the interpreter's own `dvc`, `mtl` and `python` first on PATH."""
        done = subprocess.run(
            command, cwd=self.root, env=self.environment | environment, capture_output=True, text=True, timeout=1800
        )
        assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def edit(self, change: Callable[[dict], None]) -> None:
        """Change params.yaml, keeping its comments."""
        yaml = YAML()
        tree = yaml.load(self.root / "params.yaml")
        change(tree)
        yaml.dump(tree, self.root / "params.yaml")

    def lock(self) -> dict:
        """dvc.lock as parsed YAML: the order of stages may differ between runs."""
        return YAML(typ="safe").load(self.root / "dvc.lock")

    def copy(self, to: Path) -> Project:
        """The same project, as it is now, in another folder."""
        shutil.copytree(self.root, to, symlinks=True)
        return Project(to, self.environment)


def clone(to: Path) -> Project:
    """Copy what git would hold of the working tree, and commit it there."""
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    for name in filter(None, listed.stdout.split("\0")):
        if (ROOT / name).exists() and name != "dvc.lock":
            (to / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, to / name, follow_symlinks=False)
    drop = ("MLFLOW_", "DVC_", "CIFAR10_PATH", "GIT_", "KERAS_HOME")
    environment = {key: value for key, value in os.environ.items() if not key.startswith(drop)}
    environment |= {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(to / "src"),
        "DVC_NO_ANALYTICS": "1",
        "GIT_AUTHOR_NAME": "t",
        "GIT_AUTHOR_EMAIL": "t@example.org",
        "GIT_COMMITTER_NAME": "t",
        "GIT_COMMITTER_EMAIL": "t@example.org",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "KERAS_HOME": str(to / ".keras"),
    }
    project = Project(to, environment)
    project.run("git", "init", "-q", "-b", "main")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "start")
    return project


def write_images(folder: Path, classes: tuple[str, ...] = CIFAR10, train: int = 12, test: int = 4) -> None:
    """Class folders of 12×12 noise around a colour of the class: something that a network can learn in seconds."""
    rng = np.random.default_rng(0)
    colours = rng.integers(40, 215, size=(len(classes), 3))
    for split, count in (("train", train), ("test", test)):
        for name, colour in zip(classes, colours, strict=True):
            (folder / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = (colour + rng.integers(-40, 41, size=(12, 12, 3))).astype(np.uint8)
                Image.fromarray(pixels).save(folder / split / name / f"{index:03d}.png")


def small(tree: dict) -> None:
    """Parameters for a DAG of seconds on the images of `write_images`."""
    tree["data"] |= {"source": "folder", "path": "data/external", "validation": 20}
    tree["recipes"]["compact"] |= {"epochs": 2, "batch_size": 32, "options": {"widths": [8, 8]}}
    for task in tree["tasks"].values():
        task["recipe"] = "compact"


@pytest.fixture(autouse=True)
def dtype_policy():
    """Keras' precision is that of a fresh process again, whatever a stage in this one has set."""
    yield
    if keras := sys.modules.get("keras"):
        keras.config.set_dtype_policy("float32")


@pytest.fixture
def full_disk():
    """No file may grow beyond 4 kB: to the writer the same as a full disk, an OSError half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="session")
def tensorflow() -> None:
    """TensorFlow in this process as the stages set it up, before anything is computed."""
    from mtl.config import params

    backend.import_tensorflow()
    backend.configure(params.Hardware(threads=1, strategy="auto"), "float32", seed=0)


@pytest.fixture(scope="session")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A clone with small images and parameters, before anything ran. Copy it before changing it."""
    project = clone(tmp_path_factory.mktemp("fresh"))
    write_images(project.root / "data" / "external")
    project.edit(small)
    project.run("git", "commit", "-qam", "small")
    return project


@pytest.fixture(scope="session")
def done(fresh: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """The same after `dvc repro`. Copy it before changing it."""
    project = fresh.copy(tmp_path_factory.mktemp("done") / "project")
    project.environment = fresh.environment | {"PYTHONPATH": str(project.root / "src")}
    project.run("dvc", "repro", "-q")
    project.run("git", "add", "-A")
    project.run("git", "commit", "-qm", "done")
    return project
