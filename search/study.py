"""The study of a search: which trials there are, what the next one tries, which ones to stop.

Optuna keeps it in SQLite in this clone, or in PostgreSQL for several machines. What a trial
found is in its experiments, from which the study is made again if its file is gone.
"""

import hashlib
import json
import platform
import uuid
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.exceptions import OptunaError
from optuna.pruners import PercentilePruner
from optuna.samplers import BaseSampler, BruteForceSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState, create_trial
from sqlalchemy import create_engine, make_url
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from common.console import InputError
from search.locks import CONNECTION, Locks, OneMachine, SeveralMachines
from search.results import State
from search.space import Space, Values, rounded

FOLDER = Path(".dvc/tmp/search")  # Git does not see it
SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "tpe": lambda seed: TPESampler(seed=seed),
    "random": lambda seed: RandomSampler(seed=seed),
    "grid": lambda seed: BruteForceSampler(seed=seed),
}
DIRECTIONS = {
    "accuracy": StudyDirection.MAXIMIZE,
    "loss": StudyDirection.MINIMIZE,
}  # of each metric that judges
# A trial is stopped once it is among the worst tenth of the finished ones, at the same epoch. Half
# of them, as is usual, would stop what starts slowly, such as a rate that first rises; and as only
# good trials finish, the bar rises: a quarter stopped 17 of 30.
WORST, TRIALS_BEFORE, EPOCHS_BEFORE = 90.0, 5, 4
WORKER, REASON = "worker", "reason"

optuna.logging.set_verbosity(optuna.logging.WARNING)  # the search says itself what ends
warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)  # the grid is one


@dataclass(frozen=True)
class Settings:
    """What all trials of a search share, on each machine.

    Attributes
    ----------
    space : str
        The text of the space.
    metric : str
        What judges a trial: ``accuracy`` or ``loss`` of the validation images.
    sampler : str
        What proposes: one of `SAMPLERS`.
    seeds : int
        With how many seeds each trial runs; their mean counts.
    pipeline : dict of str to str
        Git's hashes of params.yaml, dvc.yaml and dvc.lock: the settings, the code and the data.
    """

    space: str
    metric: str
    sampler: str
    seeds: int
    pipeline: dict[str, str]

    @property
    def digest(self) -> str:
        """A short hash of all of them."""
        content = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()[:8]

    def check_same(self, others: Mapping[str, Any], name: str) -> None:
        """Check that a search was begun with the same settings.

        Raises
        ------
        InputError
            If it was not, with what differs.
        """
        own = asdict(self)
        differ = [key for key in own if key != "pipeline" and own[key] != others.get(key)]
        theirs = others.get("pipeline", {})
        differ += [file for file in self.pipeline if self.pipeline[file] != theirs.get(file)]
        if differ:
            raise InputError(
                f"the search {name} was begun with another {' and another '.join(differ)}: go on "
                "with those, or begin a search of another NAME"
            )


@dataclass(frozen=True)
class Ended:
    """A trial that has ended, as its experiments tell.

    Attributes
    ----------
    state : str
        ``finished``, ``pruned`` or ``failed``.
    values : dict
        Its parameters.
    value : float or None
        The mean of the metric over the seeds, where it is finished.
    curve : list of float
        The metric after each epoch, of the first seed.
    """

    state: State
    values: Values
    value: float | None
    curve: list[float] = field(default_factory=list)


