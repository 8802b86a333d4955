"""Images drawn by code: the same everywhere, balanced, and neither trivial nor noise."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from images import CIFAR10, classes, labels

from mtl import sources
from mtl.config.params import Data
from mtl.errors import UserError
from mtl.sources.loaded import Loaded


def load(seed: int = 0, size: int | None = None) -> Loaded:
    return sources.load(Data(source="generated", path="nowhere", size=size, validation=0), seed)


@pytest.fixture(scope="module")
def images() -> Loaded:
    return load()


def test_what_is_drawn(images: Loaded) -> None:
    assert (images.name, images.encoding, images.official) == ("generated images", "drawn", {})
    assert classes(images) == CIFAR10
    assert images.images["train"].shape == (15000, 32, 32, 3) and images.images["test"].shape == (2000, 32, 32, 3)
    assert images.images["train"].dtype == images.images["test"].dtype == np.uint8
    assert labels(images, "train").shape == (15000,) and labels(images, "test").shape == (2000,)
    assert np.bincount(labels(images, "train")).tolist() == [1500] * 10
    assert np.bincount(labels(images, "test")).tolist() == [200] * 10


def test_the_bytes_are_those_of_the_seed(images: Loaded) -> None:
    """Written down from one machine: another one, or another NumPy, that draws otherwise is noticed here."""
    digest = hashlib.sha256(images.images["train"].tobytes() + images.images["test"].tobytes()).hexdigest()
    assert digest == "79a91885638b32131daec541dc96a137d8de4a8f27ad6a1e4d4b78ab6b3ac90e"
    assert not np.array_equal(load(seed=1).images["test"], images.images["test"])


def test_no_image_is_in_both_splits(images: Loaded) -> None:
    train, test = ({image.tobytes() for image in x} for x in (images.images["train"], images.images["test"]))
    assert len(train) == 15000 and len(test) == 2000 and train.isdisjoint(test)


def test_pixels_alone_do_not_tell_the_class(images: Loaded) -> None:
    """The nearest mean of a class is a linear model: above chance would be colour or place, not shape."""
    x, test = (
        array.reshape(len(array), -1).astype(np.float32) for array in (images.images["train"], images.images["test"])
    )
    means = np.stack([x[labels(images, "train") == label].mean(0) for label in range(10)])
    answers = (test @ means.T - (means**2).sum(1) / 2).argmax(1)
    assert (answers == labels(images, "test")).mean() < 0.3


def test_another_size(images: Loaded) -> None:
    assert load(size=8).images["train"].shape == (15000, 8, 8, 3)
    with pytest.raises(UserError, match=r"data\.size: 300; .* up to 256"):
        load(size=300)
