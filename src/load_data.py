"""Load the images into data/raw: `python src/load_data.py`."""

import numpy as np

from mtl import errors, params, sources, store, tracking
from mtl.sources.split import hold_out


def main() -> None:
    """Stage `load_data`."""
    settings = params.read()
    with tracking.stage_run("load_data", settings) as run:
        images = sources.load(settings.data, settings.seed)
        validation = hold_out(images.y_train, settings.data.validation, settings.seed)
        dataset = store.Dataset(
            name=images.name,
            source=settings.data.source,
            official=images.official,
            classes=images.classes,
            encoding=images.encoding,
            train=len(images.x_train) - len(validation),
            validation=len(validation),
            test=len(images.x_test),
            shape=images.x_train.shape[1:],
        )
        arrays: dict[str, np.ndarray] = {
            "x_train": images.x_train,
            "y_train": images.y_train,
            "x_test": images.x_test,
            "y_test": images.y_test,
            "validation": validation,
        }
        store.write_raw(dataset, arrays)
        run.log_dataset(dataset)
        print(f"{dataset.name}: {dataset.train} + {dataset.validation} + {dataset.test} images of {dataset.shape}")


if __name__ == "__main__":
    errors.run(main)
