"""Make a large data set of small images: MNIST's own, shifted by up to two pixels.

Usage: python bench/shifted.py IMAGES FOLDER [ARCHIVES]. The images, the last `TEST` of them for
`test/`, go into FOLDER as stored zip archives, one if nothing else is said. The same images
come out every time.
"""

import sys
import zipfile
from pathlib import Path

import cv2
import numpy as np

ARCHIVE = Path(__file__).parent.parent / "data" / "mnist-jpg.zip"
TEST = 2000
MAX_SHIFT = 2  # pixels
SEED = 42
DATE = (1980, 1, 1, 0, 0, 0)


def originals(split: str) -> tuple[np.ndarray, list[str]]:
    """Return MNIST's images of a split, uint8 (N, 28, 28), and the class of each."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        names = [n for n in archive.namelist() if n.startswith(f"mnist-jpg/{split}/")]
        files = (np.frombuffer(archive.read(name), np.uint8) for name in names)
        images = np.stack([cv2.imdecode(file, cv2.IMREAD_GRAYSCALE) for file in files])
    return images, [name.split("/")[2] for name in names]


def main(count: int, folder: Path, archives: int = 1) -> None:
    """Write the archives."""
    folder.mkdir(parents=True, exist_ok=True)
    bounds = np.linspace(0, count, archives + 1, dtype=int)
    sources = {split: originals(split) for split in ("train", "test")}
    margin = ((0, 0), (MAX_SHIFT, MAX_SHIFT), (MAX_SHIFT, MAX_SHIFT))
    padded = {split: np.pad(images, margin) for split, (images, _) in sources.items()}
    chance = np.random.default_rng(SEED)
    for index in range(archives):
        with zipfile.ZipFile(folder / f"shifted-{index:03}.zip", "w") as archive:
            for number in range(bounds[index], bounds[index + 1]):
                split = "train" if number < count - TEST else "test"
                source = chance.integers(len(padded[split]))
                y, x = chance.integers(2 * MAX_SHIFT + 1, size=2)
                image = padded[split][source, y : y + 28, x : x + 28]
                _, file = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 75])
                name = f"{split}/{sources[split][1][source]}/{number:09}.jpg"
                archive.writestr(zipfile.ZipInfo(name, DATE), file.tobytes())


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *map(int, sys.argv[3:]))
