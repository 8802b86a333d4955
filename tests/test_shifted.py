"""The shifted test set: what may be in data.shifted, what it changes, and what it never does."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from conftest import CIFAR10, ROOT, Project
from images import encoded, pixels, tree, write_tar, write_tree
from test_dag import changed, ran

from mtl import sources
from mtl.config import params
from mtl.config.params import Data
from mtl.errors import UserError
from mtl.report.sections import sections
from mtl.sources import shifted
from mtl.sources.loaded import CLASS, Loaded, Shifted, class_column
from mtl.stages import load_data

ROWS = "image,kind,price\na.png,cat,1\nb.png,dog,2.5\nc.png,,\n"


def data(source: str, **more) -> Data:
    return Data(**{"source": source, "path": "in", "shifted": "more", "validation": 0, **more})


def of_cifar10(side: int = 32) -> Loaded:
    """What a data set of ten images, one of each class, looks like when it is loaded."""
    images = np.zeros((10, side, side, 3), np.uint8)
    column = class_column(np.arange(10), CIFAR10)
    return Loaded("n", "raw", {"train": images, "test": images}, {"train": column, "test": column})


def read(settings: Data) -> Shifted:
    """The shifted set of the data set in `in`; of cifar10 that of `of_cifar10`."""
    assert shifted.exists(settings)
    loaded = of_cifar10(settings.size or 32) if settings.source == "cifar10" else sources.load(settings, 0)
    return shifted.load(settings, loaded)


def save(path: Path, **arrays: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, **arrays)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a data set of the classes cat and dog in `in`."""
    monkeypatch.chdir(tmp_path)
    write_tree(tmp_path / "in", tree())
    return tmp_path


def write_table(folder: Path, text: str, **more: int) -> None:
    write_tree(folder, {f"{name}.png": encoded(pixels(seed, **more)) for seed, name in enumerate("abc")})
    (folder / "table.csv").write_text(text)


# --- what is read

PICTURES = {"dog/1.png": encoded(pixels(7)), "dog/0.png": encoded(pixels(8))}


@pytest.mark.parametrize("lead", ["", "test/", "photos/", "photos/test/"])
@pytest.mark.parametrize("packed", [False, True])
def test_images_by_class_may_be_below_test_in_a_folder_or_a_tar(here: Path, lead: str, packed: bool) -> None:
    files = {f"{lead}{name}": content for name, content in PICTURES.items()}
    if lead.endswith("test/"):
        files[lead.replace("test", "train") + "cat/0.png"] = encoded(pixels(9))  # left out
    (here / "more").mkdir()
    write_tar(here / "more/night.tar.gz", files) if packed else write_tree(here / "more", files)
    (here / "more/README.md").write_text("night")
    got = read(data("folder"))
    assert (got.name, got.encoding) == ("night" if packed else "more", "png")
    assert got.columns[CLASS].to_pylist() == ["dog"] * 2
    np.testing.assert_array_equal(got.images, [pixels(8), pixels(7)])


@pytest.mark.parametrize(("size", "shape"), [(None, (10,)), (16, (10, 1))])
def test_of_cifar10_an_npz_has_the_test_arrays_alone(here: Path, size: int | None, shape: tuple[int, ...]) -> None:
    x = np.stack([pixels(seed, 32, 32) for seed in range(10)])
    save(here / "more/jpeg.npz", x_test=x, y_test=(np.arange(10) % 3).reshape(shape))
    got = read(data("cifar10", size=size))
    assert (got.name, got.encoding, len(got.images)) == ("jpeg", "raw", 10)
    assert got.columns[CLASS].to_pylist() == [CIFAR10[index % 3] for index in range(10)]
    assert got.images.shape[1] == (size or 32)
    assert size or np.array_equal(got.images, x)


@pytest.mark.parametrize(
    ("text", "kinds", "prices"),
    [
        ("price,image,more,kind\n3,b.png,x,dog\n,a.png,x,cat\n", ["dog", "cat"], [3.0, None]),
        ("image,kind,price,split\na.png,cat,1,train\nc.png,dog,4,test\n", ["dog"], [4.0]),
    ],
)
def test_a_table_has_the_columns_and_their_types(here: Path, text: str, kinds: list, prices: list) -> None:
    write_table(here / "in", ROWS)
    write_table(here / "more", text)
    got = read(data("table", test=0.34))
    assert got.columns.to_pydict() == {"kind": kinds, "price": prices}
    assert got.images.shape == (len(kinds), 4, 4, 3)


