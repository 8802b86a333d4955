"""Make the table of this example: `python examples/clothing/prepare.py clothing-dataset data/external/clothing`.

Reads a clone of https://github.com/alexeygrigorev/clothing-dataset (CC0 1.0) and writes `clothing.csv` and
`images/<id>.jpg`: the central square of each photograph at 96 × 96 pixels. Kinds that the source is not sure of become
gaps. The split is by the sha256 of the image's name: 0.7 train, 0.1 validation, 0.2 test.
"""

import csv
import hashlib
import sys
from pathlib import Path

from PIL import Image, ImageOps

SIZE, QUALITY = 96, 88
UNSURE = {"Not sure", "Other", "Skip"}


def split(image: str) -> str:
    """The split of an image, by the first 32 bits of the sha256 of its path."""
    share = int.from_bytes(hashlib.sha256(image.encode()).digest()[:4]) / 2**32
    return "train" if share < 0.7 else "validation" if share < 0.8 else "test"


def main(source: Path, target: Path) -> None:
    """Write the table and the images; rows without an image, and images without a row, are left out."""
    (target / "images").mkdir(parents=True)
    with (source / "images.csv").open(newline="", encoding="utf-8") as file:
        found = [row for row in csv.DictReader(file) if (source / "images" / f"{row['image']}.jpg").exists()]
    with (target / "clothing.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["image", "split", "label", "kids", "sender"])
        for row in sorted(found, key=lambda row: row["image"]):
            image = f"images/{row['image']}.jpg"
            with Image.open(source / image) as photograph:
                upright = ImageOps.exif_transpose(photograph).convert("RGB")
            square = ImageOps.fit(upright, (SIZE, SIZE), Image.Resampling.LANCZOS)
            square.save(target / image, quality=QUALITY)
            label = "" if row["label"] in UNSURE else row["label"]
            table.writerow([image, split(image), label, row["kids"].lower(), f"s{row['sender_id']}"])


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
