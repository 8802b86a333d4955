"""Images drawn by code: the same everywhere, balanced, and neither trivial nor noise."""

from __future__ import annotations

import hashlib
from types import SimpleNamespace

import numpy as np
import pytest
from images import CIFAR10, as_arrays

from mtl import sources
from mtl.config.params import Data
from mtl.errors import UserError


def load(seed: int = 0, size: int | None = None) -> SimpleNamespace:
    return as_arrays(sources.load(Data(source="generated", path="nowhere", size=size, validation=0), seed))


@pytest.fixture(scope="module")
def images() -> SimpleNamespace:
    return load()


def test_what_is_drawn(images: SimpleNamespace) -> None:
    assert (images.name, images.encoding, images.official) == ("generated images", "drawn", False)
    assert images.classes == CIFAR10
    assert images.x_train.shape == (15000, 32, 32, 3) and images.x_test.shape == (2000, 32, 32, 3)
    assert images.x_train.dtype == images.y_train.dtype == images.x_test.dtype == images.y_test.dtype == np.uint8
    assert images.y_train.shape == (15000, 1) and images.y_test.shape == (2000, 1)
    assert np.bincount(images.y_train[:, 0]).tolist() == [1500] * 10
    assert np.bincount(images.y_test[:, 0]).tolist() == [200] * 10


def test_the_bytes_are_those_of_the_seed(images: SimpleNamespace) -> None:
    """Written down from one machine: another one, or another NumPy, that draws otherwise is noticed here."""
    digest = hashlib.sha256(images.x_train.tobytes() + images.x_test.tobytes()).hexdigest()
    assert digest == "79a91885638b32131daec541dc96a137d8de4a8f27ad6a1e4d4b78ab6b3ac90e"
    assert not np.array_equal(load(seed=1).x_test, images.x_test)


def test_no_image_is_in_both_splits(images: SimpleNamespace) -> None:
    train, test = ({image.tobytes() for image in x} for x in (images.x_train, images.x_test))
    assert len(train) == 15000 and len(test) == 2000 and train.isdisjoint(test)


def test_pixels_alone_do_not_tell_the_class(images: SimpleNamespace) -> None:
    """The nearest mean of a class is a linear model: above chance would be colour or place, not shape."""
    x, test = (array.reshape(len(array), -1).astype(np.float32) for array in (images.x_train, images.x_test))
    means = np.stack([x[images.y_train[:, 0] == label].mean(0) for label in range(10)])
    answers = (test @ means.T - (means**2).sum(1) / 2).argmax(1)
    assert (answers == images.y_test[:, 0]).mean() < 0.3


def test_another_size(images: SimpleNamespace) -> None:
    assert load(size=8).x_train.shape == (15000, 8, 8, 3)
    with pytest.raises(UserError, match=r"data\.size: 300; .* up to 256"):
        load(size=300)
