"""Make a large data set of small images: MNIST's own, shifted by up to two pixels.

    python -m bench.shifted IMAGES FOLDER [ARCHIVES]

The images go into FOLDER as stored zip archives; ARCHIVES is their number, 1 by default. The last
2,000 images are those for testing. The same arguments make the same images.
"""

import argparse
import zipfile
from pathlib import Path

import cv2
import numpy as np

from bench.commands import ARCHIVE
from common.console import run
from common.decoding import decode

TEST_IMAGES = 2000
MAX_SHIFT = 2  # pixels
SEED = 42
SIZE = 28  # pixels, height and width
DATE = (1980, 1, 1, 0, 0, 0)  # of every member of an archive, so that the same bytes come out


def read_originals(split: str) -> tuple[np.ndarray, list[str]]:
    """Return MNIST's images of a split, uint8 (N, 28, 28), and the class of each."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [name for name in archive.namelist() if name.startswith(f"mnist-jpg/{split}/")]
        images = np.empty((len(names), SIZE, SIZE), np.uint8)
        for index, name in enumerate(names):
            images[index] = decode(archive.read(name), SIZE).pixels[:, :, 0]
    return images, [name.split("/")[2] for name in names]


def write_shifted(count: int, folder: Path, archives: int) -> None:
    """Write images, each of them one of MNIST at random, shifted at random.

    Parameters
    ----------
    count : int
        Number of images.
    folder : Path
        Where to write; it is made.
    archives : int
        Number of archives that they are spread over.
    """
    folder.mkdir(parents=True, exist_ok=True)
    padding = ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
    padded_images, classes = {}, {}
    for split in ("train", "test"):
        images, classes[split] = read_originals(split)
        padded_images[split] = np.pad(images, padding)
    rng = np.random.default_rng(SEED)
    bounds = np.linspace(0, count, archives + 1, dtype=int)
    for number in range(archives):
        with zipfile.ZipFile(folder / f"shifted-{number:03}.zip", "w") as archive:
            for index in range(bounds[number], bounds[number + 1]):
                split = "train" if index < count - TEST_IMAGES else "test"
                original = rng.integers(len(padded_images[split]))
                y, x = rng.integers(2 * MAX_SHIFT + 1, size=2)
                image = padded_images[split][original, y : y + SIZE, x : x + SIZE]
                _, jpeg = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])
                name = f"{split}/{classes[split][original]}/{index:09}.jpg"
                archive.writestr(zipfile.ZipInfo(name, DATE), jpeg.tobytes())


def main() -> None:
    """Write the archives."""
    parser = argparse.ArgumentParser(prog="bench.shifted", description=__doc__.splitlines()[0])
    parser.add_argument("images", metavar="IMAGES", type=int)
    parser.add_argument("folder", metavar="FOLDER", type=Path)
    parser.add_argument("archives", metavar="ARCHIVES", type=int, nargs="?", default=1)
    arguments = parser.parse_args()
    write_shifted(arguments.images, arguments.folder, arguments.archives)


if __name__ == "__main__":
    run("shifted", main)
