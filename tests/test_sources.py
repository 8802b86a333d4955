"""Images of one's own: folders and archives, what is read of them and what is refused."""

from __future__ import annotations

import tarfile
from pathlib import Path
from types import MappingProxyType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from images import classes as classes_of
from images import encoded, labels, member, pixels, tree, write_tar, write_tree
from PIL import Image

from mtl import sources
from mtl.config.params import Data
from mtl.errors import UserError
from mtl.sources import trees
from mtl.sources.loaded import Loaded
from mtl.tasks.columns import Split

FILES = MappingProxyType(tree())
quick = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def load(path: Path | str, size: int | None = None) -> Loaded:
    return sources.load(Data(source="folder", path=str(path), size=size, validation=0), 0)


def refusal(path: Path | str, size: int | None = None) -> str:
    """The line that a person reads."""
    with pytest.raises(UserError) as caught:
        load(path, size)
    message = str(caught.value)
    assert "\n" not in message
    return message


def one_image(tmp_path: Path, content: bytes, name: str = "0.png") -> np.ndarray:
    """`content` as every image, as it is loaded."""
    places = [f"{split}/{label}/{name}" for split in ("train", "test") for label in ("cat", "dog")]
    return load(write_tree(tmp_path, dict.fromkeys(places, content))).images["train"][0]


def same(left: Loaded, right: Loaded) -> bool:
    splits: tuple[Split, ...] = ("train", "test")
    return all(
        np.array_equal(left.images[split], right.images[split]) and left.columns[split].equals(right.columns[split])
        for split in splits
    )


# --- what is read

names = st.text("abAB-_. é0", min_size=1, max_size=4).filter(lambda name: name.strip(". ") == name)


@st.composite
def data_sets(draw: st.DrawFn) -> dict[str, np.ndarray]:
    """Images by path, in any order; at least one of each class in each split."""
    classes = draw(st.lists(names, min_size=2, max_size=3, unique=True))
    files = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    shape = draw(st.tuples(st.integers(1, 5), st.integers(1, 5)))
    paths = [f"{split}/{name}/{file}.png" for split in ("train", "test") for name in classes for file in files]
    return {path: pixels(draw(st.integers(0, 2**32)), *shape) for path in draw(st.permutations(paths))}


@quick
@given(
    images=data_sets(),
    form=st.sampled_from(["folder", "a.tar", "a.tar.gz", "a.tgz"]),
    lead=st.sampled_from(["", "my images/"]),
)
def test_what_was_written_is_loaded_in_the_order_of_the_names(
    tmp_path_factory: pytest.TempPathFactory, images: dict[str, np.ndarray], form: str, lead: str
) -> None:
    root = tmp_path_factory.mktemp("images")
    files = {lead + path: encoded(image) for path, image in images.items()}
    loaded = load(write_tree(root, files) if form == "folder" else write_tar(root / form, files))
    classes = sorted({path.split("/")[1] for path in images})
    assert classes_of(loaded) == tuple(classes)
    for split, x in loaded.images.items():
        paths = sorted((path.split("/")[1:], path) for path in images if path.startswith(split))
        assert np.array_equal(x, np.stack([images[path] for _, path in paths]))
        assert labels(loaded, split).tolist() == [classes.index(name) for (name, _), _ in paths]
        assert x.dtype == np.uint8


@pytest.mark.parametrize("form", ["a.tar", "a.tar.gz"])
def test_an_archive_is_found_in_its_folder_and_through_links(tmp_path: Path, form: str) -> None:
    archive = write_tar(tmp_path / form, FILES)
    external = tmp_path / "external"
    external.mkdir()
    (external / ".gitignore").write_text("*")
    (external / f"my-{form}").symlink_to(archive)
    (tmp_path / "link").symlink_to(external)
    loaded = load(tmp_path / "link")
    assert same(loaded, load(archive))
    assert (loaded.name, loaded.encoding, loaded.official) == ("my-a", "png", {})


def test_a_class_folder_may_be_a_link(tmp_path: Path) -> None:
    whole = write_tree(tmp_path / "whole", FILES)
    linked = write_tree(tmp_path / "linked", {name: content for name, content in FILES.items() if "cat" not in name})
    for split in ("train", "test"):
        (linked / split / "cat").symlink_to(whole / split / "cat")
    assert same(load(linked), load(whole))


