"""One pipeline, several people: remotes, experiments that travel, a cache of links."""

import getpass
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import ENVIRONMENT, command, commit, contents, dvc, git, stages_run, yaml

SSHD = shutil.which("sshd", path=f"{os.environ['PATH']}{os.pathsep}/usr/sbin")
SSHD_CONFIG = """
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host
AuthorizedKeysFile {folder}/user.pub
AuthenticationMethods publickey
StrictModes no
UsePAM no
PidFile none
Subsystem sftp internal-sftp
"""


@pytest.fixture(scope="module")
def published(committed: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Push Git's part to a bare repository and DVC's to a folder."""
    outside = tmp_path_factory.mktemp("outside")
    dvc(committed, "remote", "add", "--default", "storage", str(outside / "storage"))
    commit(committed, "a remote")
    git(outside, "init", "--quiet", "--bare", "--initial-branch=main", "origin.git")
    git(committed, "remote", "add", "origin", str(outside / "origin.git"))
    git(committed, "push", "--quiet", "origin", "main")
    dvc(committed, "push")
    return committed


def clone(published: Path, folder: Path) -> Path:
    """Clone what was pushed to the bare repository, as a colleague does."""
    origin = git(published, "remote", "get-url", "origin").strip()
    git(folder.parent, "clone", "--quiet", origin, folder.name)
    return folder


def outputs(folder: Path) -> dict[str, bytes]:
    """Return what DVC keeps, as it is in the workspace."""
    return contents(folder / "data/prepared") | contents(folder / "models")


def test_a_clone_pulls_and_has_nothing_to_run(published: Path, tmp_path: Path) -> None:
    mine = clone(published, tmp_path / "mine")
    assert not (mine / ".dvc/cache").exists()
    assert not (mine / "models").exists()
    dvc(mine, "pull")
    assert stages_run(dvc(mine, "repro")) == []
    assert outputs(mine) == outputs(published)


def test_an_experiment_travels(published: Path, tmp_path: Path) -> None:
    mine, theirs = clone(published, tmp_path / "mine"), clone(published, tmp_path / "theirs")
    dvc(mine, "pull")
    dvc(mine, "exp", "run", "--name", "fewer", "-S", "test_images=90")
    dvc(mine, "exp", "push", "origin", "fewer")
    dvc(theirs, "exp", "pull", "origin", "fewer")
    dvc(theirs, "exp", "apply", "fewer")
    assert yaml.load(theirs / "params.yaml")["test_images"] == 90
    dvc(theirs, "pull")
    assert stages_run(dvc(theirs, "repro")) == []
    assert outputs(theirs) == outputs(mine)


def another_processor(folder: Path) -> None:
    """Commit results that differ in their last digits from those of this machine."""
    lock = yaml.load(folder / "dvc.lock")
    trained = {
        out["path"] for name in ("train", "evaluate") for out in lock["stages"][name]["outs"]
    }
    for stage in lock["stages"].values():
        for entry in stage["deps"] + stage["outs"]:
            if entry["path"] in trained:
                entry["md5"] = entry["md5"][::-1]
    yaml.dump(lock, folder / "dvc.lock")
    for path in sorted(trained - {"models/mnist_cnn_model.h5"}):
        with (folder / path).open("ab") as file:
            file.write(b"\n")
    commit(folder, "results of another processor")


@pytest.fixture(scope="module")
def fresh(published: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """Run the pipeline in a clone with nothing pulled, then an experiment.

    Returns
    -------
    folder, first : Path, dict
        The clone, and its outputs before the experiment.
    """
    mine = clone(published, tmp_path_factory.mktemp("fresh") / "mine")
    another_processor(mine)
    dvc(mine, "repro")
    first = outputs(mine)
    dvc(mine, "exp", "run", "-S", "epochs=1")
    assert outputs(mine) != first
    return mine, first


def test_from_a_fresh_clone_one_comes_back_to_ones_own_results(fresh: tuple[Path, dict]) -> None:
    mine, first = fresh
    git(mine, "checkout", "--quiet", "params.yaml")  # nothing is committed
    assert stages_run(dvc(mine, "repro")) == []
    assert outputs(mine) == first
    commit(mine, "my first results")
    dvc(mine, "exp", "run", "-S", "epochs=1")
    git(mine, "reset", "--quiet", "--hard")
    dvc(mine, "checkout")
    assert outputs(mine) == first
    assert stages_run(dvc(mine, "repro")) == []


def test_what_others_ran_is_restored_from_a_shared_cache(
    published: Path, fresh: tuple[Path, dict], tmp_path: Path
) -> None:
    theirs = clone(published, tmp_path / "theirs")
    dvc(theirs, "cache", "dir", "--local", str(fresh[0] / ".dvc/cache"))
    params = theirs / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 2", "epochs: 1"))
    assert stages_run(dvc(theirs, "repro")) == []
    assert len((theirs / "plots/training.csv").read_text().splitlines()) == 2


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run an SSH server for the user who runs the tests; yield its address."""
    if not SSHD:
        pytest.skip("there is no sshd here; on Debian: apt-get install openssh-server")
    if os.geteuid() == 0:  # where sshd locks itself in before it knows who calls
        Path("/run/sshd").mkdir(exist_ok=True)
    for name in ("host", "user"):
        command(tmp_path, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", name)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(SSHD_CONFIG.format(port=port, folder=tmp_path))
    (tmp_path / ".ssh").mkdir()
    host = (tmp_path / "host.pub").read_text()
    (tmp_path / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {host}")
    monkeypatch.setitem(ENVIRONMENT, "HOME", str(tmp_path))
    words = [SSHD, "-D", "-e", "-f", str(tmp_path / "sshd_config")]
    with (tmp_path / "log").open("wb") as log, subprocess.Popen(words, stderr=log) as process:
        while "listening" not in (tmp_path / "log").read_text():
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.02)
        yield f"ssh://{getpass.getuser()}@127.0.0.1:{port}{tmp_path}/storage"
        process.terminate()


def test_a_server_of_ones_own_is_a_remote(published: Path, tmp_path: Path, server: str) -> None:
    mine, theirs = clone(published, tmp_path / "mine"), clone(published, tmp_path / "theirs")
    dvc(mine, "pull")
    for folder, action in ((mine, "push"), (theirs, "pull")):
        dvc(folder, "remote", "add", "server", server)
        dvc(folder, "remote", "modify", "--local", "server", "keyfile", str(tmp_path / "user"))
        dvc(folder, action, "--remote", "server")
    assert stages_run(dvc(theirs, "repro")) == []
    assert outputs(theirs) == outputs(published)


@pytest.mark.parametrize("link", ["hardlink", "symlink"])
def test_stages_replace_outputs_that_are_links_into_a_shared_cache(
    published: Path, tmp_path: Path, link: str
) -> None:
    mine = clone(published, tmp_path / "mine")
    dvc(mine, "cache", "dir", "--local", str(published / ".dvc/cache"))
    dvc(mine, "config", "--local", "cache.type", link)
    dvc(mine, "checkout")
    images = mine / "data/prepared/train/images.npy"
    assert images.is_symlink() if link == "symlink" else images.stat().st_nlink > 1
    dvc(mine, "exp", "run", "-S", "data_seed=7", "load")
    assert contents(mine / "data/prepared") != contents(published / "data/prepared")
    git(mine, "reset", "--quiet", "--hard")
    dvc(mine, "checkout")
    assert outputs(mine) == outputs(published)
