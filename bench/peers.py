"""The other side of each comparison, in the plain way of its own documentation.

    python -m bench.peers NAME [ARGUMENT ...]

NAME is a function of this file. The last line that it prints holds the figures, as JSON.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.named import print_figures

DIGITS = [str(digit) for digit in range(10)]


def flow(folder: str) -> dict[str, float]:
    """Read all images with `ImageDataGenerator.flow_from_directory`, as the notebook does."""
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    start = time.perf_counter()
    count = 0
    for split in ("train", "test"):
        images, _ = next(
            ImageDataGenerator(rescale=1.0 / 255).flow_from_directory(
                Path(folder, split),
                target_size=(28, 28),
                batch_size=60_000,
                class_mode="categorical",
                color_mode="grayscale",
                classes=DIGITS,
            )
        )
        count += len(images)
    return {"images_per_second": count / (time.perf_counter() - start)}


def arrays(folder: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return a prepared split as float32 images in [0, 1] and one-hot labels."""
    images = np.load(Path(folder, split, "images.npy")).astype(np.float32) / 255
    return images, np.eye(10, dtype=np.float32)[np.load(Path(folder, split, "labels.npy"))]


def keras_fit(folder: str, batch_size: str, precision: str) -> dict[str, float]:
    """Train the notebook's network with `fit` on arrays in memory; the first epoch warms up."""
    import keras

    keras.config.set_dtype_policy(precision)
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, (3, 3), activation="relu"),
            keras.layers.MaxPooling2D((2, 2)),
            keras.layers.Conv2D(64, (3, 3), activation="relu"),
            keras.layers.MaxPooling2D((2, 2)),
            keras.layers.Flatten(),
            keras.layers.Dense(128, activation="relu"),
            keras.layers.Dense(10, activation="softmax", dtype="float32"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    x, y = arrays(folder, "train")
    model.fit(x, y, batch_size=int(batch_size), epochs=1, verbose=0)
    start = time.perf_counter()
    model.fit(x, y, batch_size=int(batch_size), epochs=2, verbose=0)
    return {"images_per_second": 2 * len(x) / (time.perf_counter() - start)}


def torch_eager(folder: str, batch_size: str, precision: str) -> dict[str, float]:
    """Train the notebook's network with PyTorch, eager, channels last; one epoch warms up."""
    import torch
    from torch import nn

    model = nn.Sequential(
        nn.Conv2d(1, 32, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(32, 64, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(1600, 128),
        nn.ReLU(),
        nn.Linear(128, 10),
    ).to(memory_format=torch.channels_last)
    optimizer, loss = torch.optim.Adam(model.parameters()), nn.CrossEntropyLoss()
    images, one_hot = arrays(folder, "train")
    x = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last)
    y = torch.from_numpy(one_hot.argmax(axis=1))

    def epoch() -> None:
        for indices in torch.randperm(len(x)).split(int(batch_size)):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.bfloat16, enabled=precision != "float32"):
                value = loss(model(x[indices]), y[indices])
            value.backward()
            optimizer.step()

    epoch()
    start = time.perf_counter()
    epoch()
    epoch()
    return {"images_per_second": 2 * len(x) / (time.perf_counter() - start)}


def keras_recipe(folder: str, seed: str, epochs: str) -> dict[str, float]:
    """Train as https://keras.io/examples/vision/mnist_convnet/ does, on all 60,000 images."""
    import keras

    keras.utils.set_random_seed(int(seed))
    x, y = arrays(folder, "train")
    x_validation, y_validation = arrays(folder, "validation")
    x, y = np.concatenate([x, x_validation]), np.concatenate([y, y_validation])
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            keras.layers.Conv2D(32, kernel_size=(3, 3), activation="relu"),
            keras.layers.MaxPooling2D(pool_size=(2, 2)),
            keras.layers.Conv2D(64, kernel_size=(3, 3), activation="relu"),
            keras.layers.MaxPooling2D(pool_size=(2, 2)),
            keras.layers.Flatten(),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    start = time.perf_counter()
    model.fit(x, y, batch_size=128, epochs=int(epochs), validation_split=0.1, verbose=0)
    seconds = time.perf_counter() - start
    return {
        "seconds": seconds,
        "test_accuracy": model.evaluate(*arrays(folder, "test"), verbose=0)[1],
    }


def notebook_memory(folder: str) -> dict[str, float]:
    """Hold all 70,000 images and train one epoch, as the notebook would."""
    import tensorflow as tf
    from tensorflow.keras import layers, models
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    def images(split: str) -> tuple[np.ndarray, np.ndarray]:
        return next(
            ImageDataGenerator(rescale=1.0 / 255).flow_from_directory(
                Path(folder, split),
                target_size=(28, 28),
                batch_size=60_000,
                class_mode="categorical",
                color_mode="grayscale",
                classes=DIGITS,
            )
        )

    x_train, y_train = images("train")
    x_test, y_test = images("test")
    model = models.Sequential(
        [
            tf.keras.Input((28, 28, 1)),
            layers.Conv2D(32, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Conv2D(64, (3, 3), activation="relu"),
            layers.MaxPooling2D((2, 2)),
            layers.Flatten(),
            layers.Dense(128, activation="relu"),
            layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile(optimizer="adam", loss="categorical_crossentropy", metrics=["accuracy"])
    model.fit(x_train, y_train, epochs=1, validation_data=(x_test, y_test), verbose=0)
    return {}


PEERS: dict[str, Callable[..., dict[str, float]]] = {
    function.__name__: function
    for function in (flow, keras_fit, torch_eager, keras_recipe, notebook_memory)
}

if __name__ == "__main__":
    print_figures(PEERS)