STATES: dict[State, TrialState] = {
    "finished": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


class Study:
    """A search as Optuna keeps it.

    Parameters
    ----------
    name : str
        The name of the search.
    settings : Settings
        What its trials share.
    space : Space
        What it tries.
    seed : int
        The seed of the proposals.
    url : str
        Where PostgreSQL is; "" for SQLite in this clone.

    Raises
    ------
    InputError
        If the database cannot be used, another process works on the search in this clone, or it
        was begun with other settings.
    """

    def __init__(self, name: str, settings: Settings, space: Space, seed: int, url: str) -> None:
        self.name, self.space, self.seed = name, space, seed
        self._settings = settings
        self._worker = f"{platform.node()} {uuid.uuid4()}"
        self._own: set[int] = set()  # the trials on which jobs of this process are at work
        FOLDER.mkdir(parents=True, exist_ok=True)
        self._locks: Locks
        if url:
            address, options = database_url(url), {"connect_args": CONNECTION}
            self._locks = SeveralMachines(create_engine(address, **options), name, self._worker)
        else:
            address, options = f"sqlite:///{FOLDER / name}.db", {}
            self._locks = OneMachine(FOLDER / f"{name}.lock")
        with self._locks.choosing():  # two at once could not both make the tables
            self._storage = RDBStorage(address, engine_kwargs=options)
            self._study = optuna.create_study(
                storage=self._storage,
                study_name=name,
                load_if_exists=True,
                direction=DIRECTIONS[settings.metric],
                sampler=RandomSampler(),  # unused: `_propose` has one of its own
                pruner=PercentilePruner(WORST, TRIALS_BEFORE, EPOCHS_BEFORE),
            )
            if not self._study.user_attrs:
                self._study.set_user_attr("settings", asdict(settings))
            begun = self._study.user_attrs["settings"]
        settings.check_same(begun, name)

    def trials(self) -> list[FrozenTrial]:
        """Return all trials so far, by their numbers."""
        return self._study.get_trials(deepcopy=False)

    def best(self) -> FrozenTrial | None:
        """Return the best finished trial; None if none is finished."""
        finished = [t for t in self.trials() if t.state == TrialState.COMPLETE]
        return self._study.best_trial if finished else None

    def may_conclude(self) -> bool:
        """Return whether it is for this process to say what the search has found."""
        return self._locks.may_conclude()

    def others_at_work(self) -> bool:
        """Return whether another machine is at work on a trial."""
        with self._locks.choosing():
            running = {t._trial_id for t in self.trials() if t.state == TrialState.RUNNING}
            return bool(running - self._own)

    def rebuild(self, ended: Mapping[int, Ended]) -> None:
        """Enter the trials that experiments tell of into a study that has none.

        A trial of which no experiment tells was under way when the file was lost: it is proposed
        again, from those before it, and will be run.
        """
        with self._locks.choosing():
            for number in range(len(self.trials()), max(ended, default=-1) + 1):
                known = ended.get(number)
                if known is None:
                    self._begin(self._propose())
                    continue
                value = known.value
                if known.state == "pruned":
                    value = known.curve[-1] if known.curve else None
                self._study.add_trial(
                    create_trial(
                        state=STATES[known.state],
                        value=value,
                        params=self.space.drawn_of(known.values),
                        distributions=self.space.distributions,
                        intermediate_values=dict(enumerate(known.curve, 1)),
                    )
                )

    def next_trial(self, limit: int) -> Trial | None:
        """Return the trial that is to be run next; None if there is none.

        That is one that was begun and whose worker is dead, or a new one.

        Parameters
        ----------
        limit : int
            How many trials the search has in all.
        """
        with self._locks.choosing():
            trials = self.trials()
            for trial in trials:
                is_others = trial._trial_id not in self._own
                if trial.state == TrialState.RUNNING and is_others:
                    worker = trial.user_attrs.get(WORKER, "")
                    if not self._locks.is_alive(worker):
                        taken = Trial(self._study, trial._trial_id)
                        taken.set_user_attr(WORKER, self._worker)
                        self._own.add(trial._trial_id)
                        return taken
            drawn = self._propose() if len(trials) < limit else None
            if drawn is None:
                return None
            self._begin(drawn)
            added = self.trials()[-1]
            self._own.add(added._trial_id)
            return Trial(self._study, added._trial_id)

    def _begin(self, drawn: dict[str, Any] | None) -> None:
        """Enter a trial as running, all at once: a kill leaves it whole, or not there."""
        self._study.add_trial(
            create_trial(
                state=TrialState.RUNNING,
                params=drawn,
                distributions=self.space.distributions,
                user_attrs={WORKER: self._worker},
            )
        )

    def _propose(self) -> dict[str, Any] | None:
        """Return what the next trial tries; None if all of a grid has been tried.

        It is a function of the seed, the number of the trial and the trials before it: where one
        job runs them, a search that was interrupted proposes what it would have proposed.
        """
        trials = self.trials()
        seed = np.random.SeedSequence([self.seed, len(trials)]).generate_state(1)[0]
        sampler = SAMPLERS[self._settings.sampler](int(seed))
        memory = optuna.create_study(sampler=sampler, direction=DIRECTIONS[self._settings.metric])
        memory.add_trials([as_pruned(t) if t.state == TrialState.FAIL else t for t in trials])
        if len(trials) >= self.space.size:
            return None
        drawn = memory.ask(self.space.distributions).params
        return rounded(drawn, self.space)

    def stop_after(self, trial: Trial, curve: list[float]) -> int | None:
        """Report a trial's curve; return the epoch after which to stop it, or None to go on.

        Each epoch is reported by itself: where the trial is to be stopped does not depend on
        when somebody looks.
        """
        reported = max(self._storage.get_trial(trial._trial_id).intermediate_values, default=0)
        for epoch, value in enumerate(curve, 1):
            if epoch > reported:
                trial.report(value, epoch)
            if epoch >= reported and trial.should_prune():
                return epoch
        return None

    def end(self, trial: Trial, state: State, value: float | None, reason: str = "") -> bool:
        """Enter how a trial ended; return whether it was still this process's to end.

        It is not where the connection to the database was lost for so long that another machine
        has taken the trial.
        """
        with self._locks.choosing():
            kept = self._storage.get_trial(trial._trial_id)
            is_own = kept.user_attrs.get(WORKER) == self._worker and not kept.state.is_finished()
            if is_own:
                if reason:
                    trial.set_user_attr(REASON, reason)
                self._study.tell(trial, value, STATES[state])
            self._own.discard(trial._trial_id)
        return is_own


@contextmanager
def clear_errors() -> Iterator[None]:
    """Say in one line what is wrong with a database that cannot be used.

    Raises
    ------
    InputError
        If the ``with`` block could not use it. The line holds no password.
    """
    try:
        yield
    except (OptunaError, SQLAlchemyError) as error:
        first: BaseException = error
        while first.__cause__:  # what PostgreSQL said; Optuna and SQLAlchemy add the statement
            first = first.__cause__
        said = " ".join(str(first).split())
        raise InputError(
            f"the database of the search cannot be used: {said}; once it can, the same command "
            "goes on"
        ) from None


def as_pruned(trial: FrozenTrial) -> FrozenTrial:
    """Return a failed trial as one that was stopped at once: samplers would try it again."""
    return create_trial(
        state=TrialState.PRUNED, params=trial.params, distributions=trial.distributions
    )


def database_url(url: str) -> str:
    """Return the address of a PostgreSQL database as SQLAlchemy takes it.

    Raises
    ------
    InputError
        If it is none.
    """
    try:
        parsed = make_url(url)
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.drivername not in ("postgresql", "postgresql+psycopg"):
        raise InputError(
            "STORAGE must be the address of a PostgreSQL database, as in "
            "postgresql://user:password@host/database; without it the search is of this clone alone"
        )
    return parsed.set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