def test_under_dvc_nothing_is_read_from_the_parent_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tree(tmp_path / "repository" / "data" / "external", FILES)
    write_tree(tmp_path / "copy" / "data" / "external", {".gitignore": b"*"})
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setenv("DVC_ROOT", str(tmp_path / "repository"))
    with pytest.raises(UserError, match="data/external"):
        load("data/external")
    write_tree(tmp_path / "copy" / "data" / "external", tree(train=3))
    assert len(load("data/external").images["train"]) == 6


def test_a_folder_is_refused_where_dvc_would_not_hash_all_of_it(tmp_path: Path) -> None:
    images = write_tree(tmp_path / "images", FILES)
    trees.refuse_unhashed(images)
    (images / "train/cat/linked.png").symlink_to(images / "train/cat/0.png")  # DVC hashes what it points to
    (images / ".hidden").symlink_to(tmp_path)  # not read either
    trees.refuse_unhashed(images)
    (images / "train/ox").symlink_to(images / "train/cat")
    with pytest.raises(UserError, match="train/ox: a link to a folder") as refused:
        trees.refuse_unhashed(images)
    assert "\n" not in str(refused.value)
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"dvc add .*empty"):
        trees.refuse_unhashed(tmp_path / "empty")


def test_what_is_no_image_is_left_out_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_tree(tmp_path, FILES)
    plain = load(tmp_path)
    assert capsys.readouterr().err == ""
    hidden = ("train/.DS_Store", "train/cat/._0.png", "test/cat/Thumbs.db", ".git/x.png", "README.md", ".gitignore")
    write_tree(tmp_path, dict.fromkeys(hidden, b"?"))
    assert same(load(tmp_path), plain)
    assert capsys.readouterr().err == ""
    write_tree(tmp_path, {"train/cat/a.txt": b"?", "labels.csv": b"?", "extra/cat/0.png": b"?"})
    assert same(load(tmp_path), plain)
    notes = capsys.readouterr().err.splitlines()
    assert len(notes) == 2
    assert "2 files" in notes[0] and "1 .csv, 1 .txt (labels.csv, train/cat/a.txt)" in notes[0]
    assert "1 images outside of train/ and test/" in notes[1]


@pytest.mark.parametrize(
    ("image", "colour"),
    [
        (Image.new("L", (3, 2), 70), (70, 70, 70)),
        (Image.new("1", (3, 2), 1), (255, 255, 255)),
        (Image.new("RGBA", (3, 2), (1, 2, 3, 0)), (1, 2, 3)),
        (Image.new("RGB", (3, 2), (9, 8, 7)).quantize(4), (9, 8, 7)),
        (Image.fromarray(np.full((2, 3), 0x46FF, np.uint16)), (0x46, 0x46, 0x46)),
    ],
    ids=["grey", "black and white", "transparent", "palette", "16 bits"],
)
def test_every_kind_of_image_becomes_rgb(tmp_path: Path, image: Image.Image, colour: tuple[int, int, int]) -> None:
    assert np.array_equal(one_image(tmp_path, encoded(image)), np.full((2, 3, 3), colour))


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    red = one_image(tmp_path, encoded(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "jpeg"), "0.JPG")
    assert np.abs(red.astype(int) - (255, 0, 0)).max() < 30


