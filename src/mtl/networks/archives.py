"""Checks of a file that should be a Keras archive, before Keras reads it: of sizes; nothing in it is run."""

from __future__ import annotations

import json
import math
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from mtl.errors import one_line

MEMBERS = ("config.json", "metadata.json", "model.weights.h5")
FREE = 2**28  # bytes that need no reason
EXPANSION = 20  # more than that, Keras does not compress anything, and weights are no text
CONFIG_BYTES = 2**26
QUOTED = 300  # characters of what Keras says


class Unfit(Exception):
    """Why a file is no Keras archive that can be read here; one line."""


def inspect(path: Path) -> None:
    """Raise Unfit where a file is no Keras archive, is damaged, or wants more memory than there can be a reason for."""
    if path.is_dir():
        raise Unfit("it is a folder")
    with path.open("rb") as file:
        start = file.read(64)
    if not zipfile.is_zipfile(path):
        raise Unfit(_kind(start))
    try:
        with zipfile.ZipFile(path) as archive:
            _check_sizes(archive, path.stat().st_size)
            if broken := archive.testzip():
                raise Unfit(f"its {broken} is not what was written (checksum); it is damaged")
            config = archive.read("config.json")
            weights = archive.getinfo("model.weights.h5").file_size
    except Unfit:
        raise
    except Exception as error:  # zipfile, zlib and struct raise their own, for every way to be broken
        raise Unfit(f"a damaged zip archive ({one_line(error)[:QUOTED]})") from None
    if (wanted := _weights_wanted(config)) > max(FREE, EXPANSION * weights):
        raise Unfit(f"its layers want {_size(wanted)} of weights and it holds {_size(weights)}")


def _kind(start: bytes) -> str:
    """Describe a file that is no zip archive by its first bytes."""
    if not start:
        return "it is empty"
    if start.startswith(b"\x89HDF"):
        return "it is HDF5, as Keras 2 wrote; name it .h5, load it with keras.saving.load_model, and save it as .keras"
    if start.startswith(b"PK"):
        return "a zip archive that is cut off"
    line = start.decode(errors="replace").split("\n")[0].strip()
    return f"it is text that begins {line[:40]!r}" if line.isprintable() and "\ufffd" not in line else "no zip archive"


def _check_sizes(archive: zipfile.ZipFile, stored: int) -> None:
    """Compare what the archive's directory says of each member, before one of them is read."""
    sizes = {member.filename: member.file_size for member in archive.infolist()}
    if missing := [name for name in MEMBERS if name not in sizes]:
        raise Unfit(f"a zip archive without {', '.join(missing)}")
    if (unpacked := sum(sizes.values())) > max(FREE, EXPANSION * stored):
        raise Unfit(f"it unpacks from {_size(stored)} to {_size(unpacked)}, which no model does")
    if (most := max(sizes["config.json"], sizes["metadata.json"])) > CONFIG_BYTES:
        raise Unfit(f"its config.json or metadata.json has {_size(most)}, which no network needs")


def _weights_wanted(config: bytes) -> int:
    """Bytes of weights that the layers of a configuration ask for; 0 where Keras cannot tell, which it says later."""
    # Keras' state is that of a thread: names of layers go on counting in ours as if nothing had been built.
    with ThreadPoolExecutor(1) as thread:
        try:
            return thread.submit(_build_without_weights, config).result()
        except Exception:  # whatever is wrong with it, loading it says it
            return 0


def _build_without_weights(config: bytes) -> int:
    import keras

    with keras.StatelessScope(initialize_variables=False):
        model = keras.saving.deserialize_keras_object({**json.loads(config), "compile_config": None}, safe_mode=True)
    bits = {name: int(re.sub(r"\D", "", name) or 32) for name in {weight.dtype for weight in model.weights}}
    return sum(math.prod(weight.shape) * bits[weight.dtype] // 8 for weight in model.weights)


def cause(error: Exception) -> str:
    """The reason why Keras refused an archive, in one short line without the configuration that it quotes."""
    if isinstance(error, RecursionError):
        return "its config.json is nested too deeply"
    if isinstance(error, MemoryError) or type(error).__name__ == "ResourceExhaustedError":
        return "its weights do not fit into memory"
    message = one_line(error)
    if unknown := re.search(r"Could not locate (\w+) '([^']*)'", message):
        name = f"{unknown[1]} {unknown[2]!r}"
        return f"the {name} is not known here; import the module that registers it (register_keras_serializable) before"
    message = message.rpartition("Exception encountered: ")[2]
    return re.split(r"\s*(?:Full object )?config[:=] ?\{", message)[0][:QUOTED]


def versions(path: Path) -> str:
    """The versions of the Keras that wrote an archive and of the one here."""
    import keras

    try:
        with zipfile.ZipFile(path) as archive:
            by = f"Keras {json.loads(archive.read('metadata.json'))['keras_version']}"[:20]
    except Exception:  # it is written by anybody
        by = "an unknown Keras"
    return f"written by {by}, here is {keras.__version__}"


def _size(count: int) -> str:
    """`4.7 MB`."""
    exponent = min(max(int(math.log10(max(count, 1)) // 3), 1), 5)
    return f"{count / 1000**exponent:.1f} {'kMGTP'[exponent - 1]}B"
