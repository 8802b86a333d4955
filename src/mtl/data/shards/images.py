"""Images in shards, which are read like an array."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np

from mtl.data.backend import import_tensorflow
from mtl.data.shards.manifest import check_content
from mtl.errors import UserError, describe_os_error, one_line

if TYPE_CHECKING:
    import pyarrow as pa
    import tensorflow as tf

    from mtl.config.params import ColumnType

DECODERS = 2  # threads that decode beside the training; their number does not change what is read
READ_AHEAD = 1 << 18  # bytes of a shard
CHUNK = 256  # images in a batch
ENDED = "fewer records than the manifest counts"


@dataclass(frozen=True)
class ShardedImages:
    """Images in shards that look like an array, uint8 (N, H, W, 3), but are read and decoded when they are needed.

    `images[i]` reads one image. A slice or an array of indices selects images without reading them. `np.asarray` reads
    all into memory, `batches` a few at a time. `index` holds their positions among the records of all shards.
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
        """Shape of the array, (N, H, W, 3)."""
        return (len(self.index), *self.side, 3)

    @property
    def fits(self) -> bool:
        """True if the decoded images may be held in memory."""
        return int(np.prod(self.shape, dtype=np.int64)) <= self.cache << 20

    def __len__(self) -> int:
        return len(self.index)

    def __getitem__(self, key: int | slice | np.ndarray) -> ShardedImages | np.ndarray:
        if isinstance(key, int | np.integer):
            return np.asarray(self[np.array([range(len(self))[key]])])[0]
        return replace(self, index=self.index[key])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        array = np.empty(self.shape, np.uint8)
        unique, inverse = np.unique(self.index, return_inverse=True)
        rows = np.argsort(inverse, kind="stable")  # of the array, in the order of the records
        ends = np.cumsum(np.bincount(inverse, minlength=len(unique)))
        start = 0
        for batch in replace(self, index=unique).batches(CHUNK):
            for image in batch:
                array[rows[ends[start - 1] if start else 0 : ends[start]]] = image
                start += 1
        return array if dtype is None else array.astype(dtype)

    def __iter__(self) -> Iterator[np.ndarray]:
        for batch in self.batches(CHUNK):
            yield from batch

    def batches(self, size: int) -> Iterator[np.ndarray]:
        """Yield the images in order, uint8 (size, H, W, 3), the last batch smaller, few of them in memory at a time."""
        if len(self.index) > 1 and not (np.diff(self.index) > 0).all():
            array = np.asarray(self)
            yield from (array[start : start + size] for start in range(0, len(array), size))
        elif len(self.index):
            count = 0
            for images in self.decoded(self.records(range(len(self.files))), size, lambda ids, images: images):
                yield images
                count += len(images)
            if count < len(self.index):
                raise self.broken(ENDED)

    def records(self, order: Sequence[int], interleaved: int = 1) -> tf.data.Dataset:
        """Read (position, serialized example) of the images, from the shards in `order`, `interleaved` at a time."""
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
            mask = tf.constant(wanted)
            data = data.filter(lambda position, _: mask[position])
        return data if interleaved > 1 else data.take(len(self.index))  # stop reading behind the last one

    def decoded(self, records: tf.data.Dataset, size: int, use: Any) -> Iterator[Any]:
        """Decode `records`, (position, serialized example), and yield `use(positions, images)` of `size` at a time."""
        tf = _tensorflow()
        data = records.map(self._decode, num_parallel_calls=DECODERS).batch(size).prefetch(2)
        batches = _own_threads(data).as_numpy_iterator()
        while True:
            try:
                ids, images = next(batches)
            except StopIteration:
                return
            except tf.errors.OpError as error:
                raise self.broken(one_line(error)[:200]) from None
            yield use(ids, images)

    def _decode(self, position: tf.Tensor, example: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        import tensorflow as tf

        content = tf.io.parse_single_example(example, {"image": tf.io.FixedLenFeature([], tf.string)})["image"]
        return position, _decode_pixels(content, self.size, (*self.side, 3))

    def broken(self, reason: str) -> UserError:
        """Return the error for shards that cannot be read, which names the first that differs from the manifest."""
        for file, digest in zip(self.files, self.sha256, strict=True):
            try:
                check_content(Path(file), digest, file)
            except UserError as error:
                return error
            except OSError as error:
                return UserError(f"{describe_os_error(error)}; give access to it")
        return UserError(f"{Path(self.files[0]).parent}: its shards are whole but cannot be read: {reason}")


def _decode_pixels(content: tf.Tensor, size: int | None, shape: Sequence[int]) -> tf.Tensor:
    """Decode a PNG or JPEG file, a scalar string, to uint8 `shape`; with `size`, resized to size x size.

    JPEG is decoded with the exact cosine transform, as Pillow does. Resizing is bilinear over all the pixels that a new
    one covers.
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


def read_columns(files: Sequence[Path], types: Mapping[str, ColumnType]) -> pa.Table:
    """Read the columns of all records of the shards, a row per record, without the images.

    Raises UserError where a shard is broken or has features of other types.
    """
    import pyarrow as pa

    tf = _tensorflow()
    kinds = {name: tf.int64 if kind in ("integer", "boolean") else tf.string for name, kind in types.items()}
    features = {name: tf.io.RaggedFeature(kind) for name, kind in kinds.items()}
    batches = []
    for file in files:
        data = tf.data.TFRecordDataset(str(file), "GZIP", READ_AHEAD).batch(CHUNK)
        data = data.map(lambda x: {key: (row.values, row.row_lengths()) for key, row in _parse(x, features).items()})
        try:
            batches += list(_own_threads(data).as_numpy_iterator())
        except tf.errors.OpError as error:
            raise UserError(f"{file}: not a whole shard of `mtl convert`: {one_line(error)[:200]}") from None
    try:
        return pa.table({name: _column([batch[name] for batch in batches], kind) for name, kind in types.items()})
    except (pa.ArrowInvalid, IndexError) as error:
        raise UserError(f"{files[0].parent}: its records are not of the manifest's types: {one_line(error)}") from None


def _parse(examples: tf.Tensor, features: Mapping[str, Any]) -> Mapping[str, tf.RaggedTensor]:
    import tensorflow as tf

    return tf.io.parse_example(examples, features)


def _column(batches: Sequence[tuple[np.ndarray, np.ndarray]], kind: ColumnType) -> pa.Array:
    """Join (values, number of values of each record) to a column, null where a record has no value."""
    import pyarrow as pa

    arrow = {"text": pa.string(), "integer": pa.int64(), "number": pa.float64(), "boolean": pa.bool_()}[kind]
    if not batches:
        return pa.array([], arrow)
    values, lengths = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    array = pa.array(values, pa.int64() if values.dtype == np.int64 else pa.binary())
    places = pa.array(np.cumsum(lengths) - 1, mask=lengths == 0)
    return (array.cast(pa.string()) if kind == "number" else array).cast(arrow).take(places)


def _own_threads(data: tf.data.Dataset) -> tf.data.Dataset:
    """Give `data` threads of its own, as the training's threads wait for it and it must not wait for them."""
    options = _tensorflow().data.Options()
    options.threading.private_threadpool_size = DECODERS
    options.deterministic = True
    return data.with_options(options)


def _tensorflow() -> ModuleType:
    """Return TensorFlow, imported on first use, as that takes seconds."""
    if "tensorflow" not in sys.modules:
        import_tensorflow()
    return sys.modules["tensorflow"]