@pytest.mark.parametrize("kind", ["png", "jpeg"])
def test_the_orientation_in_the_file_is_applied(tmp_path: Path, kind: str) -> None:
    lying = np.zeros((8, 16, 3), np.uint8)
    lying[:, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    upright = one_image(tmp_path, encoded(lying, kind, exif=exif), f"0.{kind}")
    assert upright.shape == (16, 8, 3)
    assert upright[:8].mean() > 250 and upright[8:].mean() < 5


def test_images_are_resized_to_data_size(tmp_path: Path) -> None:
    files = tree(shape={"height": 9, "width": 12}) | {"train/cat/9.png": encoded(np.full((2, 3, 3), 50, np.uint8))}
    loaded = load(write_tree(tmp_path, files), size=6)
    assert loaded.images["train"].shape == (5, 6, 6, 3) and loaded.images["test"].shape == (2, 6, 6, 3)
    assert (loaded.images["train"][2] == 50).all()
    # Every pixel counts when an image shrinks: stripes of one pixel become grey.
    stripes = np.tile(np.uint8([0, 255]), (64, 32))[..., None].repeat(3, -1)
    shrunk = load(write_tree(tmp_path / "s", dict.fromkeys(FILES, encoded(stripes))), 8)
    assert shrunk.images["train"].min() > 100 and shrunk.images["train"].max() < 155


@pytest.mark.parametrize(
    ("kinds", "encoding"), [(("png", "png"), "png"), (("jpeg", "jpeg"), "jpeg"), (("png", "jpeg"), "mixed")]
)
def test_the_encoding_is_that_of_the_content(tmp_path: Path, kinds: tuple[str, str], encoding: str) -> None:
    kind_of = dict(zip(("train", "test"), kinds, strict=True))
    files = {name: encoded(pixels(0), kind_of[name.split("/")[0]]) for name in FILES}
    assert load(write_tree(tmp_path, files)).encoding == encoding


# --- what is refused


def test_where_there_is_nothing(tmp_path: Path) -> None:
    assert "no such file" in refusal(tmp_path / "missing")
    assert "no images" in refusal(tmp_path)
    (tmp_path / "gone.tar").symlink_to("/nowhere.tar")
    assert "gone.tar: a link to a file that is not there" in refusal(tmp_path)


def test_two_data_sets_in_one_place(tmp_path: Path) -> None:
    write_tar(tmp_path / "a.tar", FILES)
    write_tar(tmp_path / "b.tgz", FILES)
    assert "holds a.tar, b.tgz; leave one" in refusal(tmp_path)
    (tmp_path / "b.tgz").unlink()
    write_tree(tmp_path, FILES)
    assert "holds a.tar, test, train; leave one" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"train/cat/0.png": b"no image"}, "train/cat/0.png: not a whole PNG or JPEG image"),
        ({"train/cat/0.png": encoded(pixels(0), "gif")}, "train/cat/0.png: not a whole PNG or JPEG image"),
        ({"train/cat/0.png": encoded(pixels(0, 64, 64))[:-500]}, "train/cat/0.png: not a whole PNG or JPEG image"),
        ({"train/cow/0.png": encoded(pixels(0))}, "class 'cow' is in train alone"),
        ({"test/cow/0.png": encoded(pixels(0))}, "class 'cow' is in test alone"),
        ({"train/cat/deep/0.png": encoded(pixels(0))}, "train/cat/deep/0.png is not at <split>/<class>/<file>"),
        ({"train/0.png": encoded(pixels(0))}, "train/0.png is not at <split>/<class>/<file>"),
        ({"train/c\nt/0.png": encoded(pixels(0)), "test/c\nt/0.png": encoded(pixels(0))}, "cannot be written as text"),
    ],
)
@pytest.mark.parametrize("form", ["folder", "a.tar.gz"])
def test_unfit_files_are_named(tmp_path: Path, form: str, change: dict[str, bytes], line: str) -> None:
    files = {**FILES, **change}
    message = refusal(write_tree(tmp_path, files) if form == "folder" else write_tar(tmp_path / form, files))
    assert line in message and str(tmp_path) in message


COMPOSED, DECOMPOSED = "caf\u00e9", "cafe\u0301"  # é as one character, and as two


@pytest.mark.parametrize("form", ["folder", "a.tar.gz"])
@pytest.mark.parametrize(
    "names",
    [
        (f"train/{COMPOSED}/0.png", f"train/{DECOMPOSED}/1.png"),
        (f"test/cat/{DECOMPOSED}.png", f"test/cat/{COMPOSED}.png"),
    ],
    ids=["folders", "files"],
)
def test_names_that_are_one_to_unicode_are_both_named(tmp_path: Path, form: str, names: tuple[str, str]) -> None:
    files = {**FILES, **{name: encoded(pixels(seed)) for seed, name in enumerate(names)}}
    message = refusal(write_tree(tmp_path, files) if form == "folder" else write_tar(tmp_path / form, files))
    assert "caf\\xe9" in message and "cafe\\u0301" in message and repr(COMPOSED)[1:-1] in message


def test_the_splits_may_write_a_class_in_two_ways(tmp_path: Path) -> None:
    image = encoded(pixels(0))
    names = (f"train/{COMPOSED}/0.png", f"test/{DECOMPOSED}/0.png")
    assert classes_of(load(write_tree(tmp_path, {**FILES, **dict.fromkeys(names, image)}))) == (COMPOSED, "cat", "dog")


