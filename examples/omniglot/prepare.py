"""Make the table of this example: `python examples/omniglot/prepare.py omniglot data/external/omniglot`.

Reads the unpacked `python/images_background_small{1,2}.zip` and `python/strokes_background_small{1,2}.zip` of
https://github.com/brendenlake/omniglot (MIT), all in one folder, and writes `omniglot.csv` and `images/CCCC_DD.png`:
each drawing at 52 × 52 pixels. The split is by the sha256 of the image's name: 0.7 train, 0.1 validation, 0.2 test.
"""

import csv
import hashlib
import sys
from pathlib import Path

from PIL import Image

SIZE = 52


def split(image: str) -> str:
    """The split of an image, by the first 32 bits of the sha256 of its path."""
    share = int.from_bytes(hashlib.sha256(image.encode()).digest()[:4]) / 2**32
    return "train" if share < 0.7 else "validation" if share < 0.8 else "test"


def pen(path: Path) -> tuple[int, float]:
    """The number of strokes in a file of `x,y,milliseconds` lines, and the time of the last point after the first."""
    lines = path.read_text(encoding="ascii").split()
    times = [float(line.rpartition(",")[2]) for line in lines if "," in line]
    return lines.count("BREAK"), times[-1] - times[0]


def main(source: Path, target: Path) -> None:
    """Write the table and the images; drawings that both small sets have are kept once."""
    (target / "images").mkdir(parents=True)
    drawings = {path.name: path for path in sorted(source.glob("images_background_small*/**/*.png"))}
    strokes = {path.stem: path for path in sorted(source.glob("strokes_background_small*/**/*.txt"))}
    with (target / "omniglot.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "split", "alphabet", "character", "drawer", "strokes", "milliseconds"])
        for name, path in sorted(drawings.items()):
            image, alphabet = f"images/{name}", path.parts[-3]
            with Image.open(path) as drawing:
                drawing.convert("L").resize((SIZE, SIZE), Image.Resampling.BOX).save(target / image)
            character, drawer = f"{alphabet}_{path.parts[-2]}", f"d{path.stem.partition('_')[2]}"
            table.writerow([image, split(image), alphabet, character, drawer, *pen(strokes[path.stem])])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
