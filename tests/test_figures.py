"""The pictures: of any number of classes, whatever their names."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib import get_data_path
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.text import Text
from PIL import Image
from sklearn.datasets import load_digits

from common import figures, lettering
from common.figures import draw_confusion_matrix, draw_misclassified, draw_samples
from common.splits import Split, read_split
from stages import load
from tests.helpers import ROOT, write_params

MATHEMATICS = ["a$b", "$10_$20", "x^2", r"\alpha", r"\frac{1}{2}", "$", r"a\$b", "_private", "{"]
HIRAGANA = "のの"  # Matplotlib's own font lacks it; of the others that come with it STIX has it

# Draws a confusion matrix and samples of this many classes, with little memory.
MANY = """
import resource, sys
import numpy as np
from pathlib import Path
from common.splits import Split
from common.figures import draw_confusion_matrix, draw_samples
if sys.platform == "linux":  # macOS does not limit it
    resource.setrlimit(resource.RLIMIT_AS, (8 * 2**30, 8 * 2**30))
count = int(sys.argv[1])
classes = [f"kind {number} of great {'cat' * 20}" for number in range(count)]
matrix = np.random.default_rng(1).poisson(0.001, (count, count)) + 5 * np.eye(count, dtype=int)
draw_confusion_matrix(matrix, classes, Path("matrix.png"))
images = np.zeros((count, 300, 300, 1), np.uint8)
draw_samples(Split(images, np.arange(count), np.array([])), classes, 12, Path("samples.png"))
if sys.platform == "darwin":
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 2**20)
else:  # there `getrusage` counts the memory of the process that started this one, too
    lines = Path("/proc/self/status").read_text().splitlines()
    print(next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) // 2**10)
