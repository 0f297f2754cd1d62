"""Measure how `load` and `train` grow with the number of images, and a sweep in the queue.

Usage: python bench/scale.py. The images are made by bench/shifted.py. Tables and plot are saved
as bench/scale.md, followed by bench/scale_notes.md, and bench/scale.png.
"""

import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from matplotlib.figure import Figure
from run import AUTHOR, ENVIRONMENT, ROOT, clone_with_results, command, figures, machine, yaml

BENCH = ROOT / "bench"
SIZES = (10_000, 100_000, 1_000_000)
STAGES = ("load", "train")
RUNS = 3  # medians of
SWEEPS = {  # experiments at a time, threads of each: 0 leaves it to TensorFlow
    "one at a time": (1, 0),
    "two at a time, each with half of the cores": (2, os.cpu_count() // 2),
}
EXPERIMENTS = 4
LIMIT = 1800  # seconds


def family(pid: int) -> list[int]:
    """Return a process and those that it started."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in family(int(child)))]


def kilobytes(pid: int, file: str, key: str) -> int:
    """Return a line of /proc/<pid>/<file>, which see in proc(5)."""
    lines = Path(f"/proc/{pid}/{file}").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith(f"{key}:")), 0)


def children_cpu() -> float:
    """Return the processor time of all processes that were started and have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(folder: Path, stage: str) -> dict[str, float]:
    """Run a stage; return its time in seconds and its peak memory in MB.

    ``cpu`` is the time of processors, in all of its processes: unlike ``seconds``, another
    program that runs meanwhile changes it little. ``rss`` is the largest resident set of any
    process; ``pss`` is the largest sum over them, with what they share counted once.
    """
    start, start_cpu = time.perf_counter(), children_cpu()
    process = subprocess.Popen(
        [sys.executable, "-m", f"stages.{stage}"],
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.DEVNULL,
    )
    rss = pss = 0
    while process.poll() is None:
        try:
            pids = family(process.pid)
            rss = max(rss, *(kilobytes(pid, "status", "VmHWM") for pid in pids))
            pss = max(pss, sum(kilobytes(pid, "smaps_rollup", "Pss") for pid in pids))
        except OSError:
            pass  # one of them has ended meanwhile
        time.sleep(0.05)
    if process.returncode:
        sys.exit(f"bench: {stage} failed")
    taken = {"seconds": time.perf_counter() - start, "cpu": children_cpu() - start_cpu}
    taken |= {"rss": rss / 1000, "pss": pss / 1000}
    print(f"  {stage}: " + ", ".join(f"{k} {v:,.1f}" for k, v in taken.items()), flush=True)
    return taken


def growth(folder: Path) -> dict[tuple[str, int], dict[str, float]]:
    """Return the medians of `measure` for each stage and size."""
    found = {}
    for size in SIZES:
        print(f"making {size:,} images", flush=True)
        work = folder / str(size)
        archives = work / "archives"
        command(ROOT, "python", "bench/shifted.py", str(size), str(archives), "4")
        params = yaml.load(ROOT / "params.yaml")
        params |= {"dataset": str(archives), "train_images": None, "test_images": None, "epochs": 1}
        yaml.dump(params, work / "params.yaml")
        command(work, "python", "-m", "stages.define")
        print(f"measuring {size:,} images", flush=True)
        for stage in STAGES:
            runs = 1 if (stage, size) == ("train", SIZES[-1]) else RUNS
            taken = [measure(work, stage) for _ in range(runs)]
            found[stage, size] = {k: statistics.median(t[k] for t in taken) for k in taken[0]}
    return found


def training(folder: Path) -> list[float]:
    """Return the processor time of an image in training at each size, in microseconds.

    All sizes train in one process, in turn, on as many images.
    """
    print("measuring training", flush=True)
    works = [str(folder / str(size)) for size in SIZES]
    return list(figures(Path(works[0]), BENCH / "ours.py", "compare", *works).values())


def sweep(repository: Path, jobs: int, threads: int, seeds: range) -> float:
    """Return the seconds that the queue takes for an experiment with each of some seeds."""
    values = ",".join(map(str, seeds))
    command(repository, "dvc", "exp", "run", "--queue", "-S", f"seed={values}")
    setting = {"TF_NUM_INTRAOP_THREADS": str(threads), "TF_NUM_INTEROP_THREADS": str(threads)}

    def done() -> int:
        """Count the experiments that have ended: each is a reference in Git."""
        refs = command(repository, "git", "for-each-ref", "--format=%(refname)", "refs/exps")
        return sum(ref.count("/") == 4 for ref in refs.split())

    before, start = done(), time.perf_counter()
    command(repository, "dvc", "queue", "start", "--jobs", str(jobs), **setting)
    while done() < before + len(seeds):
        if time.perf_counter() - start > LIMIT:
            sys.exit(
                f"bench: no end of the sweep:\n{command(repository, 'dvc', 'queue', 'status')}"
            )
        time.sleep(0.2)
    seconds = time.perf_counter() - start
    while "0 active, 0 idle" not in command(repository, "dvc", "queue", "status"):
        time.sleep(1)  # a worker that is still there would take the next sweep, as it was started
    print(f"  {jobs} jobs, {threads} threads: {seconds:.1f} s", flush=True)
    return seconds


def sweeps(folder: Path) -> dict[str, float]:
    """Return the seconds of each way to run a sweep, on the real data."""
    print("making a repository", flush=True)
    repository = clone_with_results(folder / "repository")
    for key, value in (part.split("=") for part in AUTHOR[1::2]):
        command(repository, "git", "config", key, value)
    print("measuring sweeps", flush=True)
    return {
        name: sweep(repository, jobs, threads, range(100 * number, 100 * number + EXPERIMENTS))
        for number, (name, (jobs, threads)) in enumerate(SWEEPS.items(), start=1)
    }


def further(found: dict, small: int, large: int) -> float:
    """Return the processor time of `load` for each further image, in microseconds."""
    return (found["load", large]["cpu"] - found["load", small]["cpu"]) / (large - small) * 1e6


def draw(found: dict) -> None:
    """Draw peak memory and time an image against the number of images."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    memory, times = figure.subplots(1, 2)
    for stage in STAGES:
        memory.plot(SIZES, [found[stage, n]["rss"] for n in SIZES], marker="o", label=stage)
        times.plot(
            SIZES, [found[stage, n]["cpu"] / n * 1e6 for n in SIZES], marker="o", label=stage
        )
    memory.set(title="Peak memory", ylabel="MB", ylim=(0, None))
    times.set(title="Processor time an image, start included", ylabel="microseconds", yscale="log")
    for axes in (memory, times):
        axes.set(xscale="log", xlabel="Images")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(BENCH / "scale.png", dpi=80)


def main() -> None:
    """Measure everything and save it."""
    with tempfile.TemporaryDirectory() as folder:
        found = growth(Path(folder))
        trained = training(Path(folder))
        swept = sweeps(Path(folder))
    lines = [
        "| images | `load`, s | of processors, s | largest process, MB | all processes, MB "
        "| `train`, one epoch, s | of processors, s | MB |",
        "| --- |" + " --- |" * 7,
    ]
    for size in SIZES:
        load, train = (found[stage, size] for stage in STAGES)
        lines.append(
            f"| {size:,} | {load['seconds']:.1f} | {load['cpu']:.1f} | {load['rss']:.0f} | "
            f"{load['pss']:.0f} | {train['seconds']:.1f} | {train['cpu']:.1f} | "
            f"{train['rss']:.0f} |"
        )
    lines += ["", "| a sweep of four experiments, other seeds | s |", "| --- | --- |"]
    lines += [f"| {name} | {seconds:.1f} |" for name, seconds in swept.items()]
    small, middle, large = SIZES
    one, two = swept.values()
    rows = [
        ("peak memory of `load`, 1,000,000 images, MB", found["load", large]["rss"], 400),
        (
            "peak memory of `train`, 1,000,000 images, less that of 10,000, MB",
            found["train", large]["rss"] - found["train", small]["rss"],
            300,
        ),
    ]
    late, early = (further(found, *sizes) for sizes in ((middle, large), (small, middle)))
    rows += [
        (
            f"`load`, processor time for each image from 100,000 to 1,000,000, {late:.1f} us, "
            f"against from 10,000 to 100,000, {early:.1f} us",
            late / early,
            1.1,
        ),
        (
            f"`train`, processor time an image of 1,000,000, {trained[-1]:.0f} us, against of "
            f"10,000, {trained[0]:.0f} us",
            trained[-1] / trained[0],
            1.1,
        ),
    ]
    rows.append(("the sweep two at a time, against one at a time", two / one, 1.0))
    lines += ["", "| what | figure | goal | |", "| --- | --- | --- | --- |"]
    for title, figure, goal in rows:
        verdict = "met" if figure <= goal else "missed"
        lines.append(f"| {title} | {figure:.{0 if goal > 10 else 2}f} | <= {goal} | {verdict} |")
    draw(found)
    text = f"# Scale\n\n`python bench/scale.py`: {machine()}.\n\n" + "\n".join(lines) + "\n"
    text += "\n![Memory and time against the number of images](scale.png)\n\n"
    print(text)
    (BENCH / "scale.md").write_text(text + (BENCH / "scale_notes.md").read_text())


if __name__ == "__main__":
    main()
