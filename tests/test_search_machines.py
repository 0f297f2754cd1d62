"""A search on several machines: a real PostgreSQL, clones of a common remote, and what goes wrong.

Each test that needs the database is skipped, with a reason, where there is none.
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from common.console import InputError
from search import sharing
from search.locks import CONNECTION
from search.space import Space
from search.study import Settings, Study, clear_errors
from tests.helpers import ENVIRONMENT, command, commit, dvc, git

PROGRAMS = sorted(Path("/usr/lib/postgresql").glob("*/bin"))  # where Debian installs them
NOBODY = ("setpriv", "--reuid=nobody", "--regid=nogroup", "--clear-groups")
PASSWORD = "rosebud"  # noqa: S105  of a server that ends with the tests
SPACE = Space({}, {"learning_rate": FloatDistribution(0.001, 0.01)})
RANGE = "learning_rate: {low: 0.001, high: 0.01}"
SETTINGS = Settings(RANGE, "accuracy", "tpe", 1, {"dvc.lock": "1"})
TRIALS = 2


@dataclass(frozen=True)
class Database:
    """A PostgreSQL server that is this test's own."""

    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Its address, with the password."""
        return f"postgresql://searcher:{PASSWORD}@127.0.0.1:{self.port}/postgres"

    def call(self, program: str, *arguments: str) -> None:
        """Run one of its programs, which refuse to be run by root."""
        user = NOBODY if os.getuid() == 0 else ()
        path = str(PROGRAMS[-1] / program)
        subprocess.run(
            [*user, path, "-D", str(self.folder / "data"), *arguments],
            cwd=self.folder,
            check=True,
            stdout=subprocess.DEVNULL,
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        log = str(self.folder / "log")
        self.call("pg_ctl", "--wait", f"--options={options}", f"--log={log}", "start")

    def stop(self) -> None:
        """Stop it as a failure of its machine does."""
        self.call("pg_ctl", "--wait", "--mode=immediate", "stop")


def free_port() -> int:
    """Return a TCP port on which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="module")
def database() -> Iterator[Database]:
    """Start a PostgreSQL server in a folder of its own, in which a user has a password."""
    if not PROGRAMS:
        pytest.skip("PostgreSQL is not installed: apt-get install postgresql")
    if os.getuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL does not run as root, and there is no setpriv")
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "password").write_text(PASSWORD)
        if os.getuid() == 0:
            shutil.chown(folder, "nobody", "nogroup")
        database = Database(Path(folder), free_port())
        password = f"--pwfile={folder}/password"
        auth = ("--auth=scram-sha-256", "--username=searcher", password, "--no-sync")
        database.call("initdb", *auth)
        database.start()
        try:
            yield database
        finally:
            database.stop()


def study(database: Database, name: str, settings: Settings = SETTINGS) -> Study:
    """Return a study as one more machine opens it."""
    return Study(name, settings, SPACE, 1, database.url)


@pytest.fixture
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Work in an empty folder."""
    monkeypatch.chdir(tmp_path)


@pytest.mark.usefixtures("empty_folder")
def test_machines_share_trials_and_agree_on_the_settings(database: Database) -> None:
    first, second = study(database, "shared"), study(database, "shared")
    trials = [machine.next_trial(3) for machine in (first, second, first)]
    assert [trial.number for trial in trials if trial] == [0, 1, 2]
    assert first.next_trial(3) is second.next_trial(3) is None
    assert first.others_at_work()
    assert second.end(trials[1], "finished", 0.9)
    assert not first.others_at_work()
    assert second.others_at_work()
    assert not second.end(trials[0], "finished", 0.9), "it is the first machine's"
    for trial in (trials[0], trials[2]):
        assert first.end(trial, "finished", 0.8)
    assert {t.state for t in second.trials()} == {TrialState.COMPLETE}
    assert second.may_conclude()
    assert not first.may_conclude()
    other = Settings("learning_rate: [1, 2]", "loss", "tpe", 2, {"dvc.lock": "2"})
    with pytest.raises(InputError) as error:
        study(database, "shared", other)
    assert "begun with another space and another metric and another seeds" in str(error.value)
    assert "and another dvc.lock" in str(error.value)


@pytest.mark.usefixtures("empty_folder")
def test_a_search_goes_on_after_its_database_was_away(database: Database) -> None:
    machine = study(database, "away")
    trial = machine.next_trial(2)
    assert trial
    database.stop()
    with (
        pytest.raises(InputError, match="the database of the search cannot be used"),
        clear_errors(),
    ):
        machine.stop_after(trial, [0.5])
    with pytest.raises(InputError, match="Connection refused"), clear_errors():
        study(database, "away")
    database.start()
    again = study(database, "away").next_trial(2)
    assert again
    assert (again.number, again.params) == (trial.number, trial.params)


@pytest.mark.usefixtures("empty_folder")
def test_a_database_that_cannot_be_used_is_one_line_without_the_password(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CONNECTION, "connect_timeout", 2)
    with socket.create_server(("127.0.0.1", 0)) as silent:  # it takes a call and says nothing
        for url, said in {
            database.url.replace(PASSWORD, "hunter2"): "password authentication failed",
            database.url.replace("/postgres", "/nothing"): 'database "nothing" does not exist',
            database.url.replace(str(database.port), str(silent.getsockname()[1])): "timeout",
            database.url.replace("127.0.0.1", "nowhere.invalid"): "nowhere.invalid",
            database.url.replace("postgresql://", "mysql://"): "must be the address of a Postgre",
        }.items():
            with pytest.raises(InputError) as error, clear_errors():
                Study("none", SETTINGS, SPACE, 1, url)
            assert said in str(error.value)
            assert "\n" not in str(error.value)
            assert "hunter2" not in str(error.value)
            assert PASSWORD not in str(error.value)


@pytest.fixture(scope="module")
def origin(committed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the repository a space, a Git remote and a DVC remote; return the Git remote."""
    folder = tmp_path_factory.mktemp("remotes")
    (committed / "space.yaml").write_text(
        "epochs: [2, 3]\nlearning_rate: {low: 0.0005, high: 0.02, log: true}\n"
    )
    dvc(committed, "remote", "add", "--quiet", "--default", "storage", str(folder / "dvc"))
    commit(committed, "Add a space and a remote")
    git(committed, "clone", "--quiet", "--bare", ".", str(folder / "git"))
    dvc(committed, "push", "--quiet")
    return folder / "git"


