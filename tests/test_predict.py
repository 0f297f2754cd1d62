"""Prediction: what is printed and written of files, folders and archives of any kind."""

import csv
import json
import shlex
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from scipy.stats import binomtest

from common.console import InputError
from inference import predict
from inference.exported import INPUT, ONNX, OUTPUT, Description
from inference.table import width_of, wilson_interval
from tests.helpers import ENVIRONMENT, ROOT, archive_of, command, contents, encoded

SIZE = 8
CLASSES = ["black", "grey", "white"]
Predict = Callable[..., list[dict[str, str]]]


def write_model(classes: list[str], path: Path = ONNX) -> None:
    """Write an exported model that tells classes apart by the mean brightness of an image."""
    centres = np.linspace(0, 255, len(classes), dtype=np.float32)[None]
    constants = {"centres": centres, "slope": np.float32([[-1e-3]])}
    node = onnx.helper.make_node
    graph = onnx.helper.make_graph(
        [
            node("Cast", [INPUT], ["levels"], to=onnx.TensorProto.FLOAT),
            node("ReduceMean", ["levels"], ["mean"], axes=[1, 2], keepdims=0),
            node("Sub", ["mean", "centres"], ["difference"]),
            node("Mul", ["difference", "difference"], ["square"]),
            node("Mul", ["square", "slope"], ["logits"]),
            node("Softmax", ["logits"], [OUTPUT]),
        ],
        "brightness",
        [onnx.helper.make_tensor_value_info(INPUT, onnx.TensorProto.UINT8, ["N", SIZE, SIZE, 1])],
        [onnx.helper.make_tensor_value_info(OUTPUT, onnx.TensorProto.FLOAT, ["N", len(classes)])],
        [onnx.numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [onnx.helper.make_opsetid("", 17)]
    model = onnx.helper.make_model(graph, opset_imports=opset, ir_version=8)
    description = Description(
        classes=classes,
        image_size=SIZE,
        color_mode="grayscale",
        model_md5="0" * 32,
        commit=None,
        metrics={},
    )
    onnx.helper.set_model_props(model, description.to_metadata())
    path.parent.mkdir(exist_ok=True)
    onnx.save(model, path)


def image_of(level: int) -> bytes:
    """Return a PNG file of one grey level."""
    return encoded(Image.new("L", (10, 12), level))


def write_images(folder: Path, levels: dict[str, int]) -> Path:
    """Write PNG files of one grey level each, by name; return their folder."""
    for name, level in levels.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(image_of(level))
    return folder


@pytest.fixture
def run_predict(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predict:
    """Enter an empty folder with an exported model; return what runs the program there."""
    monkeypatch.chdir(tmp_path)
    write_model(CLASSES)

    def run(*arguments: str) -> list[dict[str, str]]:
        words = ["predict", "--csv=out.csv", "--json=out.json", *arguments]
        monkeypatch.setattr(sys, "argv", words)
        predict.main()
        return read_csv()

    return run


def read_csv() -> list[dict[str, str]]:
    """Return the rows of the CSV file; those of the JSON file are checked to be the same."""
    with Path("out.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    values = json.loads(Path("out.json").read_text(encoding="utf-8"))
    as_text = [
        {key: f"{v:.6f}" if isinstance(v, float) else v for key, v in row.items()} for row in values
    ]
    assert as_text == rows
    return rows


def test_files_folders_and_archives_are_read_in_the_order_given(
    run_predict: Predict, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_images(
        tmp_path, {"flat/2.png": 250, "flat/1.png": 5, "deep/a/b/c.PNG": 120, "x.dat": 130}
    )
    (tmp_path / "flat/notes.txt").write_text("no image")
    archive_of(write_images(tmp_path / "inside", {"z.png": 1, "d/y.png": 254}), Path("some.zip"))
    rows = run_predict("x.dat", "flat/", "some.zip", "deep")
    names = ["x.dat", "flat/1.png", "flat/2.png", "some.zip/d/y.png", "some.zip/z.png"]
    assert [row["file"] for row in rows] == [*names, "deep/a/b/c.PNG"]
    expected = ["grey", "black", "white", "white", "black", "grey"]
    assert [row["class"] for row in rows] == expected
    output, notes = capsys.readouterr()
    head, *lines = output.splitlines()
    assert head.split() == ["file", *(name for rank in predict.RANKS for name in rank)]
    assert [line.split()[1] for line in lines] == expected
    assert notes == "predict: left out, not .jpg, .jpeg, .png, .bmp: flat/notes.txt\n"


def test_a_folder_of_archives_is_read(run_predict: Predict, tmp_path: Path) -> None:
    folder = write_images(tmp_path / "inside", {"z.png": 1})
    (tmp_path / "zips").mkdir()
    for name in ("b.zip", "a.zip"):
        archive_of(folder, tmp_path / "zips" / name)
    assert [row["file"] for row in run_predict("zips")] == ["zips/a.zip/z.png", "zips/b.zip/z.png"]


def test_links_to_folders_are_followed_and_loops_refused(
    run_predict: Predict, tmp_path: Path
) -> None:
    write_images(tmp_path, {"in/a.png": 1, "elsewhere/b.png": 1})
    (tmp_path / "in/linked").symlink_to(tmp_path / "elsewhere")
    assert [row["file"] for row in run_predict("in")] == ["in/a.png", "in/linked/b.png"]
    (tmp_path / "elsewhere/loop").symlink_to(tmp_path / "in")
    with pytest.raises(InputError, match="/loop is a link to a folder that is in the data set al"):
        run_predict("in")


def test_the_columns_are_ranked_and_fewer_for_two_classes(
    run_predict: Predict, tmp_path: Path
) -> None:
    write_images(tmp_path, {"a.png": 100})
    (row,) = run_predict("a.png")
    logits = -1e-3 * (100 - np.array([127.5, 0, 255])) ** 2
    expected = np.exp(logits) / np.exp(logits).sum()
    assert [row["class"], row["second"], row["third"]] == ["grey", "black", "white"]
    found = [float(row[name]) for name in ("confidence", "second_confidence", "third_confidence")]
    assert np.abs(np.array(found) - expected).max() < 1e-6
    write_model(["a", "b"])
    (row,) = run_predict("a.png")
    assert list(row) == ["file", "class", "confidence", "second", "second_confidence"]


def test_hostile_names_stay_one_line_each_and_are_written_as_they_are(
    run_predict: Predict, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    names = [
        "a\tb.png",
        "new\nline.png",
        "\x1b[31mred.png",
        ',"quoted".png',
        "七.png",
        "\u202e.png",
    ]
    write_images(tmp_path / "in", dict.fromkeys(names, 255))
    write_images(tmp_path, {"-x.png": 0})
    write_model(["\r\x1b[2J", "e\u0301 七"])
    rows = run_predict("in", "--", "-x.png")
    assert [row["file"] for row in rows] == [*(f"in/{name}" for name in sorted(names)), "-x.png"]
    assert {row["class"] for row in rows} == {"\r\x1b[2J", "e\u0301 七"}
    lines = capsys.readouterr().out.split("\n")[:-1]
    assert len(lines) == 1 + len(rows)
    assert all(line.isprintable() for line in lines)
    widths = {width_of(line[: line.index("1.0000")]) for line in lines[1:]}
    assert widths == {width_of(lines[0][: lines[0].index("confidence")])}, "aligned"


def test_a_terminal_shows_the_first_rows_and_a_pipe_all(
    run_predict: Predict,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    write_images(tmp_path / "in", {f"{i:03d}.png": 255 * (i % 3 == 0) for i in range(150)})
    summary = ["", "class  images", "black  100", "white  50", "grey   0"]
    assert len(run_predict("in")) == 150
    output = capsys.readouterr().out.splitlines()
    assert len(output) == 151 + len(summary)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert len(run_predict("in")) == 150
    shown = capsys.readouterr().out.splitlines()
    assert shown[1:21] == output[1:21]
    assert shown[21] == "... and 130 more; CSV=out.csv or JSON=out.json writes all"
    assert shown[22:] == output[151:] == summary


def test_folders_named_like_classes_give_a_score(
    run_predict: Predict, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    levels = {f"test/white/{i}.png": 255 if i else 0 for i in range(4)}
    levels |= {"train/black/deep/1.png": 0, "other/1.png": 0, "2.png": 0}
    folder = write_images(tmp_path / "in", levels)
    for path in ("in", str(archive_of(folder, tmp_path / "in.zip", "top/"))):
        assert len(run_predict(path)) == 7
        output = capsys.readouterr().out
        assert "\nAccuracy 0.8000 (95% interval 0.3755 to 0.9638), 1 errors in 5 images\n" in output
        table = output[output.index("\nactual ") :].split("\n")[1:5]
        assert [line.split() for line in table] == [
            ["actual", "black", "grey", "white"],
            ["black", "1", "0", "0"],
            ["grey", "0", "0", "0"],
            ["white", "1", "0", "3"],
        ]
        assert "\n2 images lie in no folder named like a class: not counted\n" in output
        assert "\n1 of the images lie below train/ or validation/: " in output


def test_the_confusions_of_many_classes_are_listed(
    run_predict: Predict, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    write_model([f"class {i:03d}" for i in range(40)])
    write_images(tmp_path / "in", {"class 000/1.png": 0, "class 001/1.png": 0})
    run_predict("in")
    output = capsys.readouterr().out
    assert "Accuracy 0.5000" in output
    assert output.endswith(
        "The most frequent confusions\nactual     predicted  images\nclass 001  class 000  1\n"
    )


@given(st.integers(1, 10_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_is_that_of_scipy(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(0.95, method="wilson")
    assert wilson_interval(*counts) == pytest.approx(expected, abs=1e-12)


def test_other_processes_decode_to_the_same_rows(
    run_predict: Predict, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_images(tmp_path / "in", {f"{i}.png": i for i in range(200)})
    (tmp_path / "in/100.png").write_bytes(b"")
    archive_of(tmp_path / "in", tmp_path / "in.zip")
    written = []
    for seconds in (100, 0):
        monkeypatch.setattr(predict, "ALONE", seconds)
        with pytest.raises(InputError, match="2 of 400 images cannot be read"):
            run_predict("in", "in.zip")
        written.append((Path("out.csv").read_bytes(), Path("out.json").read_bytes()))
    assert written[0] == written[1]
    assert len(read_csv()) == 398


def test_unreadable_files_are_named_and_the_rest_is_done(
    run_predict: Predict, tmp_path: Path
) -> None:
    write_images(tmp_path / "in", {f"{i:02d}.png": 0 for i in range(30)})
    for i in range(5, 25):
        (tmp_path / f"in/{i:02d}.png").write_bytes(b"no image")
    with pytest.raises(InputError) as error:
        run_predict("in")
    lines = str(error.value).splitlines()
    assert lines[0] == "20 of 30 images cannot be read:"
    assert lines[1] == "  in/05.png: not a JPEG, PNG or BMP image"
    assert lines[11:] == ["  ..."]
    assert len(read_csv()) == 10


def stored(name: str, content: bytes) -> bytes:
    """Return a zip archive of one file."""
    path = Path("made.zip")
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, content)
    return path.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.png"], "'missing.png' does not exist; give image files, or folders or zip arc"),
        (["empty"], "'empty' holds no image; give "),
        (["texts"], "'texts' holds no image; give "),
        (["texts.zip"], r"'texts.zip' holds no image; give "),
        (["cut.zip"], "cut.zip is not a whole zip archive: "),
        (["page.zip"], "page.zip is not a whole zip archive: "),
        (["cut"], "cut is not a whole zip archive: "),
        (["a.png", "--csv=no/out.csv"], "CSV is 'no/out.csv': 'no' is no folder; "),
        (["a.png", "--csv=folder.csv"], "CSV is 'folder.csv': that is a folder; "),
        (["--csv", "a.png", "a.png"], "CSV is 'a.png'; it must be a file name that ends in .csv"),
        (["a.png", "--json=out.csv"], "JSON is 'out.csv'; it must be .* that ends in .json"),
        (["--images="], "IMAGES is not set; give .*, as in `make predict IMAGES=photos`"),
        ([], "IMAGES is not set"),
        (["--images=it's"], 'IMAGES is "it\'s": No closing quotation; .* quoted as for a shell'),
        (["--images=a photo.png a.png"], "'a' does not exist; give .* quoted as for a shell"),
        (["x" * 300], "'x{300}' cannot be read: File name too long"),
        (["a.png/b.png"], "'a.png/b.png' cannot be read: Not a directory"),
        (["a\0.png"], r"'a\\x00.png' cannot be read: "),
        (["bad.png"], "1 of 1 images cannot be read:\n  bad.png: the file is empty"),
        (["\udc80.png"], r"the path '\\udc80.png' is not UTF-8"),
    ],
)
def test_bad_input_is_one_error_and_writes_nothing(
    run_predict: Predict, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_images(tmp_path, {"a.png": 0, "\udc80.png": 0})
    (tmp_path / "bad.png").touch()
    for name in ("empty", "texts", "folder.csv"):
        (tmp_path / name).mkdir()
    (tmp_path / "texts/a.txt").touch()
    (tmp_path / "texts.zip").write_bytes(stored("a.txt", b""))
    for name in ("cut.zip", "cut"):
        (tmp_path / name).write_bytes(stored("a.png", image_of(0))[:-30])
    (tmp_path / "page.zip").write_text("<html>not found</html>")
    before = contents(tmp_path)
    with pytest.raises(InputError, match=message):
        run_predict(*arguments)
    assert contents(tmp_path) == before


def test_a_model_without_metadata_is_refused(run_predict: Predict, tmp_path: Path) -> None:
    write_images(tmp_path, {"a.png": 0})
    model = onnx.load(ONNX)
    del model.metadata_props[:]
    onnx.save(model, ONNX)
    with pytest.raises(InputError, match=r"model\.onnx is not a model that can be used"):
        run_predict("a.png")


@pytest.mark.parametrize("value", ["it's one.png", "a.png 'it'\\''s one.png'"])
def test_images_is_one_path_or_several(run_predict: Predict, tmp_path: Path, value: str) -> None:
    write_images(tmp_path, {"a.png": 0, "it's one.png": 0})
    rows = run_predict(f"--images={value}")
    assert [row["file"] for row in rows] == (["a.png"] if " '" in value else []) + ["it's one.png"]


def test_images_may_be_more_names_than_one_name_is_long(
    run_predict: Predict, tmp_path: Path
) -> None:
    names = [f"IMG_{number}.png" for number in range(10, 50)]
    write_images(tmp_path, dict.fromkeys(names, 0))
    assert [row["file"] for row in run_predict(f"--images={' '.join(names)}")] == names


def test_make_passes_values_on_as_they_are() -> None:
    make = ("make", "--no-print-directory", "--assume-old", ".venv/installed", "predict")
    name = "$HOME `id` it's"
    output = command(ROOT, *make, f"IMAGES={shlex.quote(name)}", fails=True)
    assert output.startswith('predict: error: "$HOME `id` it\'s" does not exist; give ')
    assert "IMAGES is not set" in command(ROOT, *make, fails=True)


def test_it_starts_without_what_takes_seconds_to_import(tmp_path: Path) -> None:
    write_model(CLASSES, tmp_path / ONNX)
    write_images(tmp_path, {"black/a.png": 0})
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "inference.predict", "black", "."],
        cwd=tmp_path,
        env=ENVIRONMENT | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "Accuracy 1.0000" in done.stdout
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "onnxruntime" in imported
    slow = {"tensorflow", "keras", "pandas", "scipy", "sklearn", "matplotlib", "dvc"}
    assert not imported & slow


@pytest.mark.slow
def test_a_trained_project_predicts_what_it_was_evaluated_to(
    committed: Path, dataset: Path
) -> None:
    archive = archive_of(dataset, committed.parent / "dataset.zip")
    command(committed, "python", "-m", "inference.predict", "--csv=out.csv", str(archive))
    columns = {"class": str, "actual": str, "predicted": str}
    found = pd.read_csv(committed / "out.csv", dtype=columns)
    assert len(found) == len(list(dataset.rglob("*.jpg")))
    found["image"] = found["file"].str.removeprefix(f"{archive}/")
    evaluated = pd.read_csv(committed / "plots/predictions.csv", dtype=columns)
    both = evaluated.merge(found, on="image", validate="one_to_one")
    assert len(both) == len(evaluated) == 100
    assert both["class"].tolist() == both["predicted"].tolist()
    # Two programs add up in 32 bits in another order, and six digits are written.
    assert (both["confidence_x"] - both["confidence_y"]).abs().max() < 5e-6
