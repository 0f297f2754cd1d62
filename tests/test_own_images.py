"""Images of one's own: class folders alone, validation folders, colours, and bad input."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from common.console import InputError
from common.datasets import open_dataset
from common.selection import TEST_SHARE, find_images
from common.splits import read_classes, read_split
from stages import define, evaluate, load, train
from tests.helpers import archive_of, contents, write_params

SIZE = 12
COLOURS = {"blue": (0, 0, 255), "green": (0, 128, 0), "red": (255, 0, 0)}
COUNTS = {"train_images": None, "validation_images": 30, "test_images": None}
SPLITS = ("train", "validation", "test")


def write_class(folder: Path, count: int, colour: tuple[int, int, int] = (255, 255, 255)) -> None:
    """Write images of one colour, each of a lightness of its own, as PNG files."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(str(folder.name)))
    for number in range(count):
        light = rng.uniform(0.3, 1, (SIZE, SIZE, 1)) * rng.uniform(0.3, 1)
        pixels = (light * colour).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")


@pytest.fixture
def things(workspace: Path) -> Path:
    """Write class folders alone, of three colours, and return where; enter the folder above."""
    for name, colour in COLOURS.items():
        write_class(workspace / "things" / name, 100, colour)
    return workspace / "things"


def run_load(dataset: Path, **changes: object) -> dict[str, list[str]]:
    """Run `load`; return the names of the images of each split."""
    settings = {"dataset": str(dataset), "image_size": SIZE, **COUNTS, **changes}
    write_params(Path(), **settings)
    load.main()
    return {split: read_split(Path("data/prepared", split)).names.tolist() for split in SPLITS}