"""


@pytest.fixture(autouse=True)
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """Gather the figures that a test draws; forget the fonts that were found before it."""
    found = []
    savefig = Figure.savefig

    def spy(figure: Figure, *words: object, **options: object) -> None:
        savefig(figure, *words, **options)
        found.append(figure)

    monkeypatch.setattr(Figure, "savefig", spy)
    lettering.fonts_for.cache_clear()
    yield found
    lettering.fonts_for.cache_clear()


def draw_all(classes: list[str], folder: Path) -> None:
    """Draw every picture that shows names of classes, of real digits."""
    digits = load_digits()
    images = (digits.images[:100, :, :, None] * 15).astype(np.uint8)
    labels = np.arange(100) % len(classes)
    draw_samples(Split(images, labels, np.array([])), classes, 12, folder / "samples.png")
    matrix = np.random.default_rng(1).poisson(3, (len(classes), len(classes)))
    draw_confusion_matrix(matrix, classes, folder / "confusion_matrix.png")
    mistakes = pd.DataFrame({"actual": classes, "predicted": classes[::-1], "confidence": 0.9})[:24]
    draw_misclassified(
        images[: len(mistakes)], mistakes, classes, "Title", folder / "misclassified.png"
    )


def texts(figure: Figure) -> str:
    """Return all that is written in a figure, without marks of direction."""
    words = [text.get_text() for text in figure.findobj(Text) if text.get_visible()]
    return "\n".join(words).replace(lettering.LEFT_TO_RIGHT, "")


def plot_area(figure: Figure) -> float:
    """Return how large the first axes is, in square inches."""
    box = figure.axes[0].get_position()
    return box.width * figure.get_figwidth() * box.height * figure.get_figheight()


@pytest.mark.slow
@pytest.mark.parametrize("count", [31, 150, 1000])
def test_many_classes_take_little_memory(tmp_path: Path, count: int) -> None:
    words = [sys.executable, "-W", "error", "-c", MANY, str(count)]
    done = subprocess.run(
        words, cwd=tmp_path, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    images = count * 300**2 / 2**20
    assert int(done.stdout) < 350 + images
    for name in ("matrix.png", "samples.png"):
        assert max(Image.open(tmp_path / name).size) <= 2500


@pytest.mark.slow
def test_a_large_matrix_names_the_most_frequent_confusions(
    tmp_path: Path, drawn: list[Figure]
) -> None:
    classes = [f"class {number}" for number in range(600)]
    matrix = 9 * np.eye(600, dtype=int)
    matrix[7, 599] = 5
    matrix[8, 3] = 2
    draw_confusion_matrix(matrix, classes, tmp_path / "matrix.png")
    words = texts(drawn[0])
    assert "Confusion Matrix of 600 classes" in words
    assert "The 2 most frequent of 2 confusions" in words
    assert "class 7 → class 599" in words
    cells = drawn[0].axes[0].findobj(AxesImage)[0].get_array()
    assert cells.sum() == matrix.sum()
    assert max(cells.shape) <= figures.CELLS
    draw_confusion_matrix(9 * np.eye(600, dtype=int), classes, tmp_path / "matrix.png")
    assert "No image is misclassified" in texts(drawn[1])


def test_samples_say_which_classes_they_show(tmp_path: Path, drawn: list[Figure]) -> None:
    classes = [f"class {number}" for number in range(100)]
    draw_all(classes, tmp_path)
    assert "34 of the 100 classes, one in 3" in texts(drawn[0])
    shown = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert shown == classes[::3]


def test_large_images_are_reduced(tmp_path: Path, drawn: list[Figure]) -> None:
    images = np.full((4, 1000, 1000, 1), 200, np.uint8)
    split = Split(images, np.array([0, 0, 1, 1]), np.array([]))
    draw_samples(split, ["a", "b"], 2, tmp_path / "samples.png")
    sheet = drawn[0].findobj(AxesImage)[0].get_array()
    assert max(sheet.shape) < 200
    assert (sheet == 200).all()


def test_names_are_no_mathematics(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_all(MATHEMATICS, tmp_path)
    draw_all(MATHEMATICS * 4, tmp_path)
    for figure in drawn:
        assert set(MATHEMATICS) <= set(texts(figure).replace("\n", " ").split(" "))
        names = [text for text in figure.findobj(Text) if "$" in text.get_text()]
        assert not any(text.get_parse_math() for text in names)


def test_load_draws_such_names(workspace: Path, dataset: Path, drawn: list[Figure]) -> None:
    classes = dict(zip("0123", ["$10_$20", "_x" * 100, "قطة", HIRAGANA], strict=True))
    for split in ("train", "test"):
        (workspace / "own" / split).mkdir(parents=True)
        for digit, name in classes.items():
            shutil.copytree(dataset / split / digit, workspace / "own" / split / name)
    write_params(
        workspace,
        dataset="own",
        classes=list(classes.values()),
        train_images=300,
        validation_images=50,
        test_images=50,
    )
    load.main()
    assert "$10_$20" in texts(drawn[0])
    assert len(read_split(Path("data/prepared/train"))) == 300


def test_long_names_leave_the_plot_its_area(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_all(["0", "1", "2", "3"], tmp_path)
    draw_all([letter * 200 for letter in "xWi_"], tmp_path)
    for short, long in zip(drawn[:3], drawn[3:], strict=True):
        assert plot_area(long) > 0.9 * plot_area(short)
        assert long.get_figwidth() < 2 * short.get_figwidth()
        assert "…" in texts(long)
        edges = [t.get_window_extent() for t in long.findobj(Text) if "…" in t.get_text()]
        assert min(edge.x0 for edge in edges) >= 0
        assert max(edge.x1 for edge in edges) <= long.bbox.width


def test_letters_without_a_font_are_one_line(
    tmp_path: Path,
    drawn: list[Figure],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.setenv("MPL_IGNORE_SYSTEM_FONTS", "1")
    draw_all(["猫の目", "犬", "dog", "a\nb"], tmp_path)
    assert capsys.readouterr().out == (
        "pictures: no font here has の (U+306E), 犬 (U+72AC), 猫 (U+732B), 目 (U+76EE): drawn as "
        "\N{REPLACEMENT CHARACTER}; install one that has, as of Debian's fonts-noto-cjk, "
        "fonts-noto-core, fonts-symbola\n"
    )
    for figure in drawn:
        assert "\N{REPLACEMENT CHARACTER}" * 3 in texts(figure)
        assert "a\N{REPLACEMENT CHARACTER}b" in texts(figure)


def test_letters_come_from_a_font_that_has_them(
    tmp_path: Path,
    drawn: list[Figure],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    damaged = tmp_path / "damaged.ttf"
    damaged.write_bytes(b"no font")
    stix = f"{get_data_path()}/fonts/ttf/STIXGeneral.ttf"
    monkeypatch.setattr(lettering.font_manager, "findSystemFonts", lambda: [str(damaged), stix])
    draw_all([HIRAGANA, "dog"], tmp_path)
    assert capsys.readouterr().out == ""
    for figure in drawn:
        assert HIRAGANA in texts(figure)
    assert lettering.fonts_for(frozenset(HIRAGANA)) == (["STIXGeneral"], set())


def test_words_stay_in_order_beside_arabic(tmp_path: Path, drawn: list[Figure]) -> None:
    draw_all(["قطة", "dog"], tmp_path)
    mark = lettering.LEFT_TO_RIGHT
    words = [text.get_text() for text in drawn[2].findobj(Text)]
    assert f"predicted {mark}قطة{mark} (90%)\nactual dog" in words
