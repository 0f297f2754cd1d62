"""A result that was made on another processor, which Debian's qemu-user emulates."""

import hashlib
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ENVIRONMENT, commit, dvc, git, write_params, yaml

QEMU = shutil.which("qemu-x86_64")
CANNOT = QEMU is None or platform.machine() != "x86_64"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.emulated,
    pytest.mark.skipif(CANNOT, reason="no other processor can be tried: qemu-user emulates one"),
]
PROVENANCE = "metrics/provenance.json"


@pytest.fixture(scope="module")
def foreign(committed: Path, dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run the stages up to `train` as on an AMD EPYC, the rest and DVC here, and commit."""
    folder = tmp_path_factory.mktemp("emulated")
    python = folder / "python"
    # With DVC_STAGE a stage has a thread that watches DVC, and qemu-user 7.2 cannot fork then.
    emulate = f'exec {QEMU} -cpu EPYC-Rome "{sys.executable}" "$@"'
    python.write_text(f"#!/bin/sh\nunset DVC_STAGE\n{emulate}\n")
    python.chmod(0o755)
    # As many images as the margin of two points needs where all predictions agree.
    write_params(committed, dataset=str(dataset), test_images=400)
    dvc(committed, "repro", "load")
    commit(committed, "here")
    git(committed, "tag", "here")
    path = f"{folder}{os.pathsep}{ENVIRONMENT['PATH']}"
    words = ["dvc", "repro", "--force", "--no-run-cache", "train"]
    subprocess.run(words, cwd=committed, env=ENVIRONMENT | {"PATH": path}, check=True)
    dvc(committed, "repro")
    commit(committed, "there")
    git(committed, "tag", "there")
    return committed


def verify(folder: Path, revision: str) -> str:
    """Verify a revision on this processor; return what it prints."""
    words = [sys.executable, "-m", "verify", "--rev", revision]
    done = subprocess.run(words, cwd=folder, env=ENVIRONMENT, capture_output=True, text=True)
    print(done.stdout, done.stderr)
    assert done.returncode == ("Verified" not in done.stdout)
    return done.stdout


def outputs(folder: Path, tag: str, stage: str) -> list[dict[str, object]]:
    """Return the outputs of a stage by the dvc.lock of a tag."""
    return yaml.load(git(folder, "show", f"{tag}:dvc.lock"))["stages"][stage]["outs"]


def test_load_and_define_give_the_same_bytes_and_train_others(foreign: Path) -> None:
    for stage in ("load", "define"):
        assert outputs(foreign, "here", stage) == outputs(foreign, "there", stage)
    assert outputs(foreign, "here", "train") != outputs(foreign, "there", "train")


def test_what_another_processor_made_is_verified_as_equivalent(foreign: Path) -> None:
    printed = verify(foreign, "there")
    assert printed.startswith("verify: Verified as equivalent: there (")
    assert "the same bytes of load, define; vector_instructions differs, and the" in printed
    assert "the committed model: says here of 0 images something else" in printed


def test_a_model_of_another_seed_is_found_on_another_processor(foreign: Path) -> None:
    params, lock, provenance = (foreign / n for n in ("params.yaml", "dvc.lock", PROVENANCE))
    claimed = provenance.read_bytes()
    params.write_text(params.read_text().replace("\nseed: 42", "\nseed: 43"))
    dvc(foreign, "repro")
    made = provenance.read_bytes()
    provenance.write_bytes(claimed)
    md5_made, md5_claimed = (
        hashlib.md5(content, usedforsecurity=False).hexdigest() for content in (made, claimed)
    )
    assert md5_made in lock.read_text()
    text = lock.read_text().replace(md5_made, md5_claimed)
    lock.write_text(text.replace("        seed: 43", "        seed: 42"))
    git(foreign, "checkout", "HEAD", "--", "params.yaml")
    commit(foreign, "trust me")
    printed = verify(foreign, "HEAD")
    assert printed.startswith("verify: Not verified: HEAD (")
    assert "it is not of this seed: the rank correlation" in printed
