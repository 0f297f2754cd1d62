"""Measure this pipeline against what its users would run instead, on the real data.

Usage: python bench/run.py [ROW ...]; all rows by default. Both sides of a row run in turn,
A B A B; the table of their medians and ratios is printed and, after all rows, saved as
bench/results.md. What a row measures is written down in `ROWS`.
"""

import datetime
import importlib.metadata
import json
import os
import platform
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

yaml = YAML(typ="safe")  # as DVC reads it
ROOT = Path(__file__).parent.parent
ARCHIVE = ROOT / "data" / "mnist-jpg.zip"
NOTES = ROOT / "bench" / "notes.md"
RESULTS = ROOT / "bench" / "results.md"
ENVIRONMENT = os.environ | {
    "DVC_NO_ANALYTICS": "1",
    "PYTHONPATH": str(ROOT),
    "TF_CPP_MIN_LOG_LEVEL": "3",
}
RECIPES = {name: yaml.load(ROOT / f"recipes/{name}.yaml") for name in ("fast", "accurate")}
AUGMENTATION = ("rotation", "shift", "scale", "shear", "elastic")
SEEDS = range(1, 6)


@dataclass
class Row:
    """One comparison.

    Attributes
    ----------
    title : str
        What is measured, and its unit.
    ours, theirs : callable
        Each returns one figure, a run at a time.
    goal : str
        ``>= 20`` or ``<= 1.0``, for the ratio ours / theirs.
    runs : int
        Number of pairs.
    """

    title: str
    ours: Callable[[], float]
    theirs: Callable[[], float]
    goal: str
    runs: int = 5


