"""Images in TFRecord shards, as `mtl convert` writes them: their manifest, and reading them like an array."""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import Field, ValidationError

from mtl import store
from mtl.errors import UserError, one_line
from mtl.params import first_line
from mtl.quiet import import_tensorflow
from mtl.settings import Settings

if TYPE_CHECKING:
    import tensorflow as tf

MANIFEST = "manifest.json"
SPLITS = ("train", "validation", "test")
FETCHED = Path(".shards")  # no DVC out: copies of shards that are not on this machine, by their checksum
DECODERS = 2  # threads that decode beside the training; they do not change what is read
READ_AHEAD = 1 << 18  # bytes of a shard
CHUNK = 256  # images that are handed over at once


class Shard(Settings):
    """One file: how many records and bytes it has, and its sha256."""

    file: str = Field(pattern=r"^[\w.-]+$")
    records: int = Field(ge=0)
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")


class SplitRecords(Settings):
    """The shards of a split, and how many records of each class are in them."""

    shards: tuple[Shard, ...]
    classes: dict[str, int]

    @property
    def count(self) -> int:
        """Number of records."""
        return sum(shard.records for shard in self.shards)


class Discarded(Settings):
    """Files that could not be read: how many, where they are listed with the reason, and how often each reason."""

    count: int
    files: tuple[str, ...]
    reasons: dict[str, int]


class Manifest(Settings):
    """What a folder of shards holds. `height` and `width` are the smallest and the largest of the images."""

    version: int = Field(1, ge=1, le=1)
    name: str
    classes: tuple[str, ...] = Field(min_length=1, max_length=256)
    encoding: str
    height: tuple[int, int]
    width: tuple[int, int]
    splits: dict[str, SplitRecords]
    discarded: Discarded


class Place(Settings):
    """What data/raw says besides the manifest: where the shards are and how they are read.

    `size`: images are resized to size x size; None: as they are. `cache`: up to so many MiB of decoded images are held
    in memory; where there are more, they are streamed.
    """

    path: str
    size: int | None
    cache: int


def parse(content: Any, where: str) -> Manifest:
    """The manifest that `content` (parsed JSON) is; raises UserError, naming `where`, for anything else."""
    try:
        manifest = Manifest.model_validate(content)
    except ValidationError as error:
        raise UserError(f"{where}: not a manifest of `mtl convert`: {first_line(error)}") from None
    for name, split in manifest.splits.items():
        unknown = [label for label in split.classes if label not in manifest.classes]
        if name not in SPLITS or unknown:
            raise UserError(f"{where}: splits.{name}: unknown {'class ' + repr(unknown[0]) if unknown else 'split'}")
    return manifest


def is_remote(path: str) -> bool:
    """Whether `path` is a URI that fsspec opens rather than a path of this machine."""
    return "://" in path


def join(path: str, name: str) -> str:
    """The file `name` in the folder `path`, a path or a URI."""
    return f"{path.rstrip('/')}/{name}"


def local(path: str, shard: Shard) -> Path:
    """Where `shard` of the folder `path` can be read on this machine; one that is elsewhere is copied first, once.

    Raises UserError where it is not there, or not as the manifest says.
    """
    if not is_remote(path):
        found = Path(path, shard.file)
        check(found, shard, content=False)
        return found
    copy = FETCHED / f"{shard.sha256}.tfrecord.gz"
    if not copy.exists():
        import fsspec

        try:
            with fsspec.open(join(path, shard.file), "rb") as source, store.replacing(copy) as temporary:
                with temporary.open("wb") as file:
                    while block := source.read(1 << 20):
                        file.write(block)
                check(temporary, shard, join(path, shard.file))
        except UserError:
            raise
        except Exception as error:  # each file system of fsspec raises its own
            raise UserError(f"{join(path, shard.file)}: cannot be read: {one_line(error)}") from error
    return copy


