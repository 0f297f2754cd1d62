"""Run the current settings with several seeds, as DVC experiments of the queue: `make seeds N=5`.

    python -m runs.seeds N

The seeds are that of params.yaml and the N - 1 that follow it. A seed of which there is a result
is not run again, so that one can interrupt this program and start it again.
"""

import argparse
from statistics import fmean, stdev

from pydantic import Field

from common.console import InputError, importing, run
from common.params import Seed, StageParams, read_params
from review.git import check_place
from runs.commands import whole_number
from runs.committed import check_lock, check_tree


class SeedsParams(StageParams):
    """What this program reads of params.yaml."""

    seed: Seed
    dataset: str = Field(min_length=1, description="the path of a folder or zip archive")


def main() -> None:
    """Run the seeds that are missing, then print mean and standard deviation."""
    parser = argparse.ArgumentParser(prog="make seeds", description=__doc__.splitlines()[0])
    parser.add_argument("n", metavar="N", help="number of seeds")
    number = whole_number("N", parser.parse_args().n, 2)
    check_place()
    check_tree()
    with importing("seeds"):  # it takes a second: pandas and DVC
        from review.revision import resolve
        from runs.queue import put_into_queue, run_queue

    head, params = resolve("HEAD"), read_params(SeedsParams)
    check_lock(head)
    seeds = range(params.seed, params.seed + number)
    names = {seed: f"seed-{seed}-{head.commit[:7]}" for seed in seeds}

    known = head.accuracies_by_seed()
    missing = {seed: name for seed, name in names.items() if seed not in known}
    if missing:
        put_into_queue(missing, params.dataset)
        print(
            f"seeds: running {', '.join(map(str, missing))}; `dvc queue status` shows them",
            flush=True,
        )
        run_queue(set(missing.values()))

    results = head.accuracies_by_seed()
    for seed in seeds:
        if seed in results:
            print(f"seeds: {seed}: accuracy {results[seed]:.4f}")
    failed = [name for seed, name in names.items() if seed not in results]
    if failed:
        raise InputError(
            f"no result of {', '.join(failed)}; `dvc queue logs NAME` says why; "
            "start again to go on"
        )
    accuracies = [results[seed] for seed in seeds]
    mean, deviation = fmean(accuracies), stdev(accuracies)
    print(f"seeds: {number}: mean {mean:.2%}, standard deviation {100 * deviation:.2f} points")


if __name__ == "__main__":
    run("seeds", main)
