"""Tables of one's own: what is read of them, how they are split, and what is refused."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import encoded, pixels, write_tar, write_tree

from mtl import sources
from mtl.config.params import Data
from mtl.errors import UserError
from mtl.sources import duplicates, official, split, tables
from mtl.sources.loaded import Loaded
from mtl.tasks.columns import SPLITS

quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ROWS = """image,split,kind,kids,price
images/0.png,train,cat,true,1.5
images/1.png,TRAIN,,false,
images/2.png,Validate,dog,,2
images/3.png,test,cat,true,-3
"""


def write(folder: Path, text: str | bytes = ROWS, images: int = 4, name: str = "my.csv") -> Path:
    """A table with as many images beside it."""
    content = text.encode() if isinstance(text, str) else text
    return write_tree(folder, {name: content, **{f"images/{i}.png": encoded(pixels(i)) for i in range(images)}})


def load(path: Path | str, seed: int = 0, **changes: object) -> Loaded:
    return sources.load(Data(**({"source": "table", "path": str(path), "validation": 0} | changes)), seed)


def refusal(path: Path | str, **changes: object) -> str:
    """The line that a person reads."""
    with pytest.raises(UserError) as caught:
        load(path, **changes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def unsplit(count: int, *columns: str, row: str = "") -> str:
    """A table without splits: `row` with {i} for the number of each."""
    lines = [f"images/{i}.png,{row.format(i=i)}" for i in range(count)]
    return "\n".join([",".join(["image", *columns]), *lines, ""])


# --- what is read


def test_columns_have_types_and_gaps_and_images_their_order(tmp_path):
    loaded = load(write(tmp_path))
    assert {part: table.num_rows for part, table in loaded.columns.items()} == {"train": 2, "validation": 1, "test": 1}
    assert loaded.columns["train"].to_pydict() == {"kind": ["cat", None], "kids": [True, False], "price": [1.5, None]}
    assert loaded.columns["validation"].to_pydict() == {"kind": ["dog"], "kids": [None], "price": [2.0]}
    assert loaded.encoding == "png" and loaded.name == tmp_path.name
    for part, numbers in (("train", [0, 1]), ("validation", [2]), ("test", [3])):
        assert np.array_equal(loaded.images[part], np.stack([pixels(number) for number in numbers]))


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("bom", ["", "\ufeff"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_delimiters_marks_and_line_ends_make_no_difference(tmp_path, mark, bom, end):
    text = (bom + ROWS.replace(",", mark)).replace("\n", end)
    loaded = load(write(tmp_path, text))
    assert loaded.columns["train"].to_pydict() == {"kind": ["cat", None], "kids": [True, False], "price": [1.5, None]}


def test_parquet_and_an_archive_give_what_csv_gives(tmp_path):
    expected = load(write(tmp_path / "csv"))
    table = pa.table(
        {
            "Image": [f"images/{i}.png" for i in range(4)],
            "ml_use": ["training", "train", "validation", "test"],
            "kind": pa.array(["cat", None, "dog", "cat"]).dictionary_encode(),
            "kids": [True, False, None, True],
            "price": pa.array([1.5, None, 2, -3], pa.float32()),
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file)
    files = {"my.parquet": file.getvalue(), **{f"images/{i}.png": encoded(pixels(i)) for i in range(4)}}
    for path in (write_tree(tmp_path / "parquet", files), write_tar(tmp_path / "a.tar.gz", files)):
        loaded = load(path)
        for part in SPLITS:
            assert loaded.columns[part].to_pydict() == expected.columns[part].to_pydict()
            assert np.array_equal(loaded.images[part], expected.images[part])
    assert load(tmp_path / "csv/my.csv").columns["test"].to_pydict() == expected.columns["test"].to_pydict()


@pytest.mark.parametrize("name", ["a b.png", "ä.png", "🐱.png", "👩\u200d🔬.png", "=1.png", "a/b/c/d/e/f/g.png"])
def test_names_are_names_whatever_is_in_them(tmp_path, name):
    write_tree(tmp_path, {"t.csv": f"file,split,kind\n{name},train,=x\nother.png,test,ü 🐱\n".encode()})
    write_tree(tmp_path, {name: encoded(pixels(1)), "other.png": encoded(pixels(2))})
    loaded = load(tmp_path)
    assert loaded.files is not None and loaded.files["train"] == [name]
    assert loaded.columns["train"]["kind"].to_pylist() == ["=x"]
    assert loaded.columns["test"]["kind"].to_pylist() == ["ü 🐱"]


@pytest.mark.parametrize("kind", ["webp", "bmp"])
def test_webp_and_bmp_are_read(tmp_path, kind):
    options = {"lossless": True} if kind == "webp" else {}
    write_tree(tmp_path, {f"{i}.{kind}": encoded(pixels(i), kind, **options) for i in range(2)})
    write_tree(tmp_path, {"t.csv": f"image,split,a\n0.{kind},train,1\n1.{kind},test,1\n".encode()})
    loaded = load(tmp_path)
    assert loaded.encoding == kind
    assert np.array_equal(loaded.images["train"][0], pixels(0))


def test_what_a_gap_is_and_what_a_type_is_can_be_said(tmp_path):
    write(tmp_path, "image,split,a,b\nimages/0.png,train,NA,-1\nimages/1.png,test,3,07\n")
    same = load(tmp_path, missing=["NA", "-1"], types={"b": "text"}).columns
    assert (same["train"].to_pydict(), same["test"].to_pydict()) == (
        {"a": [None], "b": [None]},
        {"a": [3], "b": ["07"]},
    )
    by_column = load(tmp_path, missing={"b": ["-1"]}).columns
    assert by_column["train"].to_pydict() == {"a": ["NA"], "b": [None]}
    assert "row 1" in refusal(tmp_path, types={"a": "integer"})


@pytest.mark.parametrize("other", ["one", "true"])
def test_mixed_types_are_text(tmp_path, other):
    write(tmp_path, f"image,split,a\nimages/0.png,train,1\nimages/1.png,test,{other}\n")
    assert load(tmp_path).columns["train"]["a"].to_pylist() == ["1"]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (["7", "-8"], [7, -8]),
        (["-9223372036854775808", "9223372036854775807"], [-(2**63), 2**63 - 1]),
        (["12345678901234567890", "12345678901234567891"], None),
        (["12345678901234567890", "1"], None),
        (["007", "12"], None),
        (["0x1F", "12"], None),
        (["-00.5", "12"], None),
        (["0", "-0.5"], [0.0, -0.5]),
        (["12345678901234567890", "0.5"], [12345678901234567890.0, 0.5]),
    ],
)
def test_digits_are_numbers_unless_something_of_them_would_be_lost(values, expected):
    rows = "".join(f"{row}.png,{value}\n" for row, value in enumerate([*values, ""]))
    column = tables.read(f"image,code\n{rows}".encode(), "t.csv").columns["code"].to_pylist()
    assert column == [*(expected or values), None]


def test_what_is_no_number_is_a_gap_and_all_numbers_of_parquet_are_read():
    file = io.BytesIO()
    table = {"image": ["a", "a"], "price": [float("nan")] * 2, "count": pa.array([2**64 - 1] * 2, pa.uint64())}
    pq.write_table(pa.table(table | {"share": pa.array([0.1, 0.1], pa.float32())}), file)
    read = tables.read(file.getvalue(), "t.parquet")
    assert read.columns.to_pydict() == {"price": [None], "count": [str(2**64 - 1)], "share": [0.1]}


def test_a_quoted_header_does_not_decide_the_delimiter():
    assert tables.read(b'image;"a,b,c"\nx;1\n', "t.csv").columns.to_pydict() == {"a,b,c": [1]}


def test_the_order_of_the_files_makes_no_difference(tmp_path):
    files = {f"images/{i}.png": encoded(pixels(i)) for i in range(12)}
    table = {"t.csv": unsplit(12, "kind", row="{i}").encode()}
    one = load(write_tar(tmp_path / "a.tar", table | files), test=0.25, validation=0.25)
    other = load(write_tar(tmp_path / "b.tar", dict(reversed([*files.items()])) | table), test=0.25, validation=0.25)
    for part in SPLITS:
        assert one.images[part].tobytes() == other.images[part].tobytes()
        assert one.columns[part].equals(other.columns[part])


def test_a_repeated_row_is_read_once(tmp_path, capsys):
    loaded = load(write(tmp_path, ROWS + ROWS.splitlines()[1]))
    assert len(loaded.images["train"]) == 2
    assert "1 rows" in capsys.readouterr().err


# --- splits


@quick
@given(
    groups=st.lists(st.integers(0, 9), min_size=20, max_size=60).filter(lambda values: len(set(values)) > 4),
    seed=st.integers(0, 100),
    portion=st.sampled_from([0.3, 0.4, 0.7]),
    is_stratified=st.booleans(),
)
def test_a_group_is_never_on_two_sides_and_portions_are_near(groups, seed, portion, is_stratified):
    numbers = split.group_numbers(groups)
    strata = np.arange(len(groups)) % 3 if is_stratified else None
    chosen = split.choose(len(groups), portion, seed, "data.test", strata, numbers)
    assert not set(numbers[chosen]) & set(numbers[~chosen])
    assert abs(chosen.sum() - portion * len(groups)) <= np.bincount(numbers).max()
    assert np.array_equal(chosen, split.choose(len(groups), portion, seed, "data.test", strata, numbers))


def test_groups_are_chosen_so_that_a_rare_value_is_on_both_sides():
    groups, strata = np.repeat(np.arange(40), 5), np.repeat(np.arange(40) % 10 == 0, 5)
    for seed in range(5):
        chosen = split.choose(200, 0.5, seed, "data.test", strata, groups)
        assert chosen.sum() == 100 and strata[chosen].sum() == 10


def test_without_a_split_column_portions_are_of_the_whole(tmp_path):
    write(tmp_path, unsplit(20, "kind", row="{i}"), 20)
    loaded = load(tmp_path, test=0.2, validation=0.1)
    assert [len(loaded.images[part]) for part in SPLITS] == [14, 2, 4]
    again = load(tmp_path, test=4, validation=2)
    assert [again.files[part] for part in SPLITS] == [loaded.files[part] for part in SPLITS]
    assert load(tmp_path, seed=1, test=4, validation=2).files != loaded.files


def test_a_column_is_shared_out_evenly_where_it_is_named(tmp_path):
    rows = "\n".join(f"images/{i}.png,{'rare' if i % 10 == 0 else 'often'}" for i in range(40))
    write(tmp_path, f"image,kind\n{rows}\n", 40)
    loaded = load(tmp_path, test=0.5, stratify="kind")
    assert loaded.columns["test"]["kind"].to_pylist().count("rare") == 2


def test_a_gap_in_the_group_column_is_a_group_of_its_own():
    assert len(set(split.group_numbers(["a", None, "a", None]))) == 3


def test_groups_hold_where_validation_alone_is_held_out(tmp_path):
    rows = [f"images/{i}.png,{'test' if i < 4 else 'train'},s{i // 4}" for i in range(20)]
    write(tmp_path, "\n".join(["image,split,sender", *rows]), 20)
    loaded = load(tmp_path, validation=0.25, group="sender")
    parts = [set(loaded.columns[part]["sender"].to_pylist()) for part in SPLITS]
    assert all(parts) and not parts[0] & parts[1]


# --- what is refused


@pytest.mark.parametrize(
    ("text", "changes", "names"),
    [
        ("image,split,kind\n", {}, ["no rows"]),
        ("image,split\nimages/0.png,train\nimages/1.png,test\n", {"group": "series"}, ["my.csv", "no column"]),
        ("", {}, ["name the columns"]),
        ("images/0.png,train,cat\nimages/1.png,test,dog\n", {}, ["no column", "data.image"]),
        ("image,split,a,a\nimages/0.png,train,1,2\n", {}, ["'a'"]),
        ("image,split,kind\nimages/0.png,train\n", {}, ["CSV"]),
        (b"image,split,kind\n\xff,train,cat\n", {}, ["UTF-8"]),
        ("image,split,a\nimages/9.png,train,1\nimages/0.png,test,1\n", {}, ["'image'", "row 1", "images/9.png"]),
        ("image,split,a\n../0.png,train,1\nimages/0.png,test,1\n", {}, ["row 1", "outside"]),
        ("image,split,a\n/etc/passwd,train,1\nimages/0.png,test,1\n", {}, ["row 1", "outside"]),
        ("image,split,a\nhttp://a/0.png,train,1\nimages/0.png,test,1\n", {}, ["row 1", "outside"]),
        ("image,split,a\n,train,1\nimages/0.png,test,1\n", {}, ["row 1"]),
        ("image,split,a\nimages/0.png,train,1\nimages/0.png,train,2\n", {}, ["row 1", "row 2", "images/0.png"]),
        ("image,a\nimages/0.png,1\n./images/0.png,2\n", {}, ["row 1", "row 2", "images/0.png"]),
        ("image,split,a\nimages/0.png,dev,1\n", {}, ["row 1", "'dev'"]),
        ("image,split,a\nimages/0.png,train,1\n", {}, ["test"]),
        ("image,kind\nimages/0.png,cat\nimages/1.png,dog\n", {}, ["data.test"]),
        (ROWS, {"image": "picture"}, ["'picture'", "'price'"]),
        (ROWS, {"group": "sender"}, ["'sender'"]),
        (ROWS, {"stratify": "kinds"}, ["'kinds'", "'kind'"]),
        (ROWS, {"types": {"prices": "number"}}, ["'prices'", "'price'"]),
        (ROWS, {"types": {"kind": "number"}}, ["'kind'", "row 1", "'cat'"]),
        (ROWS, {"missing": {"kidss": ["x"]}}, ["'kidss'", "'kids'"]),
        (ROWS, {"table": "other.csv"}, ["'other.csv'", "my.csv"]),
        (ROWS, {"group": "kind"}, ["kind 'cat'", "data.group"]),
        (unsplit(4, "a", row="x"), {"test": 0.5, "group": "a"}, ["data.group"]),
        (unsplit(4, "a", row="x"), {"test": 0.01}, ["data.test", "empty"]),
        (unsplit(4, "a", row="x"), {"test": 4}, ["data.test", "empty"]),
        (unsplit(4, "a", row="x"), {"test": 2, "validation": 0.9}, ["data.validation", "empty"]),
        (unsplit(4, "a", row="{i}"), {"test": 2, "stratify": "a"}, ["data.stratify"]),
    ],
)
def test_what_is_wrong_is_one_line_that_names_the_place(tmp_path, text, changes, names):
    message = refusal(write(tmp_path, text), **changes)
    assert [name for name in names if name not in message] == [], message


def test_a_parquet_file_cut_in_half_is_refused(tmp_path):
    file = io.BytesIO()
    pq.write_table(pa.table({"image": ["images/0.png"], "split": ["train"]}), file)
    assert "t.parquet" in refusal(write(tmp_path, file.getvalue()[: file.tell() // 2], name="t.parquet"))


def test_a_folder_of_two_tables_or_none_says_so(tmp_path):
    write(tmp_path)
    (tmp_path / "other.csv").write_text(ROWS)
    assert "data.table" in refusal(tmp_path)
    assert load(tmp_path, table="other.csv").columns["test"]["kind"].to_pylist() == ["cat"]
    for path in tmp_path.glob("*.csv"):
        path.unlink()
    assert "there is none" in refusal(tmp_path)


def test_a_member_of_an_archive_cannot_leave_it(tmp_path):
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        info = tarfile.TarInfo("../my.csv")
        info.size = len(ROWS)
        archive.addfile(info, io.BytesIO(ROWS.encode()))
    assert "outside" in refusal(tmp_path / "a.tar")


# --- duplicates


def test_the_same_picture_is_counted_by_split_and_by_column_and_gaps_are_no_conflict(tmp_path):
    write(tmp_path, images=4)
    (tmp_path / "images/3.png").write_bytes(encoded(pixels(0), compress_level=1))
    (tmp_path / "images/1.png").write_bytes(encoded(pixels(0), compress_level=2))
    found = duplicates.find_loaded(load(tmp_path))
    assert (found.splits, found.classes) == (1, 2)  # kind: a gap; kids: true and false; price: 1.5 and -3
    assert "images/0.png (train) and images/3.png (test)" in found.first["splits"]


def test_a_conflict_is_found_behind_a_gap_and_names_its_column():
    columns = {"kind": [None, "cat", "dog"], "drawer": ["x"] * 3}
    found = duplicates.find(np.array([7] * 3, np.uint64), np.zeros(3), columns, "abc".__getitem__)
    assert (found.splits, found.classes, found.first) == (0, 1, {"classes": ("b and c: kind",)})


def test_five_pairs_are_named_and_all_are_counted():
    digests, splits = np.array([1] * 8, np.uint64), np.array([0, 1, 1, 1, 1, 1, 1, 1])
    found = duplicates.find(digests, splits, {"a": ["x"] * 8}, str)
    assert (found.splits, len(found.first["splits"]), found.classes) == (7, 5, 0)


# --- CIFAR-10 from arrays


@pytest.fixture
def arrays() -> dict[str, np.ndarray]:
    images = np.stack([pixels(i, 32, 32) for i in range(20)])
    labels = (np.arange(20) % 10).astype(np.uint8)[:, None]
    return {"x_train": images, "y_train": labels, "x_test": images[:10], "y_test": labels[:10]}


def save(path: Path, arrays: dict[str, object]) -> Path:
    np.savez(path, **arrays)
    return path


def test_arrays_are_compared_with_the_official_ones(tmp_path, arrays, monkeypatch):
    path = save(tmp_path / "c.npz", arrays)
    data = Data(source="cifar10", path=str(path), validation=0)
    loaded = sources.load(data, 0)
    assert loaded.official == {} and loaded.name != "CIFAR-10"
    assert loaded.columns["test"]["class"].to_pylist()[:2] == ["airplane", "automobile"]
    for name in ("x_train", "y_train"):
        monkeypatch.setitem(official.ARRAYS_MD5, name, official.npy_md5(arrays[name]))
    for name in ("x_test", "y_test"):
        monkeypatch.setitem(official.FIRST_TEST_MD5, name, official.npy_md5(arrays[name]))
    (tmp_path / "README.md").write_text("where it is from")
    loaded = sources.load(data.model_copy(update={"path": str(tmp_path)}), 0)
    assert loaded.official == {"train": "all", "test": "the first 1,000 of 10,000"}
    assert loaded.name == "CIFAR-10, official training images; test: the first 1,000 of 10,000"


@pytest.mark.parametrize(
    ("change", "name"),
    [
        (lambda a: a | {"z": a["x_train"]}, "z"),
        (lambda a: {k: v for k, v in a.items() if k != "y_test"}, "y_test"),
        (lambda a: a | {"x_train": a["x_train"].astype(np.float32)}, "x_train"),
        (lambda a: a | {"x_test": a["x_test"][:, :16]}, "x_test"),
        (lambda a: a | {"y_test": a["y_test"][:5]}, "y_test"),
        (lambda a: a | {"y_train": a["y_train"] + 5}, "y_train"),
        (lambda a: a | {"y_train": a["y_train"] / 2}, "y_train"),
        (lambda a: a | {"y_train": np.array([print] * 20, object)}, "pickled"),
    ],
)
def test_arrays_that_are_not_cifar10_are_refused(tmp_path, arrays, change, name):
    path = save(tmp_path / "c.npz", change(arrays))
    with pytest.raises(UserError, match=name) as caught:
        sources.load(Data(source="cifar10", path=str(path), validation=0), 0)
    assert "\n" not in str(caught.value)


def test_an_npz_cut_in_half_is_refused(tmp_path, arrays):
    path = save(tmp_path / "c.npz", arrays)
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(UserError, match=r"c\.npz"):
        sources.load(Data(source="cifar10", path=str(path), validation=0), 0)


def test_image_columns_are_known_by_their_names():
    for name in tables.IMAGE:
        table = tables.read(f"a,{name.upper()}\n1,x.png\n".encode(), "t.csv")
        assert (table.image, table.files, table.columns.column_names) == (name.upper(), ("x.png",), ["a"])
