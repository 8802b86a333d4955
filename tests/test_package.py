"""The wheel and the Dockerfile: built, installed and run away from the repository.

To save 3 GB and minutes, what the wheel needs is not installed again but lent by the present environment, without the
project itself. So these tests do not show that what requirements.txt names can be installed; `make setup` does.
"""

from __future__ import annotations

import email
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
import zipfile
from pathlib import Path

import mlflow
import pytest
from conftest import ROOT, Project, clone, small, write_images
from ruamel.yaml import YAML
from test_cluster import config, free_ports

BUILD = (sys.executable, "-m", "build", "--no-isolation")


def environment(folder: Path) -> Path:
    """A fresh virtual environment in `folder`; it sees the present packages without this project."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    lent, own = Path(sysconfig.get_path("purelib")), folder.parent / f"{folder.name}-lent"
    own.mkdir()
    for entry in lent.iterdir():
        if "multi_task_learning" not in entry.name:
            (own / entry.name).symlink_to(entry)
    [packages] = folder.glob("lib/python*/site-packages")
    (packages / "lent.pth").write_text(f"{own}\n")
    return folder


def variables(*folders: Path, **more: str) -> dict[str, str]:
    """Environment variables as in a container: nothing of ours, and no git."""
    kept = {name: os.environ[name] for name in ("LANG", "TMPDIR") if name in os.environ}
    return kept | {"PATH": os.pathsep.join(map(str, folders)), "PIP_NO_INDEX": "1"} | more


def run(*command: str | Path, cwd: Path, check: bool = True, **kwargs) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=540, **kwargs)
    assert not check or done.returncode == 0, f"{command}: {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Project:
    return clone(tmp_path_factory.mktemp("source"))


@pytest.fixture(scope="module")
def wheel(source) -> Path:
    """The wheel of what git holds, built from the source distribution, as `python -m build` does."""
    source.run(*BUILD)
    [found] = (source.root / "dist").glob("*.whl")
    return found


@pytest.fixture(scope="module")
def installed(wheel, tmp_path_factory) -> Path:
    """The bin of a fresh environment with the wheel."""
    folder = environment(tmp_path_factory.mktemp("clean") / "venv")
    run(folder / "bin/python", "-m", "pip", "install", "--no-deps", wheel, cwd=folder, env=variables(folder / "bin"))
    return folder / "bin"


@pytest.fixture
def elsewhere(tmp_path) -> Path:
    """A folder with `images` and `p.yaml`, and nothing else of the repository."""
    write_images(tmp_path / "images")
    yaml = YAML()
    tree = yaml.load(ROOT / "params.yaml")
    small(tree)
    yaml.dump(tree, tmp_path / "p.yaml")
    return tmp_path


def requirements(name: str) -> set[str]:
    lines = (ROOT / name).read_text().splitlines()
    return {line.partition("#")[0].strip() for line in lines if line and not line.startswith(("#", "-r"))}


def test_the_wheel_holds_the_library_the_stages_and_what_it_needs(wheel):
    with zipfile.ZipFile(wheel) as file:
        names = [name for name in file.namelist() if not name.startswith("multi_task_learning-")]
        text = {Path(name).name: file.read(name).decode() for name in file.namelist() if ".dist-info/" in name}
    library = {path.relative_to(ROOT / "src").as_posix() for path in (ROOT / "src/mtl").rglob("*") if path.is_file()}
    stages = {f"mtl/stages/{path.name}" for path in (ROOT / "src").glob("*.py")}
    assert len(stages) == 5
    assert set(names) == {name for name in library if "__pycache__" not in name} | stages
    assert {"mtl/py.typed", "mtl/serving/page/index.html"} <= set(names)
    assert text["LICENSE"] == (ROOT / "LICENSE").read_text()
    assert "mtl = mtl.cli:main" in text["entry_points.txt"]
    metadata = email.message_from_string(text["METADATA"])
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_payload().strip() == (ROOT / "README.md").read_text().strip()
    needs = metadata.get_all("Requires-Dist")
    assert {need for need in needs if "extra ==" not in need} == requirements("requirements.txt")
    extras = {path.stem.partition("-")[2] for path in ROOT.glob("requirements-*.txt")} - {"dev", "beam"}
    assert set(metadata.get_all("Provides-Extra")) == extras
    for extra in extras:
        named = {need.partition(";")[0] for need in needs if need.endswith(f'extra == "{extra}"')}
        assert named == requirements(f"requirements-{extra}.txt")


NETWORK = """
import keras

def small(shape, classes):
    pixels = keras.Input(shape, dtype="uint8")
    answers = keras.layers.Dense(classes, "softmax")(keras.layers.Flatten()(keras.layers.Rescaling(1 / 255)(pixels)))
    return keras.Model(pixels, answers)
