"""Run a search: its trials, and what says in the end whether the best is better."""

import argparse
import math
import re
import threading
from collections.abc import Callable
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from pathlib import Path

from common.console import InputError
from common.params import PARAMS, Seed, StageParams, read_params
from review.git import git
from review.revision import resolve
from runs.commands import whole_number
from runs.committed import check_lock, committed_params
from runs.recipe import parse_mapping
from runs.workers import describe_shares
from search import sharing
from search.search import Search, experiments_of_trials
from search.space import read_space
from search.study import DIRECTIONS, SAMPLERS, Settings, Study, clear_errors, database_url
from search.trial import Run, Runner

POLL = 5  # seconds between two looks at what other machines do
AGREED = ("params.yaml", "dvc.yaml", "dvc.lock")  # the settings, the code and the data


class SearchParams(StageParams):
    """What the search reads of params.yaml."""

    seed: Seed


def in_jobs(jobs: int, work: Callable[[int], None], stop: threading.Event) -> None:
    """Let each of some jobs work until it finds nothing more to do.

    Where one cannot go on, or Ctrl-C is pressed, `stop` ends the others.
    """
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(work, job) for job in range(jobs)]
        try:
            wait(futures, return_when=FIRST_EXCEPTION)
            failed = [error for f in futures if f.done() and (error := f.exception())]
            if failed:
                raise failed[0]
        except BaseException:
            stop.set()
            raise


def run_trials(search: Search, jobs: int, limit: int, stop: threading.Event) -> None:
    """Run trials until there are as many as the search has in all."""

    def work(job: int) -> None:
        waits = False
        while not stop.is_set():
            trial = search.study.next_trial(limit)
            if trial is not None:
                search.run_trial(trial, job)
            elif search.study.others_at_work():
                if not waits:
                    print(
                        "search: waiting for other machines, whose trials this one takes "
                        "over if they die",
                        flush=True,
                    )
                waits = True
                stop.wait(POLL)
            else:
                return

    in_jobs(jobs, work, stop)


def run_last(search: Search, jobs: int, runs: list[Run], stop: threading.Event) -> None:
    """Run what the search needs for its conclusion."""
    left = list(reversed(runs))
    choosing = threading.Lock()

    def work(job: int) -> None:
        while not stop.is_set():
            with choosing:
                if not left:
                    return
                run = left.pop()
            state, reason = search.run_unless_done(run, job, None)
            if state != "finished":
                raise InputError(f"{run.name} {state}: {reason}")

    in_jobs(jobs, work, stop)


def open_search(arguments: argparse.Namespace, jobs: int, stop: threading.Event) -> Search:
    """Check what the user typed, and return the search, new or as it was left.

    Raises
    ------
    InputError
        If something cannot be used.
    """
    for key, allowed in (("metric", DIRECTIONS), ("sampler", SAMPLERS)):
        given = getattr(arguments, key)
        if given not in allowed:
            variable = key.upper()
            raise InputError(f"{variable} is {given!r}; it must be one of {', '.join(allowed)}")
    seeds = whole_number("SEEDS", arguments.seeds, 1, 100)
    fresh = whole_number("FRESH", arguments.fresh, 0, 100)
    if fresh == 1:
        raise InputError(
            "FRESH is 1; it must be 0, or 2 or more, as one seed tells nothing of luck"
        )
    if not arguments.space:
        raise InputError("SPACE is not set; it must be a file such as spaces/default.yaml")
    path = Path(arguments.space)
    name = arguments.name or path.stem
    if not re.fullmatch("[A-Za-z0-9][A-Za-z0-9_]{0,49}", name):
        raise InputError(
            f"NAME is {name!r}; the name of a search must be of letters, digits and _, at most 50"
        )
    committed = parse_mapping(committed_params(), f"{PARAMS} of HEAD")
    space = read_space(path, committed)
    if arguments.sampler == "grid" and space.size == math.inf:
        raise InputError(f"SAMPLER=grid needs a list of choices for each parameter of {path}")
    head, params = resolve("HEAD"), read_params(SearchParams)
    check_lock(head)
    if arguments.storage:
        database_url(arguments.storage)
        sharing.check_remotes()
    pipeline = {
        file: (git("rev-parse", f"HEAD:./{file}") or b"").decode().strip() for file in AGREED
    }
    settings = Settings(
        path.read_text(encoding="utf-8"), arguments.metric, arguments.sampler, seeds, pipeline
    )
    runner = Runner(head, str((committed | space.fixed)["dataset"]), jobs, stop)
    if arguments.storage:
        sharing.fetch(name)
    ended = experiments_of_trials(name, settings)  # before the study keeps the settings as its own
    study = Study(name, settings, space, params.seed, arguments.storage)
    first, after = params.seed, params.seed + seeds
    search = Search(
        name,
        settings,
        space,
        study,
        runner,
        seeds=range(first, after),
        fresh=range(after, after + fresh),
        params=committed,
        is_shared=bool(arguments.storage),
    )
    search.rebuild(ended)
    return search


def run_search(arguments: argparse.Namespace, limit: int, jobs: int) -> None:
    """Run the trials that are missing, then say what the search has found.

    Parameters
    ----------
    arguments : Namespace
        What the user typed, by the options of `search.__main__`.
    limit : int
        How many trials there are in all.
    jobs : int
        How many run at a time.
    """
    stop = threading.Event()
    with clear_errors():
        search = open_search(arguments, jobs, stop)
        ended = sum(trial.state.is_finished() for trial in search.study.trials())
        print(
            f"search: {search.name}: {ended} of {limit} trials are done; {jobs} at a time, each "
            f"with {describe_shares(jobs)}",
            flush=True,
        )
        run_trials(search, jobs, limit, stop)
        if not search.study.may_conclude():
            print("search: all trials are done, and another machine says what was found")
            return
        if search.is_shared:
            sharing.fetch(search.name)
        runs = search.closing_runs()
        if search.fresh:
            print("search: the best and the committed settings with fresh seeds", flush=True)
        run_last(search, jobs, [run for of_role in runs.values() for run in of_role], stop)
        print(f"search: {search.conclusion(runs)}")