def test_a_readme_alone_is_no_shifted_set_whatever_the_source(here: Path) -> None:
    (here / "more").mkdir()
    (here / "more/README.md").write_text("nothing yet")
    (here / "more/.gitignore").write_text("*")
    assert not any(shifted.exists(data(source)) for source in ("cifar10", "folder", "table", "generated", "tfrecord"))
    assert not shifted.exists(Data(source="folder", path="in", validation=0))  # the default is not here
    with pytest.raises(UserError, match="elsewhere"):
        shifted.exists(data("folder", shifted="elsewhere"))


# --- what is refused


def _npz(**arrays: object) -> Callable[[Path], None]:
    return lambda folder: save(folder / "more/a.npz", **arrays)


def _files(*names: str, side: int = 4) -> Callable[[Path], None]:
    return lambda folder: write_tree(folder / "more", {name: encoded(pixels(0, side, side)) for name in names})


def _table(text: str, **more: int) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        write_table(folder / "in", ROWS)
        write_table(folder / "more", text, **more)

    return write


X, Y = np.zeros((2, 32, 32, 3), np.uint8), np.array([0, 9])
BAD = {
    "other keys": ("cifar10", _npz(x_train=X, y_train=Y, x_test=X, y_test=Y), ("x_train", "x_test, y_test")),
    "no labels": ("cifar10", _npz(x_test=X), ("x_test, y_test",)),
    "another shape": ("cifar10", _npz(x_test=X[:, :16], y_test=Y), ("x_test", "(2, 16, 32, 3)")),
    "another type": ("cifar10", _npz(x_test=X / 255, y_test=Y), ("x_test", "float64")),
    "too few labels": ("cifar10", _npz(x_test=X, y_test=Y[:1]), ("y_test", "(1,)")),
    "labels that are no integers": ("cifar10", _npz(x_test=X, y_test=Y / 2), ("y_test", "float64")),
    "an eleventh class": ("cifar10", _npz(x_test=X, y_test=Y + 1), ("y_test", "10")),
    "pickled objects": ("cifar10", _npz(x_test=X, y_test=np.array([{}, {}])), ("pickled object",)),
    "no npz": ("cifar10", lambda folder: write_tree(folder / "more", {"a.npz": b"PK"}), ("a.npz",)),
    "another class of cifar10": ("cifar10", _files("cat/0.png", "cow/0.png", side=32), ("cow",)),
    "another class": ("folder", _files("cat/0.png", "test/emu/0.png", "test/dog/0.png"), ("emu", "cat, dog")),
    "images of another shape": ("folder", _files("cat/0.png", side=5), ("5x5", "4x4", "data.size")),
    "images of two shapes": ("folder", lambda f: (_files("cat/0.png")(f), _files("cat/1.png", side=6)(f)), ("6x6",)),
    "images in no class": ("folder", _files("0.png"), ("0.png", "<class>/<file>")),
    "training images alone": ("folder", _files("train/cat/0.png"), ("train/cat/0.png", "test/<class>/<file>")),
    "images too deep": ("folder", _files("cat/0.png", "dog/old/0.png"), ("dog/old/0.png",)),
    "no images": ("folder", lambda folder: write_tree(folder / "more", {"a.txt": b"a"}), ("a.txt",)),
    "a broken image": ("folder", lambda folder: write_tree(folder / "more", {"cat/0.png": b"a"}), ("cat/0.png",)),
    "a table without a column": ("table", _table("image,kind\na.png,cat\n"), ("table.csv", "'price'")),
    "a table of other types": ("table", _table("image,kind,price\na.png,cat,much\n"), ("'price'", "row 1", "'much'")),
    "a table without test rows": ("table", _table("image,kind,price,split\na.png,cat,1,train\n"), ("split test",)),
    "a table of other images": ("table", _table("image,kind,price\nz.png,cat,1\n"), ("z.png",)),
    "a table of larger images": ("table", _table(ROWS, height=6), ("4x6", "4x4")),
    "content beside generated images": ("generated", _files("cat/0.png"), ("more", "generated")),
    "content beside shards": ("tfrecord", _files("cat/0.png"), ("more", "tfrecord")),
}


