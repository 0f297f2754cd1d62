"""Measure how `load` and `train` grow with the number of images, and a sweep in the queue.

    python -m bench.scale

The images are made by bench/shifted.py. The tables are written into docs/scale.md, the plot is
docs/scale.png. It takes an hour.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

from matplotlib.figure import Figure

from bench.commands import (
    ROOT,
    Figures,
    clone_with_results,
    read_figures,
    run_command,
)
from bench.folders import make_stage_folder
from bench.memory import measure_processes
from bench.pages import measured_text, table, write_measured
from common.console import InputError, run
from common.outputs import replacing

PAGE = ROOT / "docs" / "scale.md"
PICTURE = ROOT / "docs" / "scale.png"
COMMAND = "python -m bench.scale"
SMALL, MIDDLE, LARGE = SIZES = (10_000, 100_000, 1_000_000)
ARCHIVES = 4  # that the images of each size are spread over
STAGES = ("load", "train")
RUNS = 3  # of each stage at each size; the median counts
SWEEPS = {  # experiments at a time, and threads of each: 0 leaves them to TensorFlow
    "one at a time": (1, 0),
    "two at a time, each with half of the cores": (2, (os.cpu_count() or 1) // 2),
}
EXPERIMENTS = 4
LIMIT = 1800  # seconds that a sweep may take

Growth = dict[tuple[str, int], Figures]  # by stage and number of images


def measure_stage(folder: Path, stage: str) -> Figures:
    """Run a stage, and return and print what `measure_processes` measures of it."""
    figures = measure_processes(folder, sys.executable, "-m", f"stages.{stage}")
    listed = ", ".join(f"{name} {value:,.1f}" for name, value in figures.items())
    print(f"  {stage}: {listed}", flush=True)
    return figures


def measure_growth(folder: Path) -> Growth:
    """Return the medians of `measure_stage` for each stage and number of images."""
    growth = {}
    for size in SIZES:
        print(f"making {size:,} images", flush=True)
        archives = folder / str(size) / "archives"
        run_command(ROOT, "python", "-m", "bench.shifted", str(size), str(archives), str(ARCHIVES))
        stage_folder = make_stage_folder(
            folder / str(size),
            dataset=str(archives),
            train_images=None,
            test_images=None,
            epochs=1,
        )
        run_command(stage_folder, "python", "-m", "stages.define")
        print(f"measuring {size:,} images", flush=True)
        for stage in STAGES:
            runs = 1 if (stage, size) == ("train", LARGE) else RUNS  # that one takes minutes
            measured = [measure_stage(stage_folder, stage) for _ in range(runs)]
            growth[stage, size] = {
                name: statistics.median(figures[name] for figures in measured)
                for name in measured[0]
            }
    return growth


def measure_training(folder: Path) -> dict[int, float]:
    """Return the processor time of an image in training by number of images, in microseconds.

    One process trains on each size in turn, on as many images of each.
    """
    print("measuring training", flush=True)
    folders = [folder / str(size) for size in SIZES]
    figures = read_figures(folders[0], "bench.ours", "compare", *folders)
    return dict(zip(SIZES, figures.values(), strict=True))


def count_experiments(repository: Path) -> int:
    """Return the number of experiments that have ended: each is a reference in Git."""
    references = run_command(repository, "git", "for-each-ref", "--format=%(refname)", "refs/exps")
    return sum(reference.count("/") == 4 for reference in references.split())


def measure_sweep(repository: Path, jobs: int, threads: int, seeds: range) -> float:
    """Return the seconds that the queue takes for an experiment with each of some seeds.

    Parameters
    ----------
    repository : Path
        Where to run them.
    jobs : int
        Experiments at a time.
    threads : int
        Threads of each; 0 leaves them to TensorFlow.
    seeds : range
        Seeds that no experiment has yet.
    """
    values = ",".join(map(str, seeds))
    options = ("-S", f"seed={values}", "-S", f"threads={threads or 'null'}")
    run_command(repository, "dvc", "exp", "run", "--queue", *options)
    wanted = count_experiments(repository) + len(seeds)
    start = time.perf_counter()
    run_command(repository, "dvc", "queue", "start", "--jobs", str(jobs))
    while count_experiments(repository) < wanted:
        if time.perf_counter() - start > LIMIT:
            status = run_command(repository, "dvc", "queue", "status")
            raise InputError(f"the sweep has not ended after {LIMIT} s:\n{status}")
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    # A worker that is still there would take the next sweep, with the settings of this one.
    while "0 active, 0 idle" not in run_command(repository, "dvc", "queue", "status"):
        time.sleep(1)
    print(f"  {jobs} jobs, {threads} threads: {seconds:.1f} s", flush=True)
    return seconds


def measure_sweeps(folder: Path) -> dict[str, float]:
    """Return the seconds of each way to run a sweep, on the real data."""
    print("making a repository", flush=True)
    repository = clone_with_results(folder / "repository")
    print("measuring sweeps", flush=True)
    sweeps = {}
    for number, (name, (jobs, threads)) in enumerate(SWEEPS.items(), start=1):
        seeds = range(100 * number, 100 * number + EXPERIMENTS)
        sweeps[name] = measure_sweep(repository, jobs, threads, seeds)
    return sweeps


def growth_table(growth: Growth) -> str:
    """Return the table of time and memory by number of images."""
    header = ["images", "`load`, s", "of processors, s", "largest process, MB", "all processes, MB"]
    header += ["`train`, one epoch, s", "of processors, s", "MB"]
    rows = []
    for size in SIZES:
        load, train = growth["load", size], growth["train", size]
        rows.append(
            [
                f"{size:,}",
                f"{load['seconds']:.1f}",
                f"{load['processor_seconds']:.1f}",
                f"{load['largest_process']:.0f}",
                f"{load['all_processes']:.0f}",
                f"{train['seconds']:.1f}",
                f"{train['processor_seconds']:.1f}",
                f"{train['largest_process']:.0f}",
            ]
        )
    return table(header, rows)


def sweeps_table(sweeps: dict[str, float]) -> str:
    """Return the table of the sweeps."""
    rows = [[name, f"{seconds:.1f}"] for name, seconds in sweeps.items()]
    return table(["a sweep of four experiments, other seeds", "s"], rows)


def time_of_further_images(growth: Growth, fewer: int, more: int) -> float:
    """Return the processor time of `load` for each image beyond `fewer`, in microseconds."""
    seconds = [growth["load", size]["processor_seconds"] for size in (fewer, more)]
    return (seconds[1] - seconds[0]) / (more - fewer) * 1e6


def goals_table(growth: Growth, training: dict[int, float], sweeps: dict[str, float]) -> str:
    """Return the table of the goals: each is an upper limit."""
    memory = {key: figures["largest_process"] for key, figures in growth.items()}
    early = time_of_further_images(growth, SMALL, MIDDLE)
    late = time_of_further_images(growth, MIDDLE, LARGE)
    one_at_a_time, two_at_a_time = sweeps.values()
    goals: list[tuple[str, float, float]] = [
        ("peak memory of `load`, 1,000,000 images, MB", memory["load", LARGE], 400),
        (
            "peak memory of `train`, 1,000,000 images, less that of 10,000, MB",
            memory["train", LARGE] - memory["train", SMALL],
            300,
        ),
        (
            f"`load`, processor time for each image from 100,000 to 1,000,000, {late:.1f} us, "
            f"against from 10,000 to 100,000, {early:.1f} us",
            late / early,
            1.1,
        ),
        (
            f"`train`, processor time an image of 1,000,000, {training[LARGE]:.0f} us, against of "
            f"10,000, {training[SMALL]:.0f} us",
            training[LARGE] / training[SMALL],
            1.1,
        ),
        ("the sweep two at a time, against one at a time", two_at_a_time / one_at_a_time, 1.0),
    ]
    rows = []
    for title, figure, goal in goals:
        decimals = 0 if goal > 10 else 2
        verdict = "met" if figure <= goal else "missed"
        rows.append([title, f"{figure:.{decimals}f}", f"<= {goal}", verdict])
    return table(["what", "figure", "goal", ""], rows)


def draw_growth(growth: Growth, path: Path) -> None:
    """Draw peak memory and time an image against the number of images."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    memory_axes, time_axes = figure.subplots(1, 2)
    for stage in STAGES:
        memory = [growth[stage, size]["largest_process"] for size in SIZES]
        times = [growth[stage, size]["processor_seconds"] / size * 1e6 for size in SIZES]
        memory_axes.plot(SIZES, memory, marker="o", label=stage)
        time_axes.plot(SIZES, times, marker="o", label=stage)
    memory_axes.set(title="Peak memory", ylabel="MB", ylim=(0, None))
    time_axes.set(
        title="Processor time an image, start included", ylabel="microseconds", yscale="log"
    )
    for axes in (memory_axes, time_axes):
        axes.set(xscale="log", xlabel="Images")
        axes.grid(alpha=0.3)
        axes.legend()
    with replacing(path) as new_picture:
        figure.savefig(new_picture, dpi=80, format="png")


def main() -> None:
    """Measure everything, then write the page and the plot."""
    if not Path("/proc/self/smaps_rollup").exists():
        raise InputError("memory is measured by /proc/PID/smaps_rollup, which Linux alone has")
    with tempfile.TemporaryDirectory() as temporary:
        growth = measure_growth(Path(temporary))
        training = measure_training(Path(temporary))
        sweeps = measure_sweeps(Path(temporary))
    text = measured_text(
        COMMAND,
        growth_table(growth),
        sweeps_table(sweeps),
        goals_table(growth, training, sweeps),
        f"![Memory and time against the number of images]({PICTURE.name})",
    )
    print(text)
    draw_growth(growth, PICTURE)
    write_measured(PAGE, COMMAND, text)


if __name__ == "__main__":
    run("scale", main)