@pytest.mark.parametrize("form", ["folder", "a.tar"])
@pytest.mark.parametrize("lead", ["", "my images/"])
def test_hidden_classes_and_images_are_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], form: str, lead: str
) -> None:
    image = encoded(pixels(0))
    hidden = ("train/.cow/0.png", "train/.cow/1.png", "test/.cow/0.png", "train/cat/.0.png", "train/cat/._0.png")
    files = {lead + name: content for name, content in (FILES | dict.fromkeys(hidden, image)).items()}
    loaded = load(write_tree(tmp_path, files) if form == "folder" else write_tar(tmp_path / form, files))
    assert classes_of(loaded) == ("cat", "dog")
    (note,) = capsys.readouterr().err.splitlines()
    assert "left out 3 " in note
    assert all(f"{lead}{name}" in note for name in ("train/.cow/", "test/.cow/", "train/cat/.0.png"))


@pytest.mark.parametrize("form", ["folder", "a.tar"])
def test_a_single_class_is_refused(tmp_path: Path, form: str) -> None:
    files = {name: content for name, content in FILES.items() if "cat" in name}
    message = refusal(write_tree(tmp_path, files) if form == "folder" else write_tar(tmp_path / form, files))
    assert "one class" in message and "'cat'" in message


@pytest.mark.parametrize(
    ("files", "named"),
    [
        ({f"train/cat/{number}.webp": b"RIFF" for number in range(5)}, ("5 .webp", "train/cat/0.webp", "PNG or JPEG")),
        ({"images.zip": b"PK\3\4"}, ("images.zip", "unpack it")),
        ({"images.tar.xz": b"\xfd7zXZ"}, ("images.tar.xz", "unpack it")),
        ({"train/.cat/0.png": b"?", "test/.cat/0.png": b"?"}, ("train/.cat/", "hidden")),
    ],
    ids=["webp", "zip", "xz", "hidden"],
)
def test_what_is_there_instead_of_images_is_named(
    tmp_path: Path, files: dict[str, bytes], named: tuple[str, ...]
) -> None:
    message = refusal(write_tree(tmp_path, files))
    assert "no images" in message
    assert all(part in message for part in named)


@pytest.mark.parametrize(("kind", "named"), [("webp", "WebP"), ("gif", "GIF"), ("bmp", "BMP"), ("tiff", "TIFF")])
def test_an_image_of_another_kind_under_the_name_of_a_png_is_told(tmp_path: Path, kind: str, named: str) -> None:
    message = refusal(write_tree(tmp_path, {**FILES, "train/cat/0.png": encoded(pixels(0), kind)}))
    assert "train/cat/0.png" in message and named in message


def test_images_of_other_sizes_are_both_named(tmp_path: Path) -> None:
    message = refusal(write_tree(tmp_path, {**FILES, "test/dog/0.png": encoded(pixels(0, 5, 6))}))
    assert "train/cat/0.png is 4x4" in message or "test/cat/0.png is 4x4" in message
    assert "test/dog/0.png 6x5" in message


@pytest.mark.parametrize("form", ["folder", "a.tar"])
def test_an_empty_class(tmp_path: Path, form: str) -> None:
    if form == "folder":
        path = write_tree(tmp_path, FILES)
        (path / "test" / "cow").mkdir()
        write_tree(path, {"train/cow/0.png": encoded(pixels(0))})
    else:
        cow = {"train/cow/0.png": encoded(pixels(0)), "test/cow": member("test/cow", tarfile.DIRTYPE)}
        path = write_tar(tmp_path / form, {**FILES, **cow})
    assert "class 'cow' has no images in test" in refusal(path)


def test_a_missing_split(tmp_path: Path) -> None:
    files = {name.replace("test/", "Test/"): content for name, content in FILES.items()}
    message = refusal(write_tree(tmp_path, files))
    assert "no images in test/<class>/" in message and "small letters" in message and "found: Test, train" in message


def test_more_classes_than_a_byte_can_name(tmp_path: Path) -> None:
    image = encoded(pixels(0, 1, 1))
    files = {f"{split}/{number:03}/0.png": image for split in ("train", "test") for number in range(257)}
    assert labels(load(write_tar(tmp_path / "a.tar", files)), "test").max() == 256


def test_a_link_to_no_image_is_named(tmp_path: Path) -> None:
    write_tree(tmp_path, FILES)
    (tmp_path / "train" / "cat" / "2.png").symlink_to("/nowhere.png")
    assert "2.png: not a file" in refusal(tmp_path)