@pytest.mark.parametrize("fault", BAD)
def test_what_is_wrong_is_said_in_one_line(here: Path, fault: str) -> None:
    source, write, said = BAD[fault]
    write(here)
    with pytest.raises(UserError) as caught:
        read(data(source, **({"test": 0.34} if source == "table" else {})))
    assert "\n" not in str(caught.value)
    assert all(word in str(caught.value) for word in ("more", *said))


@pytest.mark.parametrize(
    ("path", "other"),
    [("data/external", "data/external"), ("data/external", "data/external/night"), ("a/b", "a"), ("a", "data/raw")],
)
def test_it_is_apart_from_the_images_and_the_outputs(path: str, other: str) -> None:
    with pytest.raises(ValueError, match=r"shifted|outputs"):
        data("folder", path=path, shifted=other)


def test_dag_paths_are_local() -> None:
    with pytest.raises(UserError, match="URI"):
        params.refuse_uri(data("folder", shifted="s3://bucket/night"))


def test_a_wrong_shifted_set_leaves_the_earlier_outputs(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = {"seed": 0, "data": {"source": "folder", "path": "in", "shifted": "more", "validation": 0}}
    tree |= {"hardware": {"threads": 1, "strategy": "auto"}, "tasks": {"kind": {"recipe": "r"}}}
    recipe = {"network": "compact", "batch_size": 8, "epochs": 1, "optimizer": {"name": "adam", "learning_rate": 0.1}}
    (here / "params.yaml").write_text(json.dumps(tree | {"recipes": {"r": recipe}}))
    write_tree(here / "more", PICTURES)
    load_data.load(params.read())
    before = digests(here / "data")
    assert {"data/raw/shifted/shifted.json", "data/raw/shifted/x_shifted.npy"} <= {f"data/{name}" for name in before}
    write_tree(here / "more", {"emu/0.png": PICTURES["dog/0.png"]})
    with pytest.raises(UserError, match="emu"):
        load_data.load(params.read())
    assert digests(here / "data") == before
    (here / "more").rename(here / "away")
    (here / "more").mkdir()
    load_data.load(params.read())
    assert sorted(path.name for path in (here / "data/raw/shifted").iterdir()) == ["shifted.json"]


# --- what it changes, and what it does not


def digests(*places: Path) -> dict[str, str]:
    """The digest of each file below some folders, by its path in them."""
    return {
        str(path.relative_to(place)): hashlib.md5(path.read_bytes()).hexdigest()
        for place in places
        for path in sorted(place.rglob("*"))
        if path.is_file()
    }


def verdict(project: Project) -> dict:
    return json.loads((project.root / "metrics/main_evaluate.json").read_text())


OUTS = ("data/raw/images", "data/raw/columns", "data/labels", "models", "metrics/plots")
CLASSES = CIFAR10[:4]  # the others are not there


def write_shifted(project: Project) -> None:
    rng = np.random.default_rng(1)
    images = [encoded(rng.integers(0, 256, (12, 12, 3), np.uint8)) for _ in range(12)]
    files = {f"{CLASSES[index % 4]}/{index}.png": content for index, content in enumerate(images)}
    write_tree(project.root / "data/shifted", files)


def test_the_dag_judges_it_apart_and_trains_nothing_again(done: Project, tmp_path: Path) -> None:
    assert json.loads((done.root / "data/raw/shifted/shifted.json").read_text()) == {}
    assert json.loads((done.root / "data/labels_shifted/tasks.json").read_text()) == []
    project, before = done.copy(tmp_path / "p"), verdict(done)
    write_shifted(project)
    assert project.run("git", "status", "--porcelain").stdout == ""
    assert changed(project) == {"load_data"}
    assert ran(project.run("dvc", "repro").stdout) == {"load_data", "derive_labels", "main_evaluate"}
    assert digests(*(done.root / out for out in OUTS)) == digests(*(project.root / out for out in OUTS))
    after = verdict(project)
    of_shifted = after.pop("shifted")
    assert after == before  # which has no such key
    assert of_shifted["examples"] == of_shifted["tasks"]["model1"]["examples"] == 12
    assert set(of_shifted["tasks"]) == {"model1", "model2"}
    assert {"sum_loss", "ave_acc", "ave_skill", "derived", "contradiction_rate"} <= set(of_shifted)
    y = np.load(project.root / "data/labels_shifted/model2/y.npy", allow_pickle=False)
    assert y.tolist() == [1] * 6 + [0] * 6  # airplanes and automobiles, then birds and cats
    assert "shifted" in project.run("mtl", "report").stdout


@pytest.mark.slow
def test_it_is_the_same_to_the_byte_and_leaves_nothing(done: Project, tmp_path: Path) -> None:
    project, stages = done.copy(tmp_path / "p"), ("load_data", "derive_labels", "main_evaluate")
    write_shifted(project)
    project.run("dvc", "repro", "-q")
    lock = project.lock()
    project.run("dvc", "repro", "--force", "-q", "-s", *stages)
    assert project.lock() == lock != done.lock()
    for name in CLASSES:
        shutil.rmtree(project.root / "data/shifted" / name)
    project.run("dvc", "repro", "-q")
    assert project.lock() == done.lock()
    assert verdict(project) == verdict(done)


@pytest.mark.slow
def test_of_a_table_the_tasks_whose_labels_are_known_are_judged(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)

    def write(folder: Path, rows: list[str]) -> None:
        folder.mkdir()
        for index in range(len(rows)):
            (folder / f"{index}.png").write_bytes(encoded(rng.integers(0, 256, (12, 12, 3), np.uint8)))
        lines = [f"{index}.png,{row}" for index, row in enumerate(rows)]
        (folder / "t.csv").write_text("\n".join(["image,kind,price,split", *lines]) + "\n")

    splits = ("train", "train", "validation", "test")
    write(tmp_path / "in", [f"{'ab'[index // 4 % 2]},{index},{splits[index % 4]}" for index in range(40)])
    recipe = {"network": "compact", "options": {"widths": [8]}, "batch_size": 8, "epochs": 1}
    settings = {
        "seed": 0,
        "data": {"source": "table", "path": "in", "shifted": "more", "validation": 0},
        "tasks": {
            "kind": {"column": "kind", "recipe": "r"},
            "price": {"kind": "value", "column": "price", "recipe": "r"},
        },
        "hardware": {"threads": 1, "strategy": "auto"},
        "recipes": {"r": recipe | {"optimizer": {"name": "adam", "learning_rate": 0.01}}},
    }
    (tmp_path / "params.yaml").write_text(json.dumps(settings))
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "MLFLOW_TRACKING_URI": f"sqlite:///{tmp_path}/m.db"}

    def stage(*command: str) -> subprocess.CompletedProcess[str]:
        script, *task = command
        words = [sys.executable, str(ROOT / f"src/{script}.py"), *task]
        return subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    write(tmp_path / "more", ["c,1,test", "a,2,test"])  # no model could have learned c
    assert stage("load_data").returncode == 0
    failed = stage("derive_labels")
    (line,) = [line for line in failed.stderr.splitlines() if line.startswith("error")]
    assert failed.returncode != 0 and "'kind'" in line and "shifted" in line

    (tmp_path / "more/t.csv").write_text("image,kind,price,split\n0.png,,,test\n1.png,,,test\n")  # nothing is known
    assert stage("load_data").returncode == 0
    assert stage("derive_labels").returncode != 0

    (tmp_path / "more/t.csv").write_text("image,kind,price,split\n0.png,b,,test\n1.png,,,test\n")
    for command in (["load_data"], ["derive_labels"], ["train", "kind"], ["train", "price"], ["main_evaluate"]):
        done = stage(*command)
        assert done.returncode == 0, done.stderr
    judged = json.loads((tmp_path / "metrics/main_evaluate.json").read_text())["shifted"]
    assert (judged["examples"], set(judged["tasks"]), judged["tasks"]["kind"]["examples"]) == (2, {"kind"}, 1)


def test_the_report_has_both_scores_side_by_side_within_80_columns(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    task = {"loss": 0.5, "acc": 0.9180, "nll": 0.5, "acc_low": 0.9, "acc_high": 0.93}
    more = {"loss": 0.7, "acc": 0.8472, "nll": 0.7, "acc_low": 0.84, "acc_high": 0.8541}
    content = {"sum_loss": 0.5, "tasks": {"model1": task}, "shifted": {"examples": 10_000, "tasks": {"model1": more}}}
    (tmp_path / "metrics").mkdir()
    (tmp_path / "metrics/main_evaluate.json").write_text(json.dumps(content))
    lines = sections(markdown=False)[0]["verdict"].splitlines()
    (row,) = [line for line in lines if "0.9180" in line and "0.8472" in line]
    assert "-0.0708" in row and len(row) <= 80
    assert any("10,000" in line for line in lines)