class Bench:
    """Prepared folders, and a method for each figure."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.epochs = 5
        self.accuracies: dict[str, list[float]] = {"ours": [], "theirs": []}
        with zipfile.ZipFile(ARCHIVE) as archive:
            archive.extractall(folder)
        self.images = folder / "mnist-jpg"
        self.repository = clone_with_results(folder / "repository")
        self.empty = folder / "empty"
        self.empty.mkdir()
        command(self.empty, "git", "init", "--quiet")
        command(self.empty, "dvc", "init", "--quiet")
        (self.empty / "dvc.yaml").write_text("stages: {nothing: {cmd: 'true', params: [epochs]}}\n")
        (self.empty / "params.yaml").write_text("epochs: 0\n")
        command(self.empty, "dvc", "repro")
        command(self.empty, "git", "add", "--all")
        command(self.empty, "git", *AUTHOR, "commit", "--quiet", "--message", "empty")
        self.all = self.stages_in("all", train_images=None, test_images=None, validation_images=1)
        command(self.all, "python", "-m", "stages.load")
        command(self.all, "python", "-m", "stages.define")
        self.fast = self.stages_in("fast", **RECIPES["fast"])

    def stages_in(self, name: str, **changes: object) -> Path:
        """Make a folder in which stages run by themselves, with some parameters changed."""
        folder = self.folder / name
        folder.mkdir(exist_ok=True)
        params = yaml.load(ROOT / "params.yaml")
        params |= {"dataset": str(ARCHIVE)} | changes
        yaml.dump(params, folder / "params.yaml")
        return folder

    def peer(self, name: str, *words: object) -> dict[str, float]:
        """Run the other side; return its figures."""
        return figures(self.folder, ROOT / "bench/peers.py", name, *words)

    def decode(self, path: Path) -> float:
        """Images a second that `load` finds and decodes."""
        return figures(self.repository, ROOT / "bench/ours.py", "decode", path)["images_per_second"]

    def flow(self) -> float:
        """Images a second of `flow_from_directory`."""
        return self.peer("flow", self.images)["images_per_second"]

    def repro(self) -> float:
        """Seconds of the four stages under `dvc repro`, each run anew."""
        stages = ("load", "define", "train", "evaluate")
        return seconds(self.repository, "dvc", "repro", "--force", "--single-item", *stages)

    def notebook(self) -> float:
        """Seconds of the notebook as one script."""
        notebook = ROOT / "bench/notebook.py"
        return seconds(self.folder, "python", str(notebook), str(self.folder))

    def experiment(self) -> float:
        """Seconds of an experiment with another number of epochs, less the epochs."""
        self.epochs += 1
        start = time.perf_counter()
        output = command(self.repository, "dvc", "exp", "run", "-S", f"epochs={self.epochs}")
        whole = time.perf_counter() - start
        return whole - sum(map(float, re.findall(r"; ([\d.]+) s$", output, re.MULTILINE)))

    def bare_experiment(self) -> float:
        """Seconds of an experiment that does nothing, and two imports of TensorFlow."""
        self.epochs += 1
        setting = f"epochs={self.epochs}"
        bare = seconds(self.empty, "dvc", "exp", "run", "-S", setting)
        return bare + sum(seconds(self.empty, "python", "-c", "import tensorflow") for _ in "12")

    def no_op(self, folder: Path) -> float:
        """Seconds of a `dvc repro` that has nothing to do."""
        return seconds(folder, "dvc", "repro")

    def train(self, **changes: object) -> float:
        """Training images a second of the stage."""
        folder = self.stages_in("speed", **changes)
        if not (folder / "data").exists():
            command(folder, "python", "-m", "stages.load")
        command(folder, "python", "-m", "stages.define")
        return figures(folder, ROOT / "bench/ours.py", "train")["images_per_second"]

    def accurate(self, **changes: object) -> float:
        """Training images a second of the recipe `accurate`, on the images of the default."""
        images = {"train_images": 10_000, "validation_images": 2000, "test_images": 2000}
        return self.train(**RECIPES["accurate"] | images | changes)

    def best_peer(self, batch_size: int, precision: str) -> float:
        """Training images a second of Keras's `fit` or of PyTorch, whichever is faster."""
        prepared = self.repository / "data/prepared"
        found = [self.peer("keras_fit", prepared, batch_size, precision)["images_per_second"]]
        try:
            importlib.metadata.version("torch")
        except importlib.metadata.PackageNotFoundError:
            print("    PyTorch is not installed: Keras alone is compared", flush=True)
        else:
            figure = self.peer("torch_eager", prepared, batch_size, precision)
            found.append(figure["images_per_second"])
        print(f"    Keras, PyTorch: {', '.join(f'{f:,.0f}' for f in found)}", flush=True)
        return max(found)

    def time_to_99(self) -> float:
        """Seconds of the epochs of the shortest schedule found; its accuracy is kept."""
        seed = SEEDS[len(self.accuracies["ours"])]
        self.stages_in("fast", **RECIPES["fast"], seed=seed)
        for stage in ("load", "define", "train", "evaluate"):
            output = command(self.fast, "python", "-m", f"stages.{stage}")
            if stage == "train":
                times = re.findall(r"; ([\d.]+) s$", output, re.MULTILINE)
        accuracy = json.loads((self.fast / "metrics/evaluate.json").read_text())["test_accuracy"]
        self.accuracies["ours"].append(accuracy)
        return sum(map(float, times))

    def recipe(self) -> float:
        """Seconds of eight epochs of the keras.io recipe; its accuracy is kept."""
        seed = SEEDS[len(self.accuracies["theirs"])]
        found = self.peer("keras_recipe", self.all / "data/prepared", seed, 8)
        self.accuracies["theirs"].append(found["test_accuracy"])
        return found["seconds"]

    def memory(self, stage: str) -> float:
        """Peak memory of a stage on all 70,000 images, in MB."""
        self.stages_in("all", train_images=None, test_images=None, validation_images=1, epochs=1)
        return peak(self.all, "python", "-m", f"stages.{stage}")

    def notebook_memory(self) -> float:
        """Peak memory of the notebook's approach on all 70,000 images, in MB."""
        return peak(
            self.folder, "python", str(ROOT / "bench/peers.py"), "notebook_memory", str(self.images)
        )


AUTHOR = ("-c", "user.name=bench", "-c", "user.email=bench@example.com")


def clone_with_results(folder: Path) -> Path:
    """Clone this repository and run its pipeline; return where."""
    command(ROOT, "git", "clone", "--quiet", str(ROOT), str(folder))
    shutil.copy(ARCHIVE, folder / "data")
    command(folder, "dvc", "commit", "--force", "data/dvc.yaml")
    command(folder, "dvc", "repro")
    return folder


def command(folder: Path, *words: str, **environment: str) -> str:
    """Run a command that must succeed; return what it prints."""
    done = subprocess.run(
        words,
        cwd=folder,
        env=ENVIRONMENT | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"bench: {' '.join(words)} failed:\n{done.stdout[-3000:]}")
    return done.stdout


def seconds(folder: Path, *words: str) -> float:
    """Return the wall time of a command."""
    start = time.perf_counter()
    command(folder, *words)
    return time.perf_counter() - start


def figures(folder: Path, script: Path, *words: object) -> dict[str, float]:
    """Run a script; return the JSON of its last line."""
    output = command(folder, "python", str(script), *map(str, words))
    return json.loads(output.strip().splitlines()[-1])


def peak(folder: Path, *words: str) -> float:
    """Return the largest resident set of a command, in MB."""
    code = (
        "import resource, subprocess, sys; subprocess.run(sys.argv[1:], check=True, "
        "stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL); "
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000)"
    )
    return float(command(folder, "python", "-c", code, *words))