def test_an_image_of_too_many_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 15)
    assert "more than 15 pixels" in refusal(write_tree(tmp_path, FILES))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4)  # twice as many are an error of Pillow's own
    assert "more than 4 pixels" in refusal(tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("../x.png", encoded(pixels(0))),
        ("train/cat/../../../x.png", encoded(pixels(0))),
        ("/tmp/x.png", encoded(pixels(0))),
        ("train/cat/x.png", member("train/cat/x.png", tarfile.SYMTYPE, "/etc/passwd")),
        ("train/cat/x.png", member("train/cat/x.png", tarfile.LNKTYPE, "train/cat/0.png")),
        ("train/cat/x.png", member("train/cat/x.png", tarfile.FIFOTYPE)),
        ("train/cat/x.png", member("train/cat/x.png", tarfile.CHRTYPE)),
        ("train/.hidden", member("train/.hidden", tarfile.SYMTYPE, "..")),
    ],
    ids=["..", "inner ..", "absolute", "symbolic link", "hard link", "pipe", "device", "hidden link"],
)
@pytest.mark.parametrize("form", ["a.tar", "a.tgz"])
def test_members_that_leave_the_archive_are_refused(
    tmp_path: Path, form: str, name: str, content: bytes | tarfile.TarInfo
) -> None:
    message = refusal(write_tar(tmp_path / form, {**FILES, name: content}))
    assert "refused" in message and repr(name) in message


@quick
@given(where=st.floats(0, 1, exclude_max=True))
@pytest.mark.parametrize("form", ["a.tar", "a.tar.gz"])
def test_a_truncated_archive_is_never_taken_for_a_smaller_one(tmp_path: Path, form: str, where: float) -> None:
    whole = write_tar(tmp_path / form, FILES)
    cut = tmp_path / f"cut-{form}"
    content = whole.read_bytes()
    cut.write_bytes(content[: int(where * len(content))])
    try:
        loaded = load(cut)
    except UserError as error:
        assert str(cut) in str(error) and "truncated" in str(error)
    else:
        assert same(loaded, load(whole))  # what was lost is padding behind the end


@quick
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7))
def test_a_damaged_archive_is_never_taken_for_whole(tmp_path: Path, where: float, bit: int) -> None:
    whole = write_tar(tmp_path / "a.tar.gz", FILES)
    content = bytearray(whole.read_bytes())
    content[int(where * len(content))] ^= 1 << bit
    damaged = tmp_path / "damaged.tar.gz"
    damaged.write_bytes(content)
    try:
        loaded = load(damaged)
    except UserError as error:
        assert str(damaged) in str(error)
    else:
        assert same(loaded, load(whole))  # the time in the header of gzip


def test_the_checksum_of_an_archive_is_looked_at(tmp_path: Path) -> None:
    content = bytearray(write_tar(tmp_path / "a.tgz", FILES).read_bytes())
    content[-8] ^= 1
    (tmp_path / "a.tgz").write_bytes(content)
    assert "truncated or broken archive (CRC check failed" in refusal(tmp_path)


def test_a_cut_between_two_files_is_noticed(tmp_path: Path) -> None:
    whole = write_tar(tmp_path / "a.tar", FILES)
    with tarfile.open(whole) as archive:
        last = archive.getmembers()[-1]
    cut = tmp_path / "cut.tar"
    cut.write_bytes(whole.read_bytes()[: last.offset])
    assert "truncated" in refusal(cut)


def test_what_is_no_archive(tmp_path: Path) -> None:
    for name, content in (("a.tar", b""), ("b.tar", b"no archive" * 99), ("c.zip", b"PK\3\4" * 200)):
        (tmp_path / name).write_bytes(content)
        assert "no tar archive" in refusal(tmp_path / name)
    assert "c.zip: a zip archive" in refusal(tmp_path / "c.zip")


def test_an_archive_may_not_unpack_to_more_than_the_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = {**FILES, "train/cat/zeros.txt": bytes(1 << 20)}
    archive = write_tar(tmp_path / "a.tgz", bomb)
    load(archive)
    monkeypatch.setattr(trees, "MAX_ARCHIVE", 1 << 20)
    assert "unpacks to more than" in refusal(archive)


def test_a_header_may_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = write_tar(tmp_path / "a.tgz", {**FILES, f"train/cat/{'x' * 3000}.png": encoded(pixels(0))})
    monkeypatch.setattr(trees, "MAX_FILE", 2000)
    assert "one file in it has" in refusal(archive)


def test_a_file_of_negative_size_ends(tmp_path: Path) -> None:
    """The size would lead back to its own header: without a check, `tarfile` goes round for ever."""
    info = tarfile.TarInfo("train/cat/x.png")
    info.size = -1024
    header = info.tobuf(tarfile.GNU_FORMAT)
    (tmp_path / "a.tar").write_bytes(header + bytes(10240))
    assert "a.tar" in refusal(tmp_path)
