"""What a stage does because `dvc repro` started it: put its earlier results back if it fails.

DVC removes the outputs of a stage before it runs the stage, so that a stage that fails would leave
nothing. The earlier outputs are in DVC's cache, and dvc.lock says which they are: from there they
are put back. A stage that was killed cannot do that itself: `make restore`, which is
`python -m stages.restore`, does it for all stages.
"""

import argparse
import atexit
import hashlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from stages.outputs import replacing

STAGE = "DVC_STAGE"  # in the environment of each command that DVC runs: the name of the stage
POLL = 0.5  # seconds


def begin() -> None:
    """From now on, if DVC started this process, end with DVC and put back what it removed.

    The earlier results are put back when the process ends, be it by an error, by Ctrl-C or by
    a defect of the program, unless `finish` was called before. If DVC is killed, the process
    ends at once and puts nothing back: the next `dvc repro` may be running already.
    """
    if STAGE in os.environ:
        atexit.register(put_back)
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()


def finish() -> None:
    """Say that all outputs are written."""
    atexit.unregister(put_back)


def put_back() -> None:
    """Put back the earlier results of the stage that this process runs, if DVC started it."""
    if STAGE not in os.environ:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever stopped the stage may press twice
    environment = os.environ.copy()
    stage = environment.pop(STAGE)  # that process is no stage, and has nothing to put back itself
    # In a process of its own: DVC's modules are no part of a stage.
    words = [sys.executable, "-m", "stages.restore", "--quiet", stage]
    subprocess.run(words, env=environment, check=False)


def end_with(parent: int) -> None:
    """Wait until another process than `parent` is the parent of this one, then end it."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)


def restore(name: str | None) -> tuple[list[str], list[str]]:
    """Put back the outputs, as dvc.lock has them, of every stage of which one is missing.

    Where one is missing, the stage was stopped, and those that are there may be of the run
    that was stopped. A stage whose outputs are all there keeps them, whatever they are.

    Parameters
    ----------
    name : str or None
        The stage, as DVC calls it; None for all.

    Returns
    -------
    restored, lost : list of str
        The outputs that were put back, and those that neither DVC's cache nor Git holds.
    """
    from dvc.repo import Repo

    restored, lost = [], []
    with Repo() as repo, repo.lock:
        links = repo.cache.local.cache_types
        for stage in repo.stage.collect(name) if name else repo.index.stages:
            if all(out.exists for out in stage.outs):
                continue
            for out in stage.outs:
                if not out.hash_info or (out.exists and not out.changed_checksum()):
                    continue
                git_keeps, out.use_cache = not out.use_cache, True
                if not out.changed_cache():
                    # What Git keeps is in the cache too, for DVC's run cache, but is no link to it.
                    repo.cache.local.cache_types = ["copy"] if git_keeps else links
                    out.checkout(force=True)
                elif not (git_keeps and from_git(Path(out.fs_path), out.hash_info.value)):
                    lost.append(str(out))
                    continue
                restored.append(str(out))
    return restored, lost


def from_git(path: Path, md5: str) -> bool:
    """Put back a file as it was committed, if that is the content of this MD5."""
    words = ["git", "cat-file", "blob", f"HEAD:./{path.name}"]
    found = subprocess.run(words, cwd=path.parent, capture_output=True)
    if hashlib.md5(found.stdout, usedforsecurity=False).hexdigest() != md5:
        return False
    with replacing(path) as partial:
        partial.write_bytes(found.stdout)
    return True


def main() -> None:
    """Put back what is missing, and say what was done."""
    parser = argparse.ArgumentParser(prog="make restore", description=restore.__doc__.split(".")[0])
    parser.add_argument("stage", nargs="?", help="default: all stages")
    parser.add_argument("--quiet", action="store_true", help="say only what is not put back")
    words = parser.parse_args()
    from dvc.exceptions import DvcException

    prefix = words.stage or "restore"
    try:
        restored, lost = restore(words.stage)
    except (DvcException, OSError) as error:
        sys.exit(f"{prefix}: error: the earlier results are not put back: {error}")
    if not words.quiet:
        print(f"{prefix}: put back: {', '.join(restored) or 'nothing'}")
    if lost:
        sys.exit(
            f"{prefix}: not put back, as they are not in DVC's cache: {', '.join(lost)}; "
            "`dvc pull` gets what was pushed"
        )


if __name__ == "__main__":
    main()