def check(path: Path, shard: Shard, name: str | None = None, content: bool = True) -> None:
    """Raise UserError where the file `path` has not the size and (with `content`) the checksum of `shard`."""
    name = name or str(path)
    try:
        size = path.stat().st_size
        if size != shard.bytes:
            what = "truncated" if size < shard.bytes else "another file"
            raise UserError(f"{name}: {what}: {size:,} bytes, the manifest says {shard.bytes:,}; copy it again")
        if content:
            with path.open("rb") as file:
                found = hashlib.file_digest(file, "sha256").hexdigest()
            if found != shard.sha256:
                raise UserError(f"{name}: its sha256 is {found}, the manifest says {shard.sha256}; copy it again")
    except FileNotFoundError:
        raise UserError(f"{name}: this shard of the manifest is missing; copy it there or convert again") from None


@dataclass(frozen=True)
class Images:
    """Images in shards that look like an array, uint8 (N, H, W, 3), but are read and decoded when they are needed.

    `images[i]` is one image; a slice or an array of indices picks some, still unread. `np.asarray` reads them into
    memory, `batches` one after the other. `index` holds their positions in all records of the shards, in that order.
    """

    files: tuple[str, ...]
    counts: tuple[int, ...]
    index: np.ndarray
    side: tuple[int, int]
    size: int | None
    sha256: tuple[str, ...]
    cache: int  # MiB
    mean_bytes: float = 1024.0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """As of an array."""
        return (len(self.index), *self.side, 3)

    @property
    def fits(self) -> bool:
        """Whether the decoded images may be held in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) <= self.cache << 20

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | slice | np.ndarray) -> Images | np.ndarray:
        if isinstance(key, int | np.integer):
            return np.asarray(self[np.array([range(len(self))[key]])])[0]
        return replace(self, index=self.index[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.empty(self.shape, np.uint8)
        unique, back = np.unique(self.index, return_inverse=True)
        into = np.argsort(back, kind="stable")  # where each record goes, in the order of the records
        ends = np.cumsum(np.bincount(back, minlength=len(unique)))
        start = 0
        for batch in replace(self, index=unique).batches(CHUNK):
            for image in batch:
                array[into[ends[start - 1] if start else 0 : ends[start]]] = image
                start += 1
        return array if dtype is None else array.astype(dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches(CHUNK):
            yield from batch

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in order, uint8 (B, H, W, 3), few of them in memory at a time."""
        if len(self.index) > 1 and not (np.diff(self.index) > 0).all():
            array = np.asarray(self)
            yield from (array[start : start + size] for start in range(0, len(array), size))
        elif len(self.index):
            yield from self.decoded(self.records(range(len(self.files))), size, lambda ids, images: images)

    def records(self, order: Sequence[int], interleaved: int = 1) -> tf.data.Dataset:
        """(position, serialized example) of the images, from the shards in `order`, `interleaved` of them at a time."""
        tf = _tensorflow()
        starts = np.cumsum([0, *self.counts])
        wanted = np.zeros(starts[-1], bool)
        wanted[self.index] = True
        used = [shard for shard in order if wanted[starts[shard] : starts[shard + 1]].any()]
        files, offsets = [self.files[shard] for shard in used], starts[np.array(used, int)]
        data = tf.data.Dataset.from_tensor_slices((files, offsets)).interleave(
            lambda file, offset: tf.data.TFRecordDataset(file, "GZIP", READ_AHEAD).enumerate(offset),
            cycle_length=interleaved,
            block_length=16,
            num_parallel_calls=min(interleaved, DECODERS),
        )
        if not all(wanted[starts[shard] : starts[shard + 1]].all() for shard in used):
            kept = tf.constant(wanted)
            data = data.filter(lambda position, _: kept[position])
        return data if interleaved > 1 else data.take(len(self.index))  # no record behind the last one is read

    def decoded(self, records: tf.data.Dataset, size: int, use: Any) -> Iterator[Any]:
        """Yield `use(positions, images)` of `size` records after the other; (position, example) become pixels."""
        tf = _tensorflow()

        def read(position: tf.Tensor, example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            content = tf.io.parse_single_example(example, {"image": tf.io.FixedLenFeature([], tf.string)})["image"]
            return position, pixels(content, self.size, (*self.side, 3))

        data = records.map(read, num_parallel_calls=DECODERS).batch(size).prefetch(2)
        for ids, images in _own_threads(data).as_numpy_iterator():
            yield use(ids, images)


def pixels(content: tf.Tensor, size: int | None, shape: Sequence[int]) -> tf.Tensor:
    """Decode a PNG or JPEG file, a scalar string, to uint8 `shape`; with `size`, resized to size x size.

    JPEG is decoded with the exact cosine transform, as Pillow does; resizing is bilinear over all the pixels that a
    new one covers.
    """
    import tensorflow as tf

    jpeg = tf.io.is_jpeg(content)
    image = tf.cond(
        jpeg,
        lambda: tf.io.decode_jpeg(content, 3, dct_method="INTEGER_ACCURATE"),
        lambda: tf.io.decode_png(content, 3),
    )
    if size is not None:
        resized = tf.image.resize(image, (size, size), antialias=True)
        image = tf.cast(tf.clip_by_value(tf.round(resized), 0, 255), tf.uint8)
    return tf.ensure_shape(image, shape)


def read_labels(files: Sequence[Path]) -> np.ndarray:
    """The labels of all records of the shards, int64 (N,). Raises UserError where a shard is broken."""
    tf = _tensorflow()
    labels = []
    for file in files:
        data = tf.data.TFRecordDataset(str(file), "GZIP", READ_AHEAD).batch(CHUNK)
        data = data.map(lambda x: tf.io.parse_example(x, {"label": tf.io.FixedLenFeature([], tf.int64)})["label"])
        try:
            labels += list(_own_threads(data).as_numpy_iterator())
        except tf.errors.OpError as error:
            raise UserError(f"{file}: not a whole shard of `mtl convert`: {one_line(error)[:200]}") from None
    return np.concatenate(labels) if labels else np.empty(0, np.int64)


def _own_threads(data: tf.data.Dataset) -> tf.data.Dataset:
    """`data` with threads of its own: one that the training's threads wait for must not wait for them."""
    options = _tensorflow().data.Options()
    options.threading.private_threadpool_size = DECODERS
    options.deterministic = True
    return data.with_options(options)


def read_manifest() -> tuple[Manifest, Place]:
    """The manifest in data/raw and where its shards are."""
    manifest = parse(store.read_json(store.RAW / MANIFEST), str(store.RAW / MANIFEST))
    return manifest, Place(**store.read_json(store.RAW / store.SHARDS))


def read_images(split: store.Split) -> Images:
    """The images of data/raw: of `train` those of the split validation come behind those of train.

    Raises UserError where a shard is missing or has another size than the manifest says.
    """
    manifest, place = read_manifest()
    path = resolve(place.path)
    names = ("train", "validation") if split == "train" else (split,)
    shards = [shard for name in names if name in manifest.splits for shard in manifest.splits[name].shards]
    counts = tuple(shard.records for shard in shards)
    return Images(
        files=tuple(str(local(path, shard)) for shard in shards),
        counts=counts,
        index=np.arange(sum(counts)),
        side=store.read_dataset().shape[:2],
        size=place.size,
        sha256=tuple(shard.sha256 for shard in shards),
        cache=place.cache,
        mean_bytes=max(1.0, sum(shard.bytes for shard in shards) / max(1, sum(counts))),
    )


def resolve(path: str) -> str:
    """Where `data.path` is: under `dvc exp run --temp` what git does not track is in `$DVC_ROOT` alone."""
    root = os.environ.get("DVC_ROOT")
    if is_remote(path) or not root or Path(path, MANIFEST).exists():
        return path
    return str(Path(root, path))


def _tensorflow() -> ModuleType:
    """TensorFlow, imported where it is needed: it takes seconds."""
    if "tensorflow" not in sys.modules:
        import_tensorflow()
    return sys.modules["tensorflow"]