"""

PLAIN = ("--network=mine:small", "--options={}", "--precision=float32", "--optimizer={name: sgd, learning_rate: 0.1}")


@pytest.mark.slow
def test_the_wheel_trains_what_the_repository_trains(installed, elsewhere, done):
    """The same bytes as `dvc repro` in a clone, from a params file and a folder of images; a second run is refused."""
    command = (installed / "mtl", "train", "model2", "--params", "p.yaml", "--data", "images", "-o", "out")
    env = variables(installed)
    assert run(installed / "python", "-c", "import mtl; print(mtl.__file__)", cwd=elsewhere, env=env).stdout.startswith(
        str(installed.parent)
    )
    got = run(*command, "--report", "r/metrics", cwd=elsewhere, env=env)
    assert got.stderr == ""
    for name in ("models/model2.keras", "metrics/model2.json", "metrics/plots/model2_history.csv"):
        assert (elsewhere / "out" / name).read_bytes() == (done.root / name).read_bytes(), name
    metrics = json.loads((done.root / "metrics/model2.json").read_text())
    assert got.stdout.splitlines()[-7:] == ["out/models/model2.keras"] + [
        f"{name}={value:.6g}" for name, value in sorted(metrics.items())
    ]
    reported = [json.loads(line) for line in (elsewhere / "r/metrics").read_text().splitlines()]
    assert [float(reported[0]["val_acc"]), float(reported[1]["val_loss"])] == [metrics["val_acc"], metrics["val_loss"]]
    assert sorted(path.name for path in (elsewhere / "out").iterdir()) == [
        ".mlflow.lock",
        "metrics",
        "mlartifacts",
        "mlflow.db",
        "models",
        "params.yaml",
    ]
    client = mlflow.MlflowClient(f"sqlite:///{elsewhere / 'out/mlflow.db'}")
    names = {experiment.name: experiment.experiment_id for experiment in client.search_experiments()}
    assert set(names) == {"Default", "load_data", "derive_labels", "model2"}
    [logged] = client.search_runs([names["model2"]])
    assert logged.info.status == "FINISHED"
    assert logged.data.metrics["test_acc"] == metrics["test_acc"]
    assert not [tag for tag in logged.data.tags if tag.startswith(("dep.", "out.", "git_commit"))]  # no DVC, no git
    assert list((elsewhere / "out/mlartifacts/model2").rglob("MLmodel"))

    again = run(*command, cwd=elsewhere, env=env, check=False)
    assert again.returncode == 1
    assert (
        again.stderr
        == f"error: {elsewhere}/out holds the results of a run (params.yaml) already; give another --output\n"
    )
    for name in ("report", "serve", "promote", "tune"):  # all of `mtl` is there
        run(installed / "mtl", name, "--help", cwd=elsewhere, env=env)


@pytest.mark.slow
def test_a_killed_training_goes_on_and_ends_with_the_same_bytes(installed, elsewhere, done):
    command = (installed / "mtl", "train", "model2", "--params", "p.yaml", "--data", "images", "-o", "out")
    env, state = variables(installed), elsewhere / "out/.work/.checkpoints/model2/state.json"
    process = subprocess.Popen(command, cwd=elsewhere, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 300
    while not state.exists():
        assert process.poll() is None and time.monotonic() < deadline, process.communicate()[0]
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (elsewhere / "out/models").exists()
    other = run(*command, "--epochs=3", cwd=elsewhere, env=env, check=False)
    assert "holds another training that did not end" in other.stderr
    assert other.stderr.count("\n") == 1
    assert "goes on after epoch" in run(*command, cwd=elsewhere, env=env).stdout
    model = "models/model2.keras"
    assert (elsewhere / "out" / model).read_bytes() == (done.root / model).read_bytes()
    assert not (elsewhere / "out/.work").exists()


@pytest.mark.slow
def test_of_two_machines_the_chief_alone_leaves_something(installed, elsewhere):
    """Both are given the same command; TF_CONFIG tells them apart."""
    (elsewhere / "mine.py").write_text(NETWORK)
    addresses = [f"127.0.0.1:{port}" for port in free_ports(2)]
    command = (installed / "mtl", "train", "model2", "--params", "p.yaml", "--data", "images", "-o", "out", *PLAIN)
    workers = []
    for index in range(2):
        (elsewhere / f"tmp{index}").mkdir()
        own = {"TF_CONFIG": config({"worker": addresses}, index=index), "TMPDIR": str(elsewhere / f"tmp{index}")}
        workers.append(
            subprocess.Popen(
                (*command, "--hardware.strategy=multi_worker", "--batch_size=20"),
                cwd=elsewhere,
                env=variables(installed) | own,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    try:
        said = [worker.communicate(timeout=400)[0] for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert [worker.returncode for worker in workers] == [0, 0], said
    metrics = json.loads((elsewhere / "out/metrics/model2.json").read_text())
    assert f"val_acc={metrics['val_acc']:.6g}" in said[0].splitlines()
    assert said[1].splitlines()[-1] == "model2: trained; worker 0, the chief, has the model and judges it"
    client = mlflow.MlflowClient(f"sqlite:///{elsewhere / 'out/mlflow.db'}")
    logged = {e.name: len(client.search_runs([e.experiment_id])) for e in client.search_experiments()}
    assert (logged["load_data"], logged["model2"]) == (1, 1)
    assert not list((elsewhere / "tmp1").glob("mtl-worker-*"))


# The Dockerfile


def instructions() -> list[tuple[str, str]]:
    """The instructions of the Dockerfile: the word and the rest, lines that go on joined."""
    text = re.sub(r"\\\n\s*", "", "".join(re.findall(r"^[^#\n].*\n", (ROOT / "Dockerfile").read_text(), re.M)))
    return [tuple(line.split(" ", 1)) for line in text.splitlines()]


def test_the_dockerfile_is_linted_and_asks_for_what_is_pinned():
    linted = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "Dockerfile"], capture_output=True, text=True
    )
    assert (linted.returncode, linted.stdout) == (0, "")
    given = instructions()
    assert all(re.fullmatch(r"python:3\.\d+\.\d+-slim-\w+( AS \w+)?", rest) for word, rest in given if word == "FROM")
    tools = {word for _, rest in given for word in rest.split() if "==" in word}
    assert len(tools) == 2
    assert tools <= requirements("requirements-dev.txt")
    assert [rest for word, rest in given if word == "USER"] == ["1000:1000"]


class Image:
    """Does what `docker build` would do, in folders instead of images; each stage has an environment as its Python."""

    def __init__(self, folder: Path, context: Path) -> None:
        self.folder, self.context, self.stages, self.command = folder, context, {}, []
        for word, rest in instructions():
            getattr(self, f"do_{word.lower()}")(rest)

    def place(self, path: str, root: Path | None = None) -> Path:
        return (root or self.root) / path.lstrip("/") if path.startswith("/") else self.cwd / path

    def do_from(self, rest: str) -> None:
        name = rest.partition(" AS ")[2] or "final"
        self.stages[name] = self.root = self.cwd = self.folder / name
        self.root.mkdir()
        self.env = variables(environment(self.root / "venv") / "bin", Path("/usr/bin"), Path("/bin"))

    def do_workdir(self, rest: str) -> None:
        self.cwd = self.place(rest)
        self.cwd.mkdir(parents=True, exist_ok=True)

    def do_copy(self, rest: str) -> None:
        *sources, to = rest.split()
        root = None
        if sources[0].startswith("--from="):
            root = self.stages[sources.pop(0).partition("=")[2]]
        for source in sources:
            found = self.place(source, root) if root else self.context / source
            target = self.place(to)
            if found.is_dir():  # Docker copies what is in it
                shutil.copytree(found, target, dirs_exist_ok=True)
            else:
                shutil.copy(found, target)

    def do_arg(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self.env[name] = value.strip('"')

    def do_env(self, rest: str) -> None:
        self.env |= dict(word.split("=", 1) for word in shlex.split(rest))

    def do_run(self, rest: str) -> None:
        run("sh", "-ec", rest, cwd=self.cwd, env=self.env)

    def do_user(self, rest: str) -> None:
        """Not tried: it takes root to become somebody else."""

    def do_entrypoint(self, rest: str) -> None:
        self.command = json.loads(rest)

    def do_cmd(self, rest: str) -> None:
        self.default = json.loads(rest)


@pytest.fixture(scope="module")
def image(source, tmp_path_factory) -> Image:
    """The Dockerfile's steps, done with what .dockerignore lets through."""
    context = tmp_path_factory.mktemp("context")
    for pattern in re.findall(r"^!(.+)$", (ROOT / ".dockerignore").read_text(), re.M):
        for path in source.root.glob(pattern):
            if path.is_dir():
                shutil.copytree(path, context / path.name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
            else:
                shutil.copy(path, context)
    return Image(tmp_path_factory.mktemp("image"), context)


@pytest.mark.slow
def test_the_steps_of_the_dockerfile_make_a_command_that_trains_from_tfrecords(image, elsewhere):
    """Shards are made and read there, these from a URI; with a network of one's own, and a refusal in one line."""
    mtl = tuple(image.command)
    assert "Multi-task learning" in run(*mtl, *image.default, cwd=elsewhere, env=image.env).stdout
    run(*mtl, "convert", "images", "records", "--validation", "20", cwd=elsewhere, env=image.env)
    (elsewhere / "mine.py").write_text(NETWORK)
    flags = ("--params", "p.yaml", "--data", f"local://{elsewhere}/records", "--data.source=tfrecord", *PLAIN)
    got = run(*mtl, "train", "model2", *flags, "-o", "out", "--report", "m", cwd=elsewhere, env=image.env)
    assert "100 + 20 + 40 images" in got.stdout
    assert re.search(r"^val_acc=[\d.]+$", got.stdout, re.M)
    assert (elsewhere / "out/models/model2.keras").is_file()
    assert f"path: local://{elsewhere}/records" in (elsewhere / "out/params.yaml").read_text()
    failed = run(*mtl, "train", "model2", *flags, "-o", "b", "--lr=1", cwd=elsewhere, env=image.env, check=False)
    assert failed.returncode == 1
    assert failed.stderr.startswith("error: --lr: p.yaml has no recipes.compact.lr; known in recipes.compact: network")
    assert failed.stderr.count("\n") == 1