def clone(origin: Path, folder: Path) -> Path:
    """Return a clone as a further machine has it, with a cache of its own."""
    git(origin, "clone", "--quiet", str(origin), str(folder))
    dvc(folder, "pull", "--quiet")
    return folder


def words(database: Database) -> list[str]:
    """Return the command that the page says to type."""
    options = ["SPACE=space.yaml", f"TRIALS={TRIALS}", "FRESH=0", f"STORAGE={database.url}"]
    return ["make", "--no-print-directory", "--assume-old", ".venv/installed", "search", *options]


def work_in(folder: Path) -> list[psutil.Process]:
    """Return the processes that work in a folder."""
    processes = psutil.process_iter(["cwd"])
    return [p for p in processes if p.info["cwd"] and Path(p.info["cwd"]).is_relative_to(folder)]


def start(database: Database, folder: Path) -> subprocess.Popen[str]:
    """Start a search as the leader of a process group."""
    return subprocess.Popen(
        words(database),
        cwd=folder,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        text=True,
    )


def wait_for_a_curve(folder: Path, process: subprocess.Popen[str]) -> None:
    """Wait until a search is in the middle of a trial."""
    while not list(folder.glob(".dvc/tmp/search/*/plots/training.csv")):
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)


def test_another_machine_takes_over_the_trial_of_one_that_was_killed(
    origin: Path, database: Database, tmp_path: Path
) -> None:
    ann, bob = (clone(origin, tmp_path / name) for name in ("ann", "bob"))
    running = [start(database, machine) for machine in (ann, bob)]
    wait_for_a_curve(bob, running[1])
    os.killpg(running[1].pid, signal.SIGKILL)  # make and the search; a trial has its own group
    deadline = time.monotonic() + 20
    while left := work_in(bob):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)
    running[1].communicate()
    output = running[0].communicate()[0]
    assert running[0].returncode == 0, output
    assert f"search: the best of {TRIALS} trials (" in output
    shared = git(ann, "ls-remote", "origin", "refs/exps/*")
    names = sorted(line.split("/")[-1] for line in shared.splitlines())
    assert names == ["space-000-42", "space-001-42"]

    # What was killed joins again, repeats nothing, and finds the same.
    assert command(bob, *words(database)).splitlines()[-1] == output.splitlines()[-1]
    assert git(ann, "ls-remote", "origin", "refs/exps/*") == shared
    assert git(bob, "for-each-ref", "--format=%(objectname)\t%(refname)", "refs/exps") in shared
    dvc(bob, "exp", "pull", "--quiet", "origin", names[0])
    dvc(bob, "exp", "apply", names[0])
    assert (bob / "models/mnist_cnn_model.h5").exists()


def test_remotes_that_are_missing_are_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    git(tmp_path, "init", "--quiet")
    dvc(tmp_path, "init", "--quiet")
    with pytest.raises(InputError, match=r"failed: fatal: .origin. does not appear to be"):
        sharing.check_remotes()
    git(tmp_path, "init", "--quiet", "--bare", "origin")
    git(tmp_path, "remote", "add", "origin", "origin")
    with pytest.raises(InputError, match="this repository has none: dvc remote add --default"):
        sharing.check_remotes()
    dvc(tmp_path, "remote", "add", "--quiet", "--default", "storage", str(tmp_path / "storage"))
    sharing.check_remotes()
