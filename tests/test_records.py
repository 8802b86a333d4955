"""`mtl convert` and training from what it writes: the same images as from arrays, and bad input in one line."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from conftest import CIFAR10, write_images
from images import encoded, pixels, tree, write_tar, write_tree
from PIL import ExifTags, Image

from mtl import sources
from mtl.commands.convert import command
from mtl.config.params import Classes, Data, Hardware
from mtl.config.recipes import Augmentation, Recipe, Sgd
from mtl.data import paths, remote, shards, store
from mtl.errors import UserError
from mtl.files import md5
from mtl.records import encoding, rows
from mtl.sources import decoding, folder, tables, tfrecord
from mtl.tasks import grouping
from mtl.tasks.columns import Split

HERE = "--direct_running_mode=in_memory"  # Beam in this process
NONE = shards.Discarded(count=0, files=(), reasons={})


def convert(*arguments: str | Path) -> str:
    """What `mtl convert` prints; a UserError is raised as it is."""
    given = [str(argument) for argument in arguments]
    return CliRunner().invoke(command, [*given, HERE], catch_exceptions=False).output


def write_csv(path: Path, rows: list[tuple[str, str, str]], header: str = "split,image_uri,label") -> Path:
    text = io.StringIO()
    csv.writer(text).writerows([header.split(","), *rows])
    path.write_text(text.getvalue())
    return path


@pytest.fixture(scope="module")
def converted(tmp_path_factory, tensorflow) -> Path:
    """The small images of the other tests, 12x12, in `images`, and their shards in `shards`: 100 + 20 + 40."""
    root = tmp_path_factory.mktemp("converted")
    write_images(root / "images")
    convert(root / "images", root / "shards", "--validation", "20", "--records-per-shard", "16")
    return root


def data(path: Path | str, **changes) -> Data:
    return Data(**({"source": "tfrecord", "path": str(path), "validation": 0} | changes))


def images(path: Path, split: str, cache: int = 0) -> shards.ShardedImages:
    """The images of one split of the shards in `path`."""
    found = tfrecord.load(data(path))
    parts = found.manifest.splits[split].shards
    counts = tuple(part.records for part in parts)
    files, digests = (tuple(f(part) for part in parts) for f in (lambda p: str(path / p.file), lambda p: p.sha256))
    return shards.ShardedImages(files, counts, np.arange(sum(counts)), found.shape[:2], None, digests, cache)


def names(found: shards.ShardedImages) -> list[str]:
    import tensorflow as tf

    records = tf.data.TFRecordDataset(list(found.files), "GZIP").as_numpy_iterator()
    features = [tf.train.Example.FromString(record).features.feature for record in records]
    return [feature["image_name"].bytes_list.value[0].decode() for feature in features]


def test_records_hold_the_keys_and_the_pixels_that_the_files_have(converted):
    import tensorflow as tf

    path = converted / "shards"
    files = sorted(file.name for file in path.iterdir())
    assert files[0] == "manifest.json"
    assert "train-00000-of-00007.tfrecord.gz" in files
    assert len(files) == 1 + 7 + 2 + 3
    train = images(path, "train")
    for name, image in zip(names(train), train, strict=True):
        assert (np.asarray(Image.open(converted / "images" / name)) == image).all()
    (record,) = tf.data.TFRecordDataset(str(path / "test-00002-of-00003.tfrecord.gz"), "GZIP").take(1)
    feature = tf.train.Example.FromString(record.numpy()).features.feature
    got = {key: (list(value.int64_list.value) or list(value.bytes_list.value))[0] for key, value in feature.items()}
    split, label, _ = got["image_name"].decode().split("/")
    assert split == "test"
    assert got["image"] == (converted / "images" / got.pop("image_name").decode()).read_bytes()
    del got["image"]
    assert got == {
        "image_height": 12,
        "image_width": 12,
        "image_channels": 3,
        "image_encoding": b"png",
        "class": label.encode(),
        "split": b"TEST",
    }


def test_converted_again_the_bytes_are_the_same_and_shards_are_not_replaced_unasked(converted, tmp_path):
    convert(converted / "images", tmp_path / "again", "--validation", "20", "--records-per-shard", "16")
    for file in (converted / "shards").iterdir():
        assert (tmp_path / "again" / file.name).read_bytes() == file.read_bytes()
    with pytest.raises(UserError, match="shards are there already; give another OUTPUT, or --force"):
        convert(converted / "images", tmp_path / "again")
    assert "discarded: 0" in convert(converted / "images", tmp_path / "again", "--force")


def test_images_in_shards_read_like_an_array(converted):
    found = images(converted / "shards", "train")
    array = np.asarray(found)
    assert (array.shape, array.dtype) == ((100, 12, 12, 3), np.uint8) == (found.shape, np.uint8)
    mixed = np.array([99, 3, 3, 50])
    for key in (slice(10, 40), slice(None, None, 7), mixed, array[:, 0, 0, 0] > 100, slice(0, 0)):
        assert (np.asarray(found[key]) == array[key]).all()
        assert [len(batch) for batch in found[key].batches(8)] == [
            len(b) for b in np.split(array[key], range(8, len(array[key]), 8)) if len(b)
        ]
    assert (found[-1] == array[-1]).all()
    assert (np.stack(list(found[5:9])) == array[5:9]).all()
    with pytest.raises(IndexError):
        found[100]


RECIPE = Recipe(
    network="compact",
    options={"widths": [8, 8]},
    optimizer=Sgd(name="sgd", learning_rate=0.05, momentum=0.9),
    augmentation=Augmentation(flip=True, translate=2),
    batch_size=16,
    epochs=1,
)


def train(fed, shown, folder: Path, recipe: Recipe = RECIPE, classes: int = 10, validation=None):
    from mtl.data import backend
    from mtl.data.feeds import Plan
    from mtl.networks import catalog
    from mtl.training import fitting

    backend.configure(Hardware(threads=1, strategy="auto"), "float32", seed=0)
    model = catalog.build(recipe, fed.shape, classes, shown)
    history, _ = fitting.fit(model, Plan(recipe, 0), fed, validation or fed, folder, verbose=0)
    return history, model.get_weights()


def test_an_epoch_from_records_is_an_epoch_from_arrays(converted, tmp_path):
    """Read into memory it is the same to the byte; streamed it is the same images in another order."""
    from mtl.data.feeds import Arrays
    from mtl.data.streams import Streamed, feed

    cached = images(converted / "shards", "train", cache=1)
    array = np.stack([np.asarray(Image.open(converted / "images" / name)) for name in names(cached)])
    labels = np.array([sorted(CIFAR10).index(name.split("/")[1]) for name in names(cached)], np.uint8)
    expected, weights = train(Arrays(array, labels), array, tmp_path / "arrays")
    history, same = train(feed(cached, labels), cached, tmp_path / "cached")
    assert history == expected
    for a, b in zip(weights, same, strict=True):
        assert a.tobytes() == b.tobytes()
    streamed = feed(replace(cached, cache=0), labels)
    assert isinstance(streamed, Streamed)
    history, _ = train(streamed, cached, tmp_path / "streamed")
    assert history[0]["loss"] == pytest.approx(expected[0]["loss"], rel=0.1)
    assert history[0]["val_loss"] == pytest.approx(expected[0]["val_loss"], rel=0.2)


@pytest.mark.parametrize("changes", [{}, {"steps_per_epoch": 4}])
def test_streamed_batches_are_a_function_of_seed_epoch_and_step(converted, changes):
    from mtl.data.feeds import Plan
    from mtl.data.streams import Streamed

    found = images(converted / "shards", "train")
    labels = np.arange(100, dtype=np.uint8)
    used = RECIPE.model_copy(update={"epochs": 4} | changes)
    feed = Streamed(found, labels)
    whole = list(feed.batches(Plan(used, seed=3)))
    steps = feed.steps(used)
    assert len(whole) == 4 * steps
    seen = np.concatenate([labels for _, labels in whole])
    assert sorted(seen[:100]) == sorted(seen[100:200]) == list(range(100))
    assert (seen[:100] != seen[100:200]).any()
    rest = list(feed.batches(Plan(used, seed=3, first_epoch=2)))
    parts = [list(feed.batches(Plan(used, seed=3, worker=worker, workers=2))) for worker in (0, 1)]
    for (a, b), (c, d) in zip(whole[2 * steps :], rest, strict=True):
        assert (a == c).all()
        assert (b == d).all()
    for (batch, said), even, odd in zip(whole, *parts, strict=True):
        for number, (share, told) in enumerate((even, odd)):
            assert (batch[number::2] == share).all()
            assert (said[number::2] == told).all()
    # In two passes over it an image is shown once as it is and once mirrored.
    plain = used.model_copy(update={"augmentation": Augmentation(flip=True), "steps_per_epoch": None})
    array = np.asarray(found)
    turned = np.zeros((2, 100), bool)
    shown = list(feed.batches(Plan(plain, seed=3)))[:14]
    for number, (batch, told) in enumerate(shown):
        for image, label in zip(batch, told, strict=True):
            turned[number // 7, label] = (image != array[label]).any()
            assert (image == (array[label, :, ::-1] if turned[number // 7, label] else array[label])).all()
    assert (turned[0] != turned[1]).all()


def test_what_is_no_image_is_discarded_with_the_reason_and_a_count(tmp_path, tensorflow):
    lying = Image.fromarray(pixels(1, 4, 6))
    exif = lying.getexif()
    exif[0x0112] = 6
    content = {
        "a.jpg": encoded(pixels(0), "jpeg"),
        "lies.jpg": encoded(lying, "jpeg", exif=exif),
        "grey.png": encoded(Image.fromarray(pixels(2)).convert("L")),
        "palette.png": encoded(Image.fromarray(pixels(3)).convert("P")),
        "cut.jpg": encoded(pixels(4), "jpeg")[:-40],
        "text.png": b"hello",
    }
    for name, data_ in content.items():
        (tmp_path / name).write_bytes(data_)
    rows = [("TRAIN", name, "b" if name == "a.jpg" else "a, or not") for name in [*content, "gone.png"]]
    output = convert(write_csv(tmp_path / "all.csv", rows), tmp_path / "out")
    manifest = shards.read_manifest(str(tmp_path / "out"))
    assert (manifest.splits["train"].count, manifest.splits["train"].known) == (4, {"label": 4})
    assert (manifest.encoding, manifest.height, manifest.width) == ("mixed", (4, 6), (4, 4))
    assert manifest.discarded.count == 3
    assert manifest.discarded.reasons == {"cannot be read": 1, "not a whole image": 2}
    assert "discarded: 3; 1 cannot be read; 2 not a whole image" in output
    listed = list(csv.DictReader((tmp_path / "out" / manifest.discarded.files[0]).open()))
    assert sorted(Path(row["image_uri"]).name for row in listed) == ["cut.jpg", "gone.png", "text.png"]
    # The rest is decoded as the source `folder` does it: upright, RGB, 8 bits.
    counts = (manifest.splits["train"].count,)
    file = str(tmp_path / "out" / manifest.splits["train"].shards[0].file)
    named = names(shards.ShardedImages((file,), counts, np.arange(4), (4, 4), None, ("",), 0))
    for place, name in enumerate(named):
        expected = folder.decode(content[name], name)[0]
        one = shards.ShardedImages((file,), counts, np.array([place]), expected.shape[:2], None, ("",), 0)
        assert (one[0] == expected).all()


@pytest.mark.parametrize(
    ("rows", "header", "message"),
    [
        ([("TRAIN", "a.png", "cat")], "split,what,label", "what"),
        ([("TRIAN", "a.png", "cat")], "split,image_uri,label", "'TRIAN'"),
        ([("TRAIN", "", "cat")], "split,image_uri,label", "image_uri"),
        ([("a.png", "cat")], "image_uri,label", "split"),
        ([("TRAIN", "a.png", "3")], "split,image_uri,image_width", "image_width"),
        ([("TRAIN", "a.png")], "split,image_uri", "add one"),
        ([("TRAIN", "ftp://me:pass@host/a", "cat")], "split,image_uri,label", "row 1: 'ftp://***@host/a' has a passw"),
        ([], "split,image_uri,label", "no rows"),
        ([("TRAIN", "a.png", "cat, black", "?")], "split,image_uri,label", "4"),
        ([("TRAIN", name, name) for name in "ab"], "split,image_uri,label", "none of the images could be read; see"),
    ],
)
def test_a_csv_that_does_not_do_is_one_line(tmp_path, rows, header, message):
    with pytest.raises(UserError) as caught:
        convert(write_csv(tmp_path / "x.csv", rows, header), tmp_path / "out")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out" / "manifest.json").exists()


def five_columns(root: Path) -> Path:
    """A table with gaps in each of five columns, and its images: 24 of train, 6 of validation, 12 of test."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("TRAIN", 24), ("VAL", 6), ("test", 12)):
        for number in range(count):
            name = f"{split}-{number}.png"
            (root / name).write_bytes(encoded(rng.integers(0, 256, (8, 8, 3), np.uint8)))
            kind = (number + number // 4) % 3
            gaps = [(number + place) % 5 == 3 for place in range(5)]
            values = ("=1+1", "Käse 🧀", "tea, green")[kind], -kind, (0.1, 1e-300, 1 / 3)[kind], kind == 1, f"s{kind}"
            rows.append((name, split, *("" if gap else str(value) for gap, value in zip(gaps, values, strict=True))))
    return write_csv(root / "x.csv", rows, "Image_URI,ML_Use,Größe der Portion,count,weight,sweet,sender")


def test_records_carry_all_columns_of_a_table_with_their_types_and_gaps(tmp_path, tensorflow):
    source = five_columns(tmp_path)
    output = convert(source, tmp_path / "out", "--records-per-shard", "10")
    expected = tables.read(source.read_bytes(), str(source))
    records = tfrecord.load(data(tmp_path / "out"))
    types = {"Größe der Portion": "text", "count": "integer", "weight": "number", "sweet": "boolean", "sender": "text"}
    assert list(records.manifest.types.items()) == list(types.items())
    assert all(name in output for name in types)
    for split, part in records.columns.items():
        assert part.schema.equals(expected.columns.schema)
        wanted = images(tmp_path / "out", split)
        places = [expected.files.index(name) for name in names(wanted)]
        assert part.to_pylist() == expected.columns.take(places).to_pylist()
        assert all(column.null_count for column in part.columns)
    # What a reader of tf.train.Example gets: a number as text, which has all its bits; a gap as no value.
    import tensorflow as tf

    first = next(iter(tf.data.TFRecordDataset(list(images(tmp_path / "out", "train").files), "GZIP"))).numpy()
    feature = tf.train.Example.FromString(first).features.feature
    row = {name: [] if value is None else [value] for name, value in records.columns["train"].to_pylist()[0].items()}
    assert list(feature["count"].int64_list.value) == row["count"]
    assert [float(value) for value in feature["weight"].bytes_list.value] == row["weight"]


def derived(folder: Path, splits: Mapping[Split, pa.Table], monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The md5 of all files of data/labels, of a task for each column."""
    folder.mkdir()
    monkeypatch.chdir(folder)
    for number, column in enumerate(splits["train"].column_names):
        task = Classes(column=column, recipe="compact")
        parts = {split: table[column] for split, table in splits.items()}
        store.write_targets(*grouping.derive(f"task{number}", task, column, parts))
    return {str(path): md5(path) for path in sorted(paths.LABELS.rglob("*.*"))}


def as_parquet(source: Path) -> Path:
    """The same table with types of Parquet: text from a dictionary, int8, float32, uint64 beyond int64."""
    table = tables.read(source.read_bytes(), str(source))
    columns = dict(zip(table.columns.column_names, table.columns.columns, strict=True))
    for name, kind in (("Größe der Portion", pa.dictionary(pa.int8(), pa.string())), ("weight", pa.float32())):
        columns[name] = columns[name].cast(kind)
    columns["count"] = columns["count"].cast(pa.int8())
    sender = [value and 2**64 - 1 - int(value[1:]) for value in columns["sender"].to_pylist()]
    columns["sender"] = pa.array(sender, pa.uint64())
    source.unlink()
    pq.write_table(pa.table({"image": table.files, "split": table.splits} | columns), source.with_suffix(".parquet"))
    return source.with_suffix(".parquet")


@pytest.mark.parametrize("saved", [Path.absolute, as_parquet])
def test_labels_from_records_are_those_from_the_table(tmp_path, tensorflow, monkeypatch, saved):
    source = saved(five_columns(tmp_path))
    expected = derived(tmp_path / "labels", sources.load(data(source, source="table"), 0).columns, monkeypatch)
    convert(source, tmp_path / "out", "--records-per-shard", "10", "--keep-order")
    assert derived(tmp_path / "again", tfrecord.load(data(tmp_path / "out")).columns, monkeypatch) == expected
    assert len(expected) == 5 * 7
    for task, count in enumerate((3, 3, 3, 2, 3)):
        assert len(store.read_task(f"task{task}").names) == count


@pytest.mark.slow
def test_stages_derive_from_records_the_labels_that_they_derive_from_the_table(fresh, tmp_path):
    project = fresh.copy(tmp_path / "p")
    project.environment = fresh.environment | {"PYTHONPATH": str(project.root / "src")}
    (project.root / "data/tea").mkdir()
    table = as_parquet(five_columns(project.root / "data/tea"))
    project.run("mtl", "convert", str(table), "data/records", "--keep-order", "--records-per-shard", "10")
    columns = pq.read_schema(table).names[2:]

    def labels(source: str, path: str) -> dict[str, str]:
        """The md5 of all files of data/labels, derived from this source."""

        def change(tree: dict) -> None:
            tree["data"] |= {"source": source, "path": path, "validation": 0}
            tree["tasks"] = {f"task{i}": {"column": column, "recipe": "compact"} for i, column in enumerate(columns)}
            tree["promote"]["accuracy"] = {"task0": 0.5}

        project.edit(change)
        project.run("dvc", "repro", "-q", "derive_labels")
        assert json.loads((project.root / paths.DATASET).read_text())["source"] == source
        folder = project.root / paths.LABELS
        return {str(path.relative_to(folder)): md5(path) for path in sorted(folder.rglob("*.*"))}

    expected = labels("table", "data/tea")
    assert len([name for name in expected if "task" in name]) >= 5 * 7
    assert labels("tfrecord", "data/records") == expected


def test_records_of_version_1_have_the_one_column_class(converted, tmp_path):
    """Their label is an int64, the number of a class in the manifest."""
    import tensorflow as tf

    path = shutil.copytree(converted / "shards", tmp_path / "shards")
    expected = tfrecord.load(data(path)).columns

    def old(manifest: dict) -> None:
        manifest |= {"version": 1, "classes": sorted(CIFAR10)}
        del manifest["columns"]
        for split in manifest["splits"].values():
            del split["known"]
            split["classes"] = dict.fromkeys(CIFAR10, split["shards"][0]["records"])
            for shard in split["shards"]:
                file = path / shard["file"]
                examples = [tf.train.Example.FromString(x.numpy()) for x in tf.data.TFRecordDataset(str(file), "GZIP")]
                for example in examples:
                    feature = example.features.feature
                    label = sorted(CIFAR10).index(feature.pop("class").bytes_list.value[0].decode())
                    feature["label"].int64_list.value.append(label)
                content = gzip.compress(b"".join(encoding.frame(example.SerializeToString()) for example in examples))
                file.write_bytes(content)
                shard |= {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}

    edit_manifest(path, old)
    assert tfrecord.load(data(path)).columns == expected
    assert "airplane" in CliRunner().invoke(command, ["--inspect", str(path)]).output


def test_rows_that_are_there_twice_are_counted_and_named(tmp_path, capsys):
    lines = ["split,image_uri,label", "TRAIN,a.png,cat", "TRAIN,b.png,dog", "train,a.png,cat", "TEST,a.png,cat"]
    (tmp_path / "x.csv").write_text("\n".join([*lines, "TRAIN,b.png,dog"]))
    read = rows.read(str(tmp_path / "x.csv"))
    assert [(row.split, row.name) for row in read.rows] == [("train", "a.png"), ("train", "b.png"), ("test", "a.png")]
    (twice,) = capsys.readouterr().err.splitlines()
    assert "2 rows" in twice
    (tmp_path / "x.csv").write_text("\n".join([*lines, "TRAIN,a.png,dog"]))
    with pytest.raises(UserError, match=r"a\.png is in row 1 and, with other values, in row 5"):
        rows.read(str(tmp_path / "x.csv"))


@pytest.mark.parametrize("lead", ["", "my images/"])
def test_files_of_a_folder_that_are_not_converted_are_named(tmp_path, capsys, lead):
    others = ("train/cat/a.heic", "train/cat/b.heic", "test/dog/c.txt", "train/.cow/0.png", "train/cat/.x.png")
    quiet = ("README.md", "train/.DS_Store", "train/cat/._0.png", "Thumbs.db", "__MACOSX/train/cat/0.png", ".git/x.png")
    files = tree() | dict.fromkeys(others + quiet, b"?")
    write_tree(tmp_path, {lead + name: content for name, content in files.items()})
    assert len(rows.read(str(tmp_path)).rows) == len(tree())
    left, hidden = capsys.readouterr().err.splitlines()
    assert "3 files" in left and "2 .heic, 1 .txt" in left and f"{lead}train/cat/a.heic" in left
    assert "2 hidden" in hidden and f"{lead}train/.cow/, {lead}train/cat/.x.png" in hidden


@pytest.mark.parametrize(
    ("files", "named"),
    [({"train/cat/0.heic": b"?"}, ("no images", "1 .heic")), ({"images.zip": b"?"}, ("no images", "unpack it"))],
)
def test_what_a_folder_holds_instead_of_images_is_named(tmp_path, files, named):
    with pytest.raises(UserError) as caught:
        rows.read(str(write_tree(tmp_path, files)))
    assert all(part in str(caught.value) for part in named)


def test_a_label_written_in_two_ways_is_one_and_two_folders_of_it_are_refused(tmp_path):
    composed, decomposed = "caf\u00e9", "cafe\u0301"
    source = write_csv(tmp_path / "x.csv", [("TRAIN", f"{x}.png", x) for x in (composed, decomposed, "tea")])
    assert {row.values[0] for row in rows.read(str(source)).rows} == {composed, "tea"}
    write_tree(tmp_path / "in", {f"{s}/{x}/0.png": b"?" for s, x in (("train", composed), ("test", decomposed))})
    write_tree(tmp_path / "in", tree())
    assert {row.values[0] for row in rows.read(str(tmp_path / "in")).rows} == {composed, "cat", "dog"}
    write_tree(tmp_path / "in", {f"train/{decomposed}/1.png": b"?"})
    with pytest.raises(UserError, match=r"caf\\xe9.+") as caught:
        rows.read(str(tmp_path / "in"))
    assert "cafe\\u0301" in str(caught.value)


def test_too_many_to_hold_out_are_said_of_the_option(tmp_path):
    write_tree(tmp_path / "in", tree())
    with pytest.raises(UserError, match=r"--validation: 4 of 4") as caught:
        convert(tmp_path / "in", tmp_path / "out", "--validation", "4")
    assert "params.yaml" not in str(caught.value)


def test_flags_and_folders_that_do_not_do_are_one_line(tmp_path):
    (tmp_path / "in" / "cat").mkdir(parents=True)
    (tmp_path / "in" / "cat" / "a.png").write_bytes(encoded(pixels(0)))
    with pytest.raises(UserError, match="no such file or folder"):
        convert(tmp_path / "gone", tmp_path / "out")
    with pytest.raises(UserError, match=r"cat/a.png is not at <split>/<class>/<file>"):
        convert(tmp_path / "in", tmp_path / "out")
    for given in (("ftp://me:pass@host/x.csv", "out"), (tmp_path / "in", "ftp://me:pass@host/out")):
        with pytest.raises(UserError, match=r"^'ftp://\*\*\*@host/.+' has a password or token in it"):
            convert(*given)
    with pytest.raises(UserError, match="nosuch"):
        convert("nosuch://bucket/x.csv", tmp_path / "out")
    with pytest.raises(UserError, match=r"x.tar: neither a .csv"):
        convert(write_tar(tmp_path / "x.tar", tree()), tmp_path / "out")
    rows = write_csv(tmp_path / "x.csv", [("TRAIN", "in/cat/a.png", "cat")])
    with pytest.raises(UserError, match="--shrads: neither a flag of `mtl convert` nor of Beam"):
        convert(rows, tmp_path / "out", "--shrads", "3")
    with pytest.raises(UserError, match=r"--direct_num_workers=x .+invalid int value"):
        convert(rows, tmp_path / "out", "--direct_num_workers=x")
    assert CliRunner().invoke(command, ["--runner", "DirectRunner", "a", "b"]).exit_code == 2


def run_mtl(folder: Path, *arguments: str, largest: int | None = None) -> subprocess.CompletedProcess[str]:
    """What the command does in a process of its own, which may write files of up to `largest` bytes."""
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))) if largest else None
    command = [str(Path(sys.executable).parent / "mtl"), *arguments]
    environment = os.environ | {"TMPDIR": str(folder)}
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=120, preexec_fn=limit, env=environment
    )


def test_beam_and_its_workers_say_nothing_around_what_we_say(tmp_path):
    write_images(tmp_path / "in", CIFAR10[:2], train=20)
    done = run_mtl(tmp_path, "convert", "in", "out")
    assert (done.returncode, done.stderr) == (0, "")
    # The shard of 40 images is larger than what is allowed, its plan and that of the others are not.
    failed = run_mtl(tmp_path, "convert", "in", "failed", HERE, largest=14_000)
    assert failed.returncode == 1
    (line,) = failed.stderr.splitlines()
    assert line.startswith("error: ") and "File too large" in line
    (log,) = tmp_path.glob("mtl-convert-*.log")
    assert str(log) in line and "Traceback" in log.read_text()
    assert sorted(path.name for path in (tmp_path / "failed").iterdir()) == ["train-00000-of-00001.tfrecord.gz"]


def test_without_beam_one_line_says_how_to_install_it(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "apache_beam", None)
    (tmp_path / "a.png").write_bytes(encoded(pixels(0)))
    with pytest.raises(UserError, match=r"needs Apache Beam .+requirements-beam.txt"):
        convert(write_csv(tmp_path / "x.csv", [("TRAIN", "a.png", "cat")]), tmp_path / "out")


def test_uris_that_fsspec_opens_are_read_and_written(converted, tmp_path, monkeypatch, tensorflow):
    import fsspec

    monkeypatch.chdir(tmp_path)
    memory = fsspec.filesystem("memory")
    for split in ("train", "test"):
        for name in CIFAR10[:2]:
            for file in sorted((converted / "images" / split / name).iterdir())[:3]:
                memory.pipe(f"/bucket/in/{split}/{name}/{file.name}", file.read_bytes())
    output = convert("memory://bucket/in", "memory://bucket/out")
    assert "train       1       6" in output
    found = tfrecord.load(data("memory://bucket/out"))
    assert (found.shape, found.columns["train"].num_rows, found.columns["test"].num_rows) == ((12, 12, 3), 6, 6)
    shard = found.manifest.splits["train"].shards[0]
    memory.pipe(f"/bucket/out/{shard.file}", b"\0" * shard.bytes)
    shutil.rmtree(shards.FETCHED)
    with pytest.raises(UserError, match=r"memory://bucket/out/train.+: its sha256 is .+, the manifest says"):
        tfrecord.load(data("memory://bucket/out"))
    assert not list(shards.FETCHED.iterdir())
    with pytest.raises(UserError, match=r"memory://nowhere/manifest.json is missing"):
        tfrecord.load(data("memory://nowhere"))


def left(root: str) -> set[str]:
    """The files in a folder or below a URI."""
    return set(remote.list_files(root))


@pytest.mark.parametrize("root", ["{here}/out", "memory://forced/out"])
def test_forced_only_what_is_of_an_earlier_conversion_is_replaced(tmp_path, root):
    output = root.format(here=tmp_path)
    kept = {"notes.txt", "train.tfrecord.gz", "dev-00000-of-00001.tfrecord.gz", "old/train-00000-of-00001.tfrecord.gz"}
    for name in kept | {"discarded-train-00003-of-00004.csv"}:
        with remote.write(remote.join(output, name)) as file:
            file.write(b"x")
    with pytest.raises(UserError, match=r"discarded-train-00003-of-00004.csv is there without manifest.json, of a con"):
        convert(write_tree(tmp_path / "in", tree()), output)
    assert len(left(output)) == 5
    convert(tmp_path / "in", output, "--force", "--records-per-shard", "1")
    many = {f"train-0000{i}-of-00004.tfrecord.gz" for i in range(4)}
    many |= {f"test-0000{i}-of-00002.tfrecord.gz" for i in range(2)}
    assert left(output) == kept | many | {"manifest.json"}
    # Without a plan nothing is lost, and no manifest is left where the conversion fails.
    with pytest.raises(UserError, match="no such file"):
        convert(tmp_path / "gone", output, "--force")
    with pytest.raises(UserError, match="neither a flag of `mtl convert` nor of Beam"):
        convert(tmp_path / "in", output, "--force", "--nosuch=1")
    assert "manifest.json" in left(output)
    (tmp_path / "text.png").write_bytes(b"hello")
    broken = write_csv(tmp_path / "broken.csv", [("TRAIN", "text.png", "cat")])
    with pytest.raises(UserError, match=r"out: none of the images could be read; see .+discarded-\*.csv"):
        convert(broken, output, "--force")
    assert left(output) - kept == {"train-00000-of-00001.tfrecord.gz", "discarded-train-00000-of-00001.csv"}
    convert(tmp_path / "in", output, "--force")
    one = {"train-00000-of-00001.tfrecord.gz", "test-00000-of-00001.tfrecord.gz", "manifest.json"}
    assert left(output) == kept | one


def behind_the_pixels(png: bytes) -> bytes:
    """A PNG with its chunk of Exif behind those of the pixels."""
    start = png.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(png[start : start + 4])
    return png[:start] + png[end:-12] + png[start:end] + png[-12:]


@pytest.mark.parametrize("kind", ["jpeg", "png", "late png"])
@pytest.mark.parametrize("orientation", [None, 0, 1, 6])
def test_an_image_stays_as_it_is_unless_its_orientation_says_that_it_lies(kind, orientation):
    """A camera writes Exif into every file."""
    exif = Image.Exif()
    exif[ExifTags.Base.Make] = "Camera"
    if orientation is not None:
        exif[ExifTags.Base.Orientation] = orientation
    content = encoded(pixels(1, 4, 6), kind.removeprefix("late "), exif=exif)
    content = behind_the_pixels(content) if kind == "late png" else content
    with decoding.no_bombs():
        got = encoding.prepare(content, "x")
    assert (got.content == content) == (orientation != 6)
    assert (got.height, got.width) == ((6, 4) if orientation == 6 else (4, 6))
    assert (decoding.decode(got.content, "x")[0] == decoding.decode(content, "x")[0]).all()


@pytest.mark.parametrize(
    ("orientation", "stays"), [("", True), ('tiff:Orientation="1"', True), ('tiff:Orientation="8"', False)]
)
def test_an_orientation_in_xmp_counts_and_other_xmp_does_not(orientation, stays):
    xmp = f'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:Description {orientation}/></x:xmpmeta>'.encode()
    content = encoded(pixels(1, 4, 6), "jpeg", xmp=xmp)
    with decoding.no_bombs():
        assert (encoding.prepare(content, "x").content == content) == stays


def edit_manifest(path: Path, change) -> None:
    content = json.loads((path / "manifest.json").read_text())
    change(content)
    (path / "manifest.json").write_text(json.dumps(content))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def other_labels(path: Path) -> None:
    """A shard of another conversion, with a manifest that has its size and checksum."""
    file = path / "test-00000-of-00003.tfrecord.gz"
    content = gzip.decompress((path / "test-00001-of-00003.tfrecord.gz").read_bytes())
    file.write_bytes(gzip.compress(content[: len(content) // 2]))
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    edit_manifest(
        path,
        lambda m: m["splits"]["test"]["shards"][0].update(bytes=file.stat().st_size, sha256=digest),
    )


def other_type(manifest: dict) -> None:
    manifest["columns"][0]["type"] = "number"


def other_count(manifest: dict) -> None:
    manifest["splits"]["test"]["known"]["class"] -= 1


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (lambda p: edit_manifest(p, other_type), {}, "its records are not of the manifest's types"),
        (lambda p: edit_manifest(p, other_count), {}, "the records of test are not those that the manifest counts"),
        (lambda p: (p / "manifest.json").unlink(), {}, "manifest.json is missing; make shards of your images with `mt"),
        (lambda p: (p / "manifest.json").write_text("{"), {}, "manifest.json: not valid JSON"),
        (
            lambda p: edit_manifest(p, lambda m: m.pop("columns")),
            {},
            "not a manifest of `mtl convert`: columns: is missing",
        ),
        (lambda p: edit_manifest(p, lambda m: m["splits"].update(dev=m["splits"]["test"])), {}, "splits.dev: unknown"),
        (lambda p: (p / "test-00001-of-00003.tfrecord.gz").unlink(), {}, "this shard of the manifest is missing"),
        (
            lambda p: (p / "test-00001-of-00003.tfrecord.gz").write_bytes(b"\x1f\x8b"),
            {},
            "test-00001-of-00003.tfrecord.gz: truncated: 2 bytes, the manifest says",
        ),
        (lambda p: flip(p / "train-00002-of-00007.tfrecord.gz"), {}, "its sha256 is"),
        (other_labels, {}, "test-00000-of-00003.tfrecord.gz: not a whole shard of `mtl convert`"),
        (lambda p: edit_manifest(p, lambda m: m["splits"].pop("test")), {}, "no images in test"),
        (
            lambda p: edit_manifest(p, lambda m: m.update(height=[9, 12])),
            {},
            "the images are from 12x9 to 12x12 pixels; set data.size in params.yaml",
        ),
    ],
)
def test_shards_that_are_not_as_the_manifest_says_are_one_line(converted, tmp_path, spoil, changes, message):
    path = shutil.copytree(converted / "shards", tmp_path / "shards")
    spoil(path)
    with pytest.raises(UserError) as caught:
        tfrecord.load(data(path, **changes))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-200])


@pytest.mark.parametrize("damage", [flip, cut, Path.unlink])
@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_shard_damaged_while_it_is_trained_from_is_named(converted, tmp_path, damage, split):
    from mtl.data.streams import Streamed

    path = shutil.copytree(converted / "shards", tmp_path / "shards")
    found = {name: images(path, name) for name in ("train", "validation")}
    shard = Path(found[split].files[-1])
    damage(shard)
    fed, judged = (Streamed(part, np.zeros(len(part), np.uint8)) for part in found.values())
    with pytest.raises(UserError) as caught:
        train(fed, images(converted / "shards", "train"), tmp_path / "state", validation=judged)
    assert str(shard) in str(caught.value)
    assert "\n" not in str(caught.value)
    for read in (np.asarray, lambda found: list(found.batches(8)), lambda found: found[-1]):
        with pytest.raises(UserError, match=shard.name):
            read(found[split])


def test_a_shard_of_fewer_records_than_the_manifest_counts_is_no_smaller_shard(converted, tmp_path):
    from mtl.data.feeds import Plan
    from mtl.data.streams import Streamed

    path = shutil.copytree(converted / "shards", tmp_path / "shards")
    whole = images(path, "train")
    found = replace(whole, counts=(*whole.counts[:-1], whole.counts[-1] + 1), index=np.arange(101))
    for read in (np.asarray, lambda found: list(Streamed(found, np.zeros(101, np.uint8)).batches(Plan(RECIPE, 0)))):
        with pytest.raises(UserError, match="fewer records"):
            read(found)


def test_inspect_prints_what_is_there_and_finds_what_is_not(converted, tmp_path):
    shown = CliRunner().invoke(command, ["--inspect", str(converted / "shards")])
    assert shown.exit_code == 0
    assert "images: png, from 12x12 to 12x12 pixels; checksums right" in shown.output
    assert "train            7     100" in shown.output
    path = shutil.copytree(converted / "shards", tmp_path / "shards")
    flip(path / "train-00002-of-00007.tfrecord.gz")
    with pytest.raises(UserError, match="its sha256 is"):
        CliRunner().invoke(command, ["--inspect", str(path)], catch_exceptions=False)


def cats_and_dogs(root: Path) -> Path:
    """A CSV of photographs of all sizes: orange noise for cats, blue for dogs."""
    rng = np.random.default_rng(0)
    rows = []
    for split, count in (("TRAIN", 24), ("VALIDATION", 8), ("TEST", 8)):
        for number in range(count):
            label, colour = (("cat", (200, 120, 40)), ("dog", (40, 90, 200)))[number % 2]
            height, width = rng.integers(60, 240, size=2)
            picture = np.clip(colour + rng.integers(-40, 41, size=(height, width, 3)), 0, 255).astype(np.uint8)
            name = f"{split}-{number}.{'jpg' if number % 3 else 'png'}"
            Image.fromarray(picture).save(root / name)
            rows.append((split, name, label))
    return write_csv(root / "pets.csv", rows)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [256, 0])
def test_a_csv_of_images_of_mixed_sizes_goes_through_the_whole_dag(fresh, tmp_path, cache):
    project = fresh.copy(tmp_path / "p")
    project.environment = fresh.environment | {"PYTHONPATH": str(project.root / "src")}
    (project.root / "pets").mkdir()
    project.run("mtl", "convert", str(cats_and_dogs(project.root / "pets")), "data/records")

    def pets(tree: dict) -> None:
        tree["data"] |= {"source": "tfrecord", "path": "data/records", "size": 150, "cache": cache}
        tree["tasks"] = {"model1": {"labels": None, "recipe": "compact"}}
        tree["tasks"] |= {"barks": {"labels": {"no": ["cat"], "yes": ["dog"]}, "recipe": "compact"}}
        tree["recipes"]["compact"] |= {"epochs": 3, "batch_size": 8, "steps_per_epoch": 3}
        tree["recipes"]["compact"] |= {"precision": "float32", "options": {"widths": [4]}}
        tree["promote"]["accuracy"] = {"model1": 0.5}

    project.edit(pets)
    project.run("dvc", "repro", "-q")
    raw = sorted(file.name for file in (project.root / "data/raw").glob("*/*"))
    assert raw == ["columns.parquet", "dataset.json", "manifest.json", "shards.json", "shifted.json"]
    verdict = json.loads((project.root / "metrics/main_evaluate.json").read_text())
    assert set(verdict["tasks"]) == {"model1", "barks"}
    assert verdict["tasks"]["model1"]["acc"] > 0.5
    history = (project.root / "metrics/plots/model1_history.csv").read_text().splitlines()
    assert history[0] == "epoch,acc,loss,val_acc,val_loss"
    assert len(history) == 4
    assert (project.root / "metrics/plots/gallery/model1_mistakes.png").exists()
    lock = project.lock()
    project.run("dvc", "repro", "-q", "--force", "-s", "train@barks")
    assert project.lock() == lock
    # What else reads data/raw: export's check and promotion on the validation images.
    project.run("mtl", "export", "model1")
    promoted = project.run("mtl", "promote", "--allow-dirty").stdout
    assert "champion" in promoted
    # A label that is in no group, and a shard that is cut off.
    project.edit(lambda tree: tree["tasks"]["barks"].update(labels={"no": ["cat"], "yes": ["wolf"]}))
    failed = project.run("dvc", "repro", "derive_labels", check=False)
    assert "tasks.barks.labels.yes: the data set has no class 'wolf'; it has cat, dog" in failed.stderr
    shard = project.root / "data/records/train-00000-of-00001.tfrecord.gz"
    shard.write_bytes(shard.read_bytes()[:-100])
    failed = project.run("dvc", "repro", "load_data", check=False)
    assert f"error: data/records/{shard.name}: truncated" in failed.stderr
    assert "Traceback" not in failed.stderr
