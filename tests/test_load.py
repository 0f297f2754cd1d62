"""`load`: what is drawn, from where, and what is said when that cannot be."""

import contextlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from multiprocessing import get_start_method
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from common import decoding_pool
from common.console import InputError
from common.datasets import open_dataset
from common.decoding import decode
from common.selection import Counts, choose_images, find_images
from common.splits import read_split, write_split
from stages import load
from tests.helpers import ENVIRONMENT, ROOT, archive_of, contents, write_params

SPLITS = ("train", "validation", "test")
FEW = {"train_images": 100, "validation_images": 50, "test_images": 50}


def archives_of(folder: Path, path: Path, count: int) -> Path:
    """Return a folder of several stored zip archives that hold a folder's files in turn."""
    path.mkdir()
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for index in range(count):
        with zipfile.ZipFile(path / f"{index}.zip", "w") as archive:
            for file in files[index::count]:
                archive.write(file, str(file.relative_to(folder)))
    return path


def test_splits_are_what_was_asked_for(workspace: Path, dataset: Path) -> None:
    load.main()
    splits = {name: read_split(Path("data/prepared", name)) for name in SPLITS}
    assert {name: len(split) for name, split in splits.items()} == {
        "train": 600,
        "validation": 100,
        "test": 100,
    }
    metrics = json.loads(Path("metrics/load.json").read_text())
    assert metrics == {
        "train_images": 600,
        "validation_images": 100,
        "test_images": 100,
        "skipped_images": 0,
        "test_images_seen_in_training": 0,
    }
    for name, split in splits.items():
        assert split.images.shape[1:] == (28, 28, 1)
        assert split.images.dtype == np.uint8
        assert split.labels.dtype == np.int64
        folder = "test" if name == "test" else "train"
        for image, label, path in list(zip(split.images, split.labels, split.names, strict=True))[
            :20
        ]:
            assert path.startswith(f"{folder}/{label}/")
            file = decode((dataset / str(path)).read_bytes(), 28)
            assert (image == file.pixels).all()
    assert not set(splits["train"].names) & set(splits["validation"].names)
    assert Path("plots/samples.png").read_bytes().startswith(b"\x89PNG")


def test_null_means_all(workspace: Path, dataset: Path) -> None:
    write_params(workspace, dataset=str(dataset), train_images=None, test_images=None)
    load.main()
    lengths = {name: len(read_split(Path("data/prepared", name))) for name in SPLITS}
    train, test = (len(list((dataset / s).rglob("*.jpg"))) for s in ("train", "test"))
    assert lengths == {"train": train - 100, "validation": 100, "test": test}


@pytest.mark.slow
def test_folder_and_archives_give_the_same_bytes(
    workspace: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(dataset, workspace / "wrapped" / "digits")
    (workspace / "wrapped" / ".DS_Store").touch()
    paths = [
        dataset,
        workspace / "wrapped",
        archive_of(dataset, workspace / "a.zip"),
        archive_of(dataset, workspace / "b.zip", prefix="images/"),
        archives_of(dataset, workspace / "several", 3),
    ]
    (workspace / "several" / "SHA256SUMS").write_text("neither archive nor folder")
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)  # 4 GB, were it not for this line
    paths += [archives_of(dataset, workspace / "large", 2)]
    found = []
    for path in paths:
        write_params(workspace, dataset=str(path))
        load.main()
        found.append(contents(workspace / "data/prepared") | contents(workspace / "plots"))
    assert all(other == found[0] for other in found)


def test_data_seed_changes_the_choice_and_train_images_does_not_change_validation(
    workspace: Path, dataset: Path
) -> None:
    names = {}
    for key, changes in {
        "as is": {},
        "seed": {"data_seed": 1},
        "less": {"train_images": 50},
    }.items():
        write_params(workspace, dataset=str(dataset), **changes)
        load.main()
        names[key] = {s: read_split(Path("data/prepared", s)).names.tolist() for s in SPLITS}
    assert all(names["as is"][split] != names["seed"][split] for split in SPLITS)
    assert names["less"]["validation"] == names["as is"]["validation"]
    assert names["less"]["train"] == names["as is"]["train"][:50]


