"""What a stage does because `dvc repro` started it: put its earlier results back if it fails.

DVC removes the outputs of a stage before it runs the stage, so that a stage that fails would leave
nothing. The earlier outputs are in DVC's cache, and dvc.lock says which they are: from there they
are put back. A stage that was killed cannot do that itself: `make restore`, which is
`python -m common.restore`, does it for all stages.
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
from typing import TYPE_CHECKING

from common import declarations
from common.outputs import remove, remove_leftovers, replacing

if TYPE_CHECKING:
    from dvc.output import Output  # DVC's modules take half a second, and are no part of a stage

STAGE = "DVC_STAGE"  # in the environment of each command that DVC runs: the name of the stage
POLL = 0.5  # seconds


def begin_stage(module: str) -> None:
    """From now on, if DVC started this process, end with DVC and put back what it removed.

    What is declared for the stage is remembered, to see at its end whether it was changed. The
    earlier results are put back when the process ends, be it by an error, by Ctrl-C or by
    a defect of the program, unless `stage_succeeded` was called before. If DVC is killed, the
    process ends at once and puts nothing back: the next `dvc repro` may be running already.

    Parameters
    ----------
    module : str
        The program of the stage, such as ``stages.train``.
    """
    if STAGE in os.environ:
        atexit.register(put_back)
        declarations.begin(os.environ[STAGE], module)
        threading.Thread(target=end_with, args=(os.getppid(),), daemon=True).start()


def stage_succeeded() -> None:
    """Keep what the stage has written: all its outputs are complete."""
    atexit.unregister(put_back)


def put_back() -> None:
    """Put back the earlier results of the stage that this process runs, if DVC started it."""
    if STAGE not in os.environ:
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever stopped the stage may press twice
    environment = os.environ.copy()
    stage = environment.pop(STAGE)  # that process is no stage, and has nothing to put back itself
    if declarations.begun:
        stage = declarations.begun.stage
    # In a process of its own: DVC's modules are no part of a stage.
    command = [sys.executable, "-E", "-m", "common.restore", "--quiet", stage]
    subprocess.run(command, env=environment, check=False)


def end_with(parent: int) -> None:
    """Wait until this process has another parent, since `parent` has ended; then end it, too."""
    while os.getppid() == parent:
        time.sleep(POLL)
    os._exit(1)


def restore(name: str | None) -> tuple[list[str], list[str]]:
    """Put back the outputs, as dvc.lock has them, of a stage that was stopped or has failed.

    A stage whose outputs are all there may be one that nobody stopped, and keeps them, whatever
    they are. That which is named has failed: of what it has written, nothing stays.

    Parameters
    ----------
    name : str or None
        The stage that has failed, as DVC calls it; None for all of which an output is missing.

    Returns
    -------
    restored, lost : list of str
        The outputs that were put back, and those that neither DVC's cache nor Git holds.
    """
    from dvc.repo import Repo

    restored: list[str] = []
    lost: list[str] = []
    with Repo() as repo, repo.lock:
        stages = repo.stage.collect(name) if name else repo.index.stages
        stopped = [stage for stage in stages if name or not all(out.exists for out in stage.outs)]
        for out in (out for stage in stopped for out in stage.outs):
            path = Path(out.fs_path)
            remove_leftovers(path)
            was_made = bool(out.hash_info)
            if was_made and out.exists and not out.changed_checksum():
                continue
            if was_made and restore_output(out):
                restored.append(str(out))
                continue
            if was_made:
                lost.append(str(out))
            if name:
                remove(path)
    return restored, lost


def restore_output(out: "Output") -> bool:
    """Put back one output from DVC's cache, or from Git; return whether that was possible."""
    kept_by_git = not out.use_cache
    out.use_cache = True  # DVC's run cache holds what Git keeps, too
    if out.changed_cache():
        return kept_by_git and restore_from_git(Path(out.fs_path), out.hash_info.value)
    cache = out.repo.cache.local
    links = cache.cache_types
    if kept_by_git:
        cache.cache_types = ["copy"]  # a file that Git keeps must not be a link into the cache
    out.checkout(force=True)
    cache.cache_types = links
    return True


def restore_from_git(path: Path, md5: str) -> bool:
    """Put back a file as it was committed, if that is the content of this MD5."""
    command = ["git", "cat-file", "blob", f"HEAD:./{path.name}"]
    content = subprocess.run(command, cwd=path.parent, capture_output=True).stdout
    if hashlib.md5(content, usedforsecurity=False).hexdigest() != md5:
        return False
    with replacing(path) as partial:
        partial.write_bytes(content)
    return True


def main() -> None:
    """Put back what is missing, and say what was done."""
    description = "Put back the results that a run has removed which was killed."
    parser = argparse.ArgumentParser(prog="make restore", description=description)
    parser.add_argument("stage", nargs="?", help="default: all stages")
    parser.add_argument("--quiet", action="store_true", help="say only what is not put back")
    arguments = parser.parse_args()
    from dvc.exceptions import DvcException

    prefix = arguments.stage or "restore"
    try:
        restored, lost = restore(arguments.stage)
    except (DvcException, OSError) as error:
        sys.exit(f"{prefix}: error: the earlier results are not put back: {error}")
    if not arguments.quiet:
        print(f"{prefix}: put back: {', '.join(restored) or 'nothing'}")
    if lost:
        sys.exit(
            f"{prefix}: not put back, as they are not in DVC's cache: {', '.join(lost)}; "
            "`dvc pull` gets what was pushed"
        )


if __name__ == "__main__":
    from common.console import run  # which imports this module

    run("restore", main)
