"""A search: its trials, what they are judged by, and what it finds."""

import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import mean

from optuna.trial import Trial

from common.console import InputError
from review.revision import resolve
from search import closing, sharing
from search.results import Result, State, read_results
from search.space import SAME_FOR_ALL, Space, Values
from search.study import STATES, Ended, Settings, Study
from search.trial import Run, Runner, experiment_named


@dataclass(frozen=True)
class Search:
    """A search that runs in this process.

    Attributes
    ----------
    name : str
        Its name.
    settings : Settings
        What its trials share.
    space : Space
        What it tries.
    study : Study
        Its trials.
    runner : Runner
        Runs them.
    seeds : range
        With which seeds each trial is run.
    params : dict
        The committed parameters.
    fresh : range
        The seeds that chose nothing, with which its best setting is judged at the end.
    is_shared : bool
        Whether other machines work on it.
    """

    name: str
    settings: Settings
    space: Space
    study: Study
    runner: Runner
    seeds: range
    fresh: range
    params: Values
    is_shared: bool

    def make_run(self, role: str, label: str, seed: int, values: Values, trial: int | None) -> Run:
        """Return a run of the pipeline, of this search."""
        trailers = {
            "Search": self.name,
            "Settings": self.settings.digest,
            "Metric": self.settings.metric,
            "Role": role,
        }
        if trial is not None:
            trailers["Trial"] = str(trial)
        return Run(self.name, label, seed, values, trailers)

    def run_trial(self, trial: Trial, job: int) -> None:
        """Run a trial with each of its seeds, and enter how it ended."""
        began, reason = time.monotonic(), ""
        state: State = "finished"
        values = self.space.values_of(trial.params)
        scores: list[float] = []
        for seed in self.seeds:
            label = f"{trial.number:03d}"
            run = self.make_run("trial", label, seed, values, trial.number)
            state, reason = self.run_unless_done(run, job, trial if not scores else None)
            if state != "finished":
                break
            scores.append(self.score(run.name))
        value = mean(scores) if state == "finished" else None
        if not self.study.end(trial, state, value, reason):
            print(f"search: trial {trial.number} was taken over by another machine", flush=True)
            return
        told = f"{self.settings.metric} {value:.4f}" if value is not None else f"{state}. {reason}"
        seconds = time.monotonic() - began
        settings = ", ".join(f"{key}={trial.params[key]}" for key in trial.params)
        print(f"search: trial {trial.number}: {told} ({seconds:.0f} s; {settings})", flush=True)

    def run_unless_done(self, run: Run, job: int, trial: Trial | None) -> tuple[State, str]:
        """Run the pipeline, unless there is the experiment; return how it ended, and why.

        Parameters
        ----------
        run : Run
            What to run.
        job : int
            Which job does it.
        trial : Trial or None
            To which its curve is reported; None if it is not to be stopped.
        """
        if self.is_shared:
            sharing.fetch(self.name)  # another machine may have ended after it, or before the next
        for state in STATES:
            if experiment_named(run.name_as(state)):
                return state, ""

        def when_to_stop(rows: list[dict[str, float]]) -> int | None:
            curve = [row[f"validation_{self.settings.metric}"] for row in rows]
            return self.study.stop_after(trial, curve) if trial else None

        outcome = self.runner.run(run, job, when_to_stop)
        if self.is_shared:
            sharing.push(self.name)
        return outcome.state, outcome.reason

    def score(self, experiment: str) -> float:
        """Return the metric of an experiment that ran to its end."""
        return float(str(resolve(experiment).metrics[f"validation_{self.settings.metric}"]))

    def rebuild(self, of_trials: Mapping[int, list[Result]]) -> None:
        """Enter the trials that experiments tell of, and that the study does not know.

        Parameters
        ----------
        of_trials : dict of int to list of Result
            The experiments of each, by its number.
        """
        self.runner.remove_folders(r.name for results in of_trials.values() for r in results)
        ended = {number: self.ended(results) for number, results in of_trials.items()}
        self.study.rebuild({number: trial for number, trial in ended.items() if trial})

    def ended(self, results: list[Result]) -> Ended | None:
        """Return how a trial ended, by its experiments; None if some of its seeds are missing."""
        states = {result.state for result in results}
        if states == {"finished"} and len(results) < len(self.seeds):
            return None
        state = min(states, key=list(STATES)[::-1].index)  # one seed that failed fails the trial
        metric = f"validation_{self.settings.metric}"
        first = min(results, key=lambda result: int(result.trailers["Seed"]))
        return Ended(
            state,
            {key: first.params[key] for key in self.space.distributions},
            value=mean(result.metrics[metric] for result in results)
            if state == "finished"
            else None,
            curve=[] if first.curve is None else first.curve[metric].tolist(),
        )

    def closing_runs(self) -> dict[str, list[Run]]:
        """Return the runs with fresh seeds of the best setting and of the committed one."""
        best = self.study.best()
        if best is None:
            raise InputError("no trial ran to its end, so that there is no best one")
        values = self.space.values_of(best.params)
        images = {key: values[key] for key in SAME_FOR_ALL if key in values}
        return {
            "winner": [
                self.make_run("winner", "winner", s, values, best.number) for s in self.fresh
            ],
            "default": [self.make_run("default", "default", s, images, None) for s in self.fresh],
        }

    def conclusion(self, runs: dict[str, list[Run]]) -> str:
        """Return the sentence with which the search ends, once its last runs are there."""
        best = self.study.best()
        if best is None:
            raise InputError("no trial ran to its end, so that there is no best one")
        trials = self.study.trials()
        result = None
        if self.fresh:
            sides = {role: [resolve(run.name) for run in of] for role, of in runs.items()}
            result = closing.compare(sides["winner"], sides["default"], len(trials))
        names = {state: name for name, state in STATES.items()}
        counts = Counter(names[trial.state] for trial in trials)
        values = self.space.values_of(best.params)
        changes = {key: value for key, value in values.items() if value != self.params.get(key)}
        return closing.sentence(best.number, changes, counts, result, len(self.fresh))


def experiments_of_trials(search: str, settings: Settings) -> dict[int, list[Result]]:
    """Return the experiments of each trial of a search, by its number.

    Raises
    ------
    InputError
        If a search of the same name made them with other settings.
    """
    of_trials: dict[int, list[Result]] = defaultdict(list)
    for result in read_results():
        told = result.trailers
        if told.get("Search") == search and told.get("Role") == "trial":
            of_trials[int(told["Trial"])].append(result)
            if told["Settings"] != settings.digest:
                raise InputError(
                    f"the experiment {result.name} is of a search {search} with other "
                    "settings: take another NAME, or remove its experiments"
                )
    return of_trials