def rows(bench: Bench) -> dict[str, Row]:
    """Return every comparison, by its number."""
    return {
        "1": Row(
            "read and decode 70,000 JPEG files from the archive, images/s, against "
            "`flow_from_directory`",
            lambda: bench.decode(ARCHIVE),
            bench.flow,
            ">= 20",
        ),
        "2": Row(
            "the same from a folder, images/s",
            lambda: bench.decode(bench.images),
            bench.flow,
            ">= 8",
        ),
        "3": Row(
            "`dvc repro` of the four stages, default settings, s, against the notebook as a script",
            bench.repro,
            bench.notebook,
            "<= 1.0",
            3,
        ),
        "4": Row(
            "`dvc exp run -S epochs=...` less its epochs, s, against a bare `dvc exp run` and two "
            "imports of TensorFlow",
            bench.experiment,
            bench.bare_experiment,
            "<= 1.1",
            3,
        ),
        "5": Row(
            "no-op `dvc repro`, s, against that of an empty one-stage project",
            lambda: bench.no_op(bench.repository),
            lambda: bench.no_op(bench.empty),
            "<= 1.15",
        ),
        "6a": Row(
            "training, batch 32, float32, images/s, against the better of Keras `fit` and PyTorch",
            lambda: bench.train(batch_size=32, precision="float32"),
            lambda: bench.best_peer(32, "float32"),
            ">= 1.0",
        ),
        "6b": Row(
            "training, batch 128, bfloat16, images/s, against the better of the two",
            lambda: bench.train(batch_size=128, precision="mixed_bfloat16"),
            lambda: bench.best_peer(128, "mixed_bfloat16"),
            ">= 1.0",
        ),
        "7": Row(
            "training to 99.0% test accuracy, s, against eight epochs of the keras.io recipe",
            bench.time_to_99,
            bench.recipe,
            "<= 0.1",
        ),
        "8a": Row(
            "peak memory of `load`, 70,000 images, MB, against the notebook's approach",
            lambda: bench.memory("load"),
            bench.notebook_memory,
            "<= 0.33",
            3,
        ),
        "8b": Row(
            "peak memory of `train`, 60,000 images, MB, against the notebook's approach",
            lambda: bench.memory("train"),
            bench.notebook_memory,
            "<= 0.33",
            3,
        ),
        "9": Row(
            "training of `accurate`, images/s, against the same without augmentation",
            bench.accurate,
            lambda: bench.accurate(**dict.fromkeys(AUGMENTATION, 0)),
            ">= 0.8",
        ),
    }


def measure(row: Row) -> tuple[float, float, float]:
    """Run both sides in turn; return the medians of ours, theirs and the ratio of each pair."""
    pairs = []
    for number in range(1, row.runs + 1):
        pairs.append((row.ours(), row.theirs()))
        ours, theirs = pairs[-1]
        print(f"  {number}/{row.runs}: {ours:,.2f}  {theirs:,.2f}", flush=True)
    ours, theirs = (statistics.median(side) for side in zip(*pairs, strict=True))
    return ours, theirs, statistics.median(a / b for a, b in pairs)


def machine() -> str:
    """Name the processor, the operating system and the versions that matter."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    packages = ("tensorflow", "keras", "dvc", "opencv-python-headless", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    return (
        f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d}, {model[1] if model else 'processor'}, "
        f"{os.cpu_count()} cores, {platform.system()} {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Measure the rows asked for."""
    wanted = sys.argv[1:]
    lines = ["| # | what | this project | the other | ratio | goal | |", "| --- |" + " --- |" * 6]
    with tempfile.TemporaryDirectory() as folder:
        print("bench: preparing", flush=True)
        bench = Bench(Path(folder))
        for number, row in rows(bench).items():
            if wanted and number not in wanted:
                continue
            print(f"{number}: {row.title}", flush=True)
            ours, theirs, ratio = measure(row)
            sign, goal = row.goal.split()
            met = ratio >= float(goal) if sign == ">=" else ratio <= float(goal)
            lines.append(
                f"| {number} | {row.title} | {ours:,.2f} | {theirs:,.2f} | {ratio:.2f} | "
                f"{row.goal} | {'met' if met else 'missed'} |"
            )
            print(lines[-1], flush=True)
        for side, found in bench.accuracies.items():
            if found:
                listed = ", ".join(f"{accuracy:.2%}" for accuracy in found)
                lines.append(f"\nRow 7, {side}: {listed}; mean {statistics.mean(found):.3%}.")
    text = f"# Benchmark\n\n`make bench`: {machine()}.\n\n" + "\n".join(lines) + "\n"
    print(text)
    if not wanted:
        RESULTS.write_text(text + "\n" + NOTES.read_text())


if __name__ == "__main__":
    main()
