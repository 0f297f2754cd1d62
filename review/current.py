"""Check that the committed dvc.lock belongs to the code, and that Git keeps its results."""

import subprocess
import sys
from pathlib import Path

from dvc.repo import Repo


def missing(folder: Path) -> list[str]:
    """Return the metrics and plots that Git should keep and does not, or that are not there.

    `dvc repro --allow-missing` passes over them, as over outputs that are in DVC's cache alone.

    Parameters
    ----------
    folder : Path
        The root of a repository, with a commit checked out.

    Returns
    -------
    list of str
        Their paths below the folder.
    """
    listed = subprocess.check_output(["git", "ls-files", "-z"], cwd=folder, text=True)
    kept = {name for name in listed.split("\0") if (folder / name).is_file()}
    with Repo(str(folder)) as repo:
        outs = [Path(out.fs_path) for out in repo.index.outs if not out.use_cache]
        named = [path.relative_to(repo.root_dir).as_posix() for path in outs]
    return sorted(set(named) - kept)


def main() -> None:
    """Say what DVC would run; end with 1 if it would run a stage, or if results are missing."""
    done = subprocess.run(
        ["dvc", "repro", "--allow-missing", "--dry"], stdout=subprocess.PIPE, text=True
    )
    print(done.stdout, end="")
    if done.returncode or "Running stage" in done.stdout:
        sys.exit(
            "dvc.lock does not belong to the committed code: run `dvc repro` and commit what it "
            "writes"
        )
    lost = missing(Path())
    if lost:
        sys.exit(
            f"results that Git should keep are missing: {', '.join(lost)}: run `dvc repro` and "
            "commit what it writes"
        )


if __name__ == "__main__":
    main()
