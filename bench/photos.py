"""Read photos: this project against Keras's `image_dataset_from_directory`.

    python -m bench.photos make FOLDER
    python -m bench.photos ours FOLDER COLOR_MODE
    python -m bench.photos keras FOLDER COLOR_MODE

The last line that the last two print holds the figures, as JSON.
"""

import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bench.named import print_figures

PHOTOS = 2000
SIZE = (375, 500)  # height and width of a photo, in pixels
IMAGE_SIZE = 64  # wanted


def make(folder: str) -> dict[str, float]:
    """Write photos into two class folders: cuts at random of the two that scikit-learn brings."""
    from PIL import Image
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for class_name, photo in zip(("temple", "flower"), load_sample_images().images, strict=True):
        path = Path(folder, class_name)
        path.mkdir(parents=True)
        for number in range(PHOTOS // 2):
            top, left = rng.integers(0, np.subtract(photo.shape[:2], SIZE))
            cut = photo[top : top + SIZE[0], left : left + SIZE[1]]
            Image.fromarray(cut).save(path / f"{number}.jpg", quality=90)
    return {"images": PHOTOS}


def ours(folder: str, color_mode: str) -> dict[str, float]:
    """Find and decode all photos, as `load` does."""
    from common.datasets import open_dataset
    from common.decoding_pool import decode_in_processes
    from common.selection import ALL, find_images

    start = time.perf_counter()
    dataset = open_dataset(Path(folder))
    _, groups = find_images(dataset, None)
    indices = np.random.default_rng(0).permutation(groups[ALL])
    blocks = decode_in_processes(dataset, indices, IMAGE_SIZE, color_mode, "decode")
    images = sum(len(block.images) for block in blocks)
    return {"images_per_second": images / (time.perf_counter() - start)}


def keras(folder: str, color_mode: str) -> dict[str, float]:
    """Read all photos with `keras.utils.image_dataset_from_directory`."""
    from keras.utils import image_dataset_from_directory

    start = time.perf_counter()
    dataset = image_dataset_from_directory(
        folder,
        color_mode=color_mode,
        image_size=(IMAGE_SIZE, IMAGE_SIZE),
        batch_size=100,
        verbose=False,
    )
    images = sum(len(batch) for batch, _ in dataset)
    return {"images_per_second": images / (time.perf_counter() - start)}


NAMES: dict[str, Callable[..., dict[str, float]]] = {"make": make, "ours": ours, "keras": keras}

if __name__ == "__main__":
    print_figures(NAMES)
