"""The plain Keras script that people write: `plain_keras.py TABLE COLUMN SIZE WIDTHS EPOCHS SEED OUT.npy [value|log]`.

A contender of bench/tables.py and bench/kinds.py, apart from this project's code: one network of as many parameters as
`compact`, Adam as it is, no augmentation, no schedule, for as many epochs. Writes the probabilities for the test
images; with `value` the numbers, learned standardised, and with `log` those whose logarithm is learned.
"""

import csv
import os
import sys
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
import keras
import numpy as np
from keras import layers
from PIL import Image

table, column, size, widths, epochs, seed, answers, *kind = sys.argv[1:]
keras.utils.set_random_seed(int(seed))
keras.config.set_dtype_policy("mixed_bfloat16")  # as `compact`, so that both take the same time

with Path(table).open(newline="", encoding="utf-8") as file:
    rows = [row for row in csv.DictReader(file) if row[column]]


def load(split: str) -> tuple[np.ndarray, list[str]]:
    """Images, uint8 (N, size, size, 3), and values of the rows of a split."""
    part = [row for row in rows if row["split"] == split]
    paths = [Path(table).parent / row["image"] for row in part]
    images = [np.asarray(Image.open(path).convert("RGB").resize((int(size), int(size)))) for path in paths]
    return np.stack(images), [row[column] for row in part]


x_train, train_values = load("train")
x_validation, validation_values = load("validation")
x_test, _ = load("test")
if kind:
    into, back = (np.log, np.exp) if kind == ["log"] else (np.asarray, np.asarray)
    y_train, y_validation = (into(np.array(values, float)) for values in (train_values, validation_values))
    mean, deviation = y_train.mean(), y_train.std()
    y_train, y_validation = (y_train - mean) / deviation, (y_validation - mean) / deviation
    head, loss = layers.Dense(1, dtype="float32"), "mse"
else:
    classes = sorted(set(train_values))
    y_train = np.array([classes.index(value) for value in train_values])
    y_validation = np.array([classes.index(value) for value in validation_values])
    head = layers.Dense(len(classes), activation="softmax", dtype="float32")
    loss = "sparse_categorical_crossentropy"

model = keras.Sequential([keras.Input((int(size), int(size), 3)), layers.Rescaling(1 / 255)])
for width in map(int, widths.split(",")):
    for pool in (True, False):  # where `compact` pools, so that both cost the same
        model.add(layers.Conv2D(width, 3, padding="same", use_bias=False))
        model.add(layers.BatchNormalization())
        model.add(layers.ReLU())
        if pool:
            model.add(layers.MaxPooling2D())
model.add(layers.GlobalAveragePooling2D())
model.add(head)
model.compile("adam", loss)
model.fit(x_train, y_train, batch_size=64, epochs=int(epochs), validation_data=(x_validation, y_validation), verbose=0)
predicted = model.predict(x_test, verbose=0)
np.save(answers, back(predicted * deviation + mean) if kind else predicted)
print(model.count_params())