@pytest.mark.slow
def test_classes_that_differ_in_colour_alone_are_told_apart(
    things: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = {"epochs": 8, "class_weight": "balanced", "keep": "best", "padding": "same"}
    run_load(things, color_mode="rgb", head="average", **settings)
    assert read_split(Path("data/prepared/train")).images.shape == (210, SIZE, SIZE, 3)
    assert "became grey" not in capsys.readouterr().out
    for stage in (define, train, evaluate):
        stage.main()
    assert json.loads(Path("metrics/evaluate.json").read_text())["test_accuracy"] >= 0.98
    classes = pd.read_csv("plots/per_class.csv")["class"].tolist()
    assert classes == read_classes() == ["blue", "green", "red"]
    for name in ("samples", "misclassified"):
        with Image.open(f"plots/{name}.png") as image:
            pixels = np.asarray(image.convert("RGB")).astype(int)
        assert name == "misclassified" or np.ptp(pixels, axis=2).max() > 200  # it is in colour


def test_colours_that_are_dropped_are_said(
    things: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_load(things)
    assert (
        "load: 300 images are stored in colour and became grey; `color_mode: rgb` in params.yaml "
        "keeps the colours\n"
    ) in capsys.readouterr().out


def test_class_folders_alone_are_the_same_as_folder_and_archive_and_nested(things: Path) -> None:
    shutil.copytree(things, Path("wrapped/flowers"))
    archives = (archive_of(things, Path("a.zip")), archive_of(things, Path("b.zip"), "flowers/"))
    found = []
    for path in (things, Path("wrapped"), *archives):
        run_load(path)
        found.append(contents(Path("data/prepared")) | contents(Path("plots")))
    assert all(other == found[0] for other in found)


@pytest.mark.slow
def test_no_seed_and_no_count_moves_an_image_out_of_the_test_set(things: Path) -> None:
    first = run_load(things)
    assert all(name.split("/")[0] in COLOURS for names in first.values() for name in names)
    assert sorted(name for names in first.values() for name in names) == sorted(
        f"{colour}/{number}.png" for colour in COLOURS for number in range(100)
    )
    by_class = [sum(name.startswith(f"{c}/") for name in first["test"]) for c in COLOURS]
    assert by_class == [100 // TEST_SHARE] * 3
    few = run_load(things, data_seed=1, train_images=20, validation_images=10, test_images=30)
    assert set(few["test"]) < set(first["test"])
    assert not set(few["train"] + few["validation"]) & set(first["test"])
    other = run_load(things, data_seed=2, seed=3, classes=["red", "blue"])
    assert set(other["test"]) < set(first["test"])
    assert set(run_load(things, data_seed=9)["test"]) == set(first["test"])
    write_class(things / "yellow", 10)  # more images leave those of before where they were
    assert set(run_load(things)["test"]) > set(first["test"])


@pytest.mark.parametrize("folder", ["validation", "val"])
@pytest.mark.parametrize("kind", ["folder", "archive"])
def test_a_folder_may_say_which_images_validate(workspace: Path, folder: str, kind: str) -> None:
    for split, count in (("train", 20), (folder, 7), ("test", 5)):
        for name in ("a", "b"):
            write_class(workspace / "own" / split / name, count)
    path = Path("own") if kind == "folder" else archive_of(Path("own"), Path("own.zip"))
    names = run_load(path, validation_images=None)
    assert {split: len(found) for split, found in names.items()} == {
        "train": 40,
        "validation": 14,
        "test": 10,
    }
    assert all(name.startswith(f"{folder}/") for name in names["validation"])
    assert len(run_load(path, validation_images=3)["validation"]) == 3
    with pytest.raises(InputError, match="validation_images is 15, but validation/ has 14; valid"):
        run_load(path, validation_images=15)
    write_class(workspace / "own" / folder / "c", 1)
    with pytest.raises(InputError, match=r"no images in .*/c/, a class of another folder; "):
        run_load(Path("own"), validation_images=3)


def test_null_is_all_class_folders_and_a_list_its_own_order(
    things: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_load(things, classes=None)
    assert json.loads(Path("data/prepared/classes.json").read_text()) == sorted(COLOURS)
    names = run_load(things, classes=["red", "blue"])
    assert read_classes() == ["red", "blue"]
    labels = read_split(Path("data/prepared/test")).labels
    assert [["red", "blue"][label] for label in labels] == [n.split("/")[0] for n in names["test"]]
    assert "load: left out, not in `classes`: green\n" in capsys.readouterr().out


ODD_NAMES = ["a, b", "a \"quoted\" 'name'", "two  spaces ", "é ü", "--help", "-1", "数字", "a:b#c"]


@pytest.mark.slow
def test_classes_of_odd_names_pass_through_all_stages(workspace: Path) -> None:
    for name in ODD_NAMES:
        write_class(workspace / "own" / name, 10)
    run_load(Path("own"), epochs=1)
    assert read_classes() == sorted(ODD_NAMES)
    for stage in (define, train, evaluate):
        stage.main()
    assert pd.read_csv("plots/per_class.csv")["class"].tolist() == sorted(ODD_NAMES)
    assert set(pd.read_csv("plots/predictions.csv", dtype=str)["actual"]) == set(ODD_NAMES)


def test_three_hundred_classes_are_found(workspace: Path) -> None:
    for number in range(300):
        folder = workspace / "own" / f"class {number:03}"
        folder.mkdir(parents=True)
        for image in range(3):
            Image.new("L", (SIZE, SIZE), number % 256).save(folder / f"{image}.png")
    names = run_load(Path("own"))
    assert {split: len(found) for split, found in names.items()} == {
        "train": 570,
        "validation": 30,
        "test": 300,
    }
    assert len(read_classes()) == 300


def lonely(folder: Path) -> None:
    """Leave one image of a class."""
    for image in sorted((folder / "red").iterdir())[1:]:
        image.unlink()


def one_class(folder: Path) -> None:
    """Leave two classes without an image that has the suffix of one."""
    for name in ("red", "green"):
        for image in (folder / name).iterdir():
            image.rename(image.with_suffix(".gif"))


def both_validations(folder: Path) -> None:
    """Make both of the folders that may validate."""
    for split in ("train", "validation", "val", "test"):
        write_class(folder / split / "a", 2)


def train_alone(folder: Path) -> None:
    """Add a folder `train` with classes to the class folders."""
    write_class(folder / "train/red", 3)


@pytest.mark.parametrize(
    ("spoil", "changes", "message"),
    [
        (lonely, {}, "^dataset: red/ has one image; a class must have two or more, one of which"),
        (one_class, {}, "^dataset: there must be two or more class folders; found blue$"),
        (both_validations, {}, "holds both val/ and validation/; it must hold one$"),
        (train_alone, {}, "has train/<class>/, but no images in test/<class>/; it must hold train"),
        (
            None,
            {"classes": ["red", "pink"]},
            "^dataset: no images in pink/, which `classes` in params.yaml names; the data set has "
            "red$",
        ),
        (
            None,
            {"validation_images": None},
            "^params.yaml: validation_images is null, but the data set has no validation/ of which",
        ),
        (
            None,
            {"validation_images": 250, "train_images": 9, "test_images": 61},
            "^params.yaml: validation_images is 250, but .* 240; train_images is 9, but .* 0 .*; "
            "test_images is 61, but .* 60; validation_images: 24, train_images: null and "
            "test_images: null would fit$",
        ),
    ],
)
def test_what_cannot_be_split_is_said_and_earlier_results_stay(
    things: Path, spoil: Callable[[Path], None] | None, changes: dict, message: str
) -> None:
    run_load(things)
    before = contents(Path("data")) | contents(Path("plots"))
    if spoil:
        spoil(things)
    with pytest.raises(InputError, match=message):
        run_load(things, **changes)
    assert contents(Path("data")) | contents(Path("plots")) == before


def test_what_lies_beside_train_and_test_is_left_out_and_said(
    things: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split, count in (("train", 40), ("test", 5)):
        for name in ("a", "b"):
            write_class(things / split / name, count)
    for place in ("beside.png", "train/in no class.png"):
        shutil.copy(things / "red/0.png", things / place)
    names = run_load(things)
    said = capsys.readouterr().out
    assert f"load: {things}: train/ trains, test/ tests\n" in said
    assert (
        "load: left out, not in train/<class>/ or test/<class>/: 302 images, in blue/, green/, "
        "no folder, red/, train/\n"
    ) in said
    assert all(name.startswith(("train/", "test/")) for found in names.values() for name in found)
    assert read_classes() == ["a", "b"]


@pytest.mark.parametrize("kind", ["folder", "archive"])
@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        ("Train/a Train/b Test/a Test/b", "Train/ trains, Test/ tests"),
        ("Training/a Training/b Testing/a Testing/b", "Training/ trains, Testing/ tests"),
        ("TRAIN/a TRAIN/b VAL/a VAL/b TEST/a TEST/b", "TRAIN/ trains, VAL/ validates, TEST/ tests"),
        ("train/a train/b valid/a valid/b test/a test/b dev", "train/ trains, valid/ validates, t"),
        ("train/a train/train test/a test/train", "train/ trains, test/ tests"),
        ("bus car train", r"class folders alone \(bus, car, train\)"),
        ("bus/a car/b/c dev", r"class folders alone \(bus, car, dev\)"),
        ("cat dog test", r"has images directly in test beside cat, dog, of which it is not clear"),
        ("car train", "has images directly in train beside car, of which it is not clear"),
        ("bus car train val", "has images directly in train, val beside bus, car, of which it is"),
        ("Test train", "has images directly in Test, train, of which it is not clear"),
        (
            "train/a train/b test",
            r"but no images in test/<class>/ \(those in test/ are in no class",
        ),
        ("train/a train/b Testing/a Train/a", "holds both Train/ and train/; it must hold one$"),
        ("train/a test/a val/a valid/a", "holds both val/ and valid/; it must hold one$"),
        ("cat dog Training/a", "has Training/<class>/, but no images in test/<class>/; it must"),
    ],
)
def test_the_layout_is_told_by_what_holds_class_folders(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], kind: str, folders: str, expected: str
) -> None:
    for name in folders.split():
        (tmp_path / "own" / name).mkdir(parents=True)
        (tmp_path / "own" / name / "1.png").touch()
    path = tmp_path / "own"
    if kind == "archive":
        path = archive_of(path, tmp_path / "own.zip")
    try:
        dataset = open_dataset(path)
        said = capsys.readouterr().out
        assert dataset.has_splits == ("trains" in said)
        find_images(dataset, None)
    except InputError as error:
        said = str(error)
    assert re.search(expected, said), said


def test_a_class_without_an_image_of_a_split_is_an_error_or_said(
    things: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_class(things / "rare", 2)
    for seed in range(5):
        names = run_load(things, data_seed=seed)
        assert sum(name.startswith("rare/") for name in names["train"]) == 1
        assert "load: warning: no validation image of rare\n" in capsys.readouterr().out
    with pytest.raises(
        InputError, match="train_images is 3, but each of the 4 classes needs an im"
    ):
        run_load(things, train_images=3)
    before = contents(Path("data"))
    Path(things, names["train"][[n[:4] for n in names["train"]].index("rare")]).write_bytes(b"")
    with pytest.raises(InputError, match="none of the images to train on can be read of rare; rep"):
        run_load(things, bad_images="skip")
    assert contents(Path("data")) == before


def test_what_would_fit_fits(things: Path) -> None:
    with pytest.raises(InputError, match="validation_images: 24, train_images: null and test_"):
        run_load(things, validation_images=2000, train_images=10_000, test_images=2000)
    names = run_load(things, validation_images=24, train_images=None, test_images=None)
    assert [len(names[split]) for split in SPLITS] == [216, 24, 60]


@pytest.mark.parametrize("content", [None, "[", '["a"]', '["a", "a"]', "[1, 2]", "{}"])
def test_damaged_class_names_are_refused(workspace: Path, content: str | None) -> None:
    path = Path("data/prepared/classes.json")
    path.parent.mkdir(parents=True)
    if content is not None:
        path.write_text(content)
    with pytest.raises(InputError, match=r"classes.json .*; run `dvc repro load`$"):
        define.main()
