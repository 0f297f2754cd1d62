"""Keep Fashion-MNIST as JPEG files in one archive, as `fetch` keeps MNIST: `make fashion`.

Reads   /usr/share/datasets/fashion-mnist, which Debian's package dataset-fashion-mnist installs
Writes  data/fashion-mnist-jpg.zip: an archive of the same form as data/mnist-jpg.zip. The ten
        classes of clothing [1]_ are named "0" to "9", as in the original files.

References
----------
.. [1] H. Xiao, K. Rasul and R. Vollgraf, "Fashion-MNIST: a novel image dataset for benchmarking
   machine learning algorithms", arXiv:1708.07747, 2017.
"""

import gzip
import hashlib
import zlib
from pathlib import Path

from common.console import InputError, run
from data.fetch import write_archive

SOURCE = Path("/usr/share/datasets/fashion-mnist")
ARCHIVE = Path("data/fashion-mnist-jpg.zip")
SHA256 = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}


def read_original(name: str) -> bytes:
    """Return one of the four original files, uncompressed.

    Raises
    ------
    InputError
        If it is not there, is damaged, or is not the original.
    """
    path = SOURCE / f"{name}.gz"
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError:
        raise InputError(
            f"{path} does not exist; `apt-get install dataset-fashion-mnist` brings it"
        ) from None
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path} cannot be read: {error}") from None
    actual = hashlib.sha256(content).hexdigest()
    if actual != SHA256[name]:
        raise InputError(f"{path}: its SHA-256 is {actual}, that of the original {SHA256[name]}")
    return content


def main() -> None:
    """Write the archive."""
    files = {name: read_original(name) for name in SHA256}
    write_archive(files, ARCHIVE, "fashion")


if __name__ == "__main__":
    run("fashion", main)
