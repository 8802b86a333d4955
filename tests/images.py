"""Small image trees, archives and official batches, made on the spot."""

from __future__ import annotations

import io
import pickle
import struct
import tarfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
from PIL import Image

from mtl.sources.loaded import CLASS, Loaded
from mtl.tasks import columns
from mtl.tasks.columns import Split

CIFAR10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


def pixels(seed: int, height: int = 4, width: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image: np.ndarray | Image.Image, kind: str = "png", **options) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(file, kind, **options)
    return file.getvalue()


def tree(classes: tuple[str, ...] = ("cat", "dog"), train: int = 2, test: int = 1, **options) -> dict[str, bytes]:
    """Files of a small data set by their paths."""
    names = [(s, c, i) for s, n in (("train", train), ("test", test)) for c in classes for i in range(n)]
    kind = options.get("kind", "png")
    return {
        f"{s}/{c}/{i}.{kind}": encoded(pixels(seed, **options.get("shape", {})), kind)
        for seed, (s, c, i) in enumerate(names)
    }


def write_tree(root: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return root


def write_tar(path: Path, files: Mapping[str, bytes | tarfile.TarInfo]) -> Path:
    """A tar of the files in the order given; a TarInfo is written as it is, without content."""
    with tarfile.open(path, "w" if path.suffix == ".tar" else "w:gz") as archive:
        for name, content in files.items():
            if isinstance(content, tarfile.TarInfo):
                archive.addfile(content)
                continue
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


def member(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, target
    return info


def batches(images: np.ndarray, labels: np.ndarray, protocol: int | None = None) -> dict[str, bytes]:
    """Six batches of the official format with as many images each: uint8 (6n, 32, 32, 3).

    Without `protocol` they are pickled as the official ones were, by Python 2.
    """
    names = [*(f"data_batch_{i}" for i in range(1, 6)), "test_batch"]
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), 3072)
    parts = zip(names, np.split(planes, 6), np.split(labels, 6), strict=True)

    def pickled(data: np.ndarray, answers: list[int]) -> bytes:
        if protocol is None:
            return pickled_by_python2(data, answers)
        return pickle.dumps({b"data": data, b"labels": answers}, protocol)

    return {f"cifar-10-batches-py/{name}": pickled(x, y.tolist()) for name, x, y in parts}


def pickled_by_python2(data: np.ndarray, labels: list[int]) -> bytes:
    """What `cPickle.dump({"data": data, "labels": labels}, file, 2)` of Python 2 with NumPy 1 wrote."""

    def text(content: bytes) -> bytes:
        return b"T" + struct.pack("<i", len(content)) + content

    def number(value: int) -> bytes:
        return b"J" + struct.pack("<i", value)

    def row(*items: bytes) -> bytes:
        return b"(" + b"".join(items) + b"t"

    kind = b"cnumpy\ndtype\n" + row(text(b"u1"), number(0), number(1)) + b"R"
    kind += row(number(3), text(b"|"), b"N", b"N", b"N", number(-1), number(-1), number(0)) + b"b"
    array = b"cnumpy.core.multiarray\n_reconstruct\n" + row(b"cnumpy\nndarray\n", row(number(0)), text(b"b")) + b"R"
    array += row(number(1), row(*map(number, data.shape)), kind, b"I00\n", text(data.tobytes())) + b"b"
    answers = b"(" + b"".join(map(number, labels)) + b"l"
    return b"\x80\x02}(" + text(b"data") + array + text(b"labels") + answers + b"u."


def classes(loaded: Loaded) -> tuple[str, ...]:
    """The classes of the training images, in the order of their names."""
    return tuple(columns.distinct(loaded.columns["train"][CLASS]))


def labels(loaded: Loaded, split: Split) -> np.ndarray:
    """The number of each image's class in `classes`, (N,)."""
    names = classes(loaded)
    return np.array([names.index(name) for name in loaded.columns[split][CLASS].to_pylist()])


@contextmanager
def serving(answer: bytes, status: int = 200, length: int | None = None, hold: bool = False) -> Iterator[str]:
    """The address of an HTTP server on this machine that gives `answer` and claims it is `length` bytes long.

    With `hold` it takes the request and says nothing until the end.
    """
    ended = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if hold:
                ended.wait()
            self.send_response(status)
            self.send_header("Content-Length", str(len(answer) if length is None else length))
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            self.wfile.write(answer)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/cifar-10-python.tar.gz"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