def test_a_subset_of_the_classes_is_labelled_in_its_own_order(
    workspace: Path, dataset: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(workspace, dataset=str(dataset), classes=[8, 3], train_images=100, test_images=50)
    load.main()
    test = read_split(Path("data/prepared/test"))
    for label, name in zip(test.labels, test.names, strict=True):
        assert name.startswith(f"test/{[8, 3][label]}/")
    assert "left out, not in `classes`: train/ 0, 1, 2, 4, 5, 6, 7, 9" in capsys.readouterr().out


def test_what_cannot_be_drawn_is_said_and_earlier_results_stay(
    workspace: Path, dataset: Path
) -> None:
    load.main()
    before = contents(workspace / "data") | contents(workspace / "plots")
    damaged = shutil.copytree(dataset, workspace / "damaged")
    for file in (damaged / "test").rglob("*.jpg"):
        file.write_bytes(file.read_bytes()[:-9])
    empty = shutil.copytree(dataset, workspace / "empty")
    shutil.rmtree(empty / "test" / "7")
    several = {
        name: archives_of(dataset, workspace / name, 3)
        for name in ("mixed", "twice", "hollow", "cut off")
    }
    (several["mixed"] / "train").mkdir()
    shutil.copy(several["twice"] / "1.zip", several["twice"] / "3.zip")
    archive_of(workspace / "plots", several["hollow"] / "3.zip")
    (several["cut off"] / "1.zip").write_bytes((several["cut off"] / "0.zip").read_bytes()[:-99])
    for changes, message in (
        ({"dataset": "nowhere"}, "dataset: nowhere does not exist"),
        ({"dataset": str(workspace / "plots")}, "has no images in class folders; it must"),
        ({"dataset": "params.yaml"}, "params.yaml is not a whole zip archive"),
        (
            {"dataset": str(empty)},
            "no images in test/7/, a class of another folder; test/ has 0, 1, ",
        ),
        ({"dataset": str(damaged)}, r"100 of 800 images cannot be read:\n  test/"),
        ({"dataset": "mixed"}, "mixed holds the zip archive 0.zip beside the folder train; it"),
        ({"dataset": "twice"}, "twice/1.zip and twice/3.zip hold more than one 'test/0/1"),
        (
            {"dataset": "hollow"},
            "hollow/3.zip has no images in class folders, as each archive in hollow must",
        ),
        ({"dataset": "cut off"}, "cut off/1.zip is not a whole zip archive"),
        ({"test_images": 451}, r"params.yaml: test_images is 451, but test/ has 450"),
        ({"train_images": 1248}, "train_images is 1248, but validation leaves 1247 of train/"),
        ({"validation_images": 1348}, "validation_images is 1348, but train/ has 1347"),
    ):
        write_params(workspace, **({"dataset": str(dataset)} | changes))
        with pytest.raises(InputError, match=message):
            load.main()
        assert contents(workspace / "data") | contents(workspace / "plots") == before


LETTER, LETTER_AND_ACCENT = "\u00e9", "e\u0301"  # the same name; macOS may store the latter


def two_classes(dataset: Path, folder: Path, name: str) -> Path:
    """Return a data set of the classes 1 and 3 alone, the latter under another name."""
    for split in ("train", "test"):
        shutil.copytree(dataset / split / "1", folder / split / "1")
        shutil.copytree(dataset / split / "3", folder / split / name)
    return folder


def without_flag(dataset: Path, path: Path, name: bytes) -> Path:
    """Return such a data set as an archive that does not say how its names are encoded."""
    stand_in = "%" * len(name)  # zipfile would set the flag for a name that is not ASCII
    archive_of(two_classes(dataset, path.with_suffix(""), stand_in), path)
    path.write_bytes(path.read_bytes().replace(f"/{stand_in}/".encode(), b"/%s/" % name))
    return path


def test_a_name_with_accents_is_the_same_however_it_is_stored(
    workspace: Path, dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {"one": LETTER, "two": LETTER_AND_ACCENT}
    paths = [two_classes(dataset, workspace / number, name) for number, name in names.items()]
    paths.append(archive_of(paths[1], workspace / "with flag.zip"))
    for size, limit in (("small", zipfile.ZIP64_LIMIT), ("large", 1000)):  # as if that were 4 GB
        monkeypatch.setattr(zipfile, "ZIP64_LIMIT", limit)
        for name in (LETTER.encode(), LETTER_AND_ACCENT.encode(), LETTER.encode("cp437")):
            paths.append(without_flag(dataset, workspace / f"{size} {name.hex()}.zip", name))
    datasets = [open_dataset(path) for path in paths]
    for other in datasets:
        assert other.names == datasets[0].names
        assert all(other.read(n) == datasets[0].read(n) for n in range(len(other.names)))
    found = []
    for path, name in ((paths[1], LETTER), (paths[2], LETTER_AND_ACCENT)):
        write_params(workspace, dataset=str(path), classes=["1", name], **FEW)
        load.main()
        found.append(contents(workspace / "data/prepared"))
    assert found[0] == found[1]
    names = read_split(Path("data/prepared/test")).names
    assert {name.split("/")[1] for name in names} == {"1", LETTER}


def test_names_that_only_the_storing_of_accents_tells_apart_are_refused(
    workspace: Path, dataset: Path
) -> None:
    folder = shutil.copytree(dataset, workspace / "twice")
    for name in (LETTER, LETTER_AND_ACCENT):
        if (folder / f"train/3/{name}.jpg").exists():
            pytest.skip("this file system, as that of macOS, takes both names for the same")
        shutil.copy(next((folder / "train/3").iterdir()), folder / f"train/3/{name}.jpg")
    for path in (folder, archive_of(folder, workspace / "twice.zip")):
        write_params(workspace, dataset=str(path))
        with pytest.raises(InputError, match=f"holds more than one 'train/3/{LETTER}.jpg'"):
            load.main()
    write_params(workspace, dataset=str(dataset), classes=[LETTER, LETTER_AND_ACCENT])
    with pytest.raises(InputError, match=r"classes is .* two or more different folder names"):
        load.main()


def test_too_small_a_dev_shm_is_named(workspace: Path) -> None:
    shell = f"mount -t tmpfs -o size=4k none /dev/shm && exec {sys.executable} -m stages.load"
    words = ("unshare", "--map-root-user", "--mount", "sh", "-c")
    trial = (*words, "mount -t tmpfs none /mnt")
    if not shutil.which("unshare") or subprocess.run(trial).returncode:
        pytest.skip("mounting needs Linux and a kernel that lets users have namespaces")
    done = subprocess.run(
        (*words, shell), env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 1
    assert done.stderr.startswith("load: error: the locks that processes share cannot be made: No ")
    assert "on Linux, /dev/shm must exist, be writable and have 1 MB free" in done.stderr
    assert done.stderr.count("\n") == 1
    assert not list(workspace.glob("data/prepared/*"))


@pytest.mark.skipif(get_start_method() != "fork", reason="a new Python does not know the stand-in")
def test_a_process_that_the_system_ends_is_said(
    workspace: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding_pool, "decode", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
    with pytest.raises(InputError, match="decode images was ended by the system, most likely for"):
        load.main()
    assert not list(workspace.glob("data/prepared/*"))


def memory_of_files() -> int:
    """Return how many bytes of mapped files this process holds, which see in proc(5)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssFile:"))


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux alone tells the figure")
def test_what_was_read_of_a_split_leaves_memory_again(tmp_path: Path) -> None:
    block = np.ones((10_000, 28, 28, 1), np.uint8), ["a.jpg"] * 10_000, [0] * 10_000
    split = tmp_path / "split"
    write_split(split, [block] * 6, (28, 28, 1), len("a.jpg"))
    images, before = read_split(split).images, memory_of_files()
    chosen = np.random.default_rng(0).permutation(len(images))
    for start in range(0, len(images), 10_000):
        assert images[start : start + 10_000].all()
        assert images[chosen[start : start + 10_000]].all()
    assert memory_of_files() - before < 10e6 < images.array.nbytes == 60_000 * 784


@pytest.fixture(scope="module")
def empty_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield the folder in which the trees of the property test grow."""
    yield tmp_path_factory.mktemp("trees")


part = st.sampled_from(
    [
        "train",
        "test",
        "Train",
        "valid",
        "0",
        "1",
        "a.jpg",
        "B.PNG",
        "é ü",
        ".DS_Store",
        "x\ny",
        "c\\d",
    ]
)
path_of_parts = st.lists(part, min_size=1, max_size=4).map("/".join)


def written_as(tree: Path, path: Path, begin: str, slash: str) -> Path:
    """Return an archive of a tree, empty folders too, with names that are spelled in this way."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(tree.rglob("*")):
            name = begin + str(file.relative_to(tree)).replace("/", slash)
            archive.writestr(name if file.is_file() else f"{name}/", b"")
    return path


@given(
    st.lists(path_of_parts, max_size=8),
    st.lists(path_of_parts, max_size=2),
    st.sampled_from(["", "./"]),
    st.sampled_from(["/", "//", "/./"]),
)
def test_any_tree_is_the_same_data_set_as_folder_and_as_archive_or_refused(
    empty_folder: Path, tree: list[str], empty: list[str], begin: str, slash: str
) -> None:
    root = empty_folder / "tree"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for name in tree:
        path = root / "data" / name
        if not path.exists() and not any(parent.is_file() for parent in path.parents):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    for name in empty:
        if not any(path.is_file() for path in (root / name, *(root / name).parents)):
            (root / name).mkdir(parents=True, exist_ok=True)
    found = []
    for path in (root, written_as(root, empty_folder / "tree.zip", begin, slash)):
        said = io.StringIO()
        try:
            with contextlib.redirect_stdout(said):
                dataset = open_dataset(path)
                _, groups = find_images(dataset, None)
            names = {s: [dataset.names[i] for i in groups[s]] for s in sorted(groups)}
        except InputError as error:
            names = {"refused": [str(error).replace(str(path), "DATASET")]}
        found.append((names, said.getvalue().replace(str(path), "DATASET")))
    assert found[0] == found[1]


@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5),
    st.integers(1, 20),
    st.integers(1, 20),
    st.integers(0, 9),
)
def test_each_class_has_an_image_to_train_on_and_other_draws_stay(
    sizes: list[int], validation: int, train: int, seed: int
) -> None:
    class Named:
        has_splits = False
        names = [f"{label}/{n}.png" for label, size in enumerate(sizes) for n in range(size)]  # noqa: RUF012

        def read(self, index: int) -> bytes:
            raise AssertionError

    labels = np.repeat(np.arange(len(sizes)), sizes)
    groups = {"train": np.arange(len(labels)), "test": np.arange(1)}
    if train < len(sizes) or validation + train > len(labels):
        with pytest.raises(InputError, match=r"_images is|leaves none of \d+ images to validate"):
            choose_images(Named(), groups, Counts(train, validation, None), seed)
        return
    drawn = np.random.default_rng([seed, 0]).permutation(len(labels))
    chosen, others = (
        choose_images(Named(), groups, Counts(count, validation, None), seed)
        for count in (train, None)
    )
    assert set(labels[chosen["train"]]) == set(labels)
    assert not set(chosen["train"]) & set(chosen["validation"])
    assert len(set(chosen["train"])) == train
    assert len(set(chosen["validation"])) == validation
    assert chosen["validation"].tolist() == others["validation"].tolist()
    for split, plain, learned in (
        ("validation", drawn[:validation], drawn[validation:]),
        ("train", others["train"][:train], others["train"][:train]),
    ):
        lacking = len(set(labels) - set(labels[learned]))
        assert (chosen[split] != plain).sum() == lacking
