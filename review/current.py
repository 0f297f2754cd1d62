"""Check that the committed results belong to the committed code: `make current`.

They do if DVC would run no stage, and if Git keeps every metric and every small plot. Nothing
is run and nothing is written.
"""

import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

from dvc.repo import Repo

from common.console import InputError, run
from common.params import PARAMS, check_keys, parse_yaml
from review.packages import PACKAGES, stages_of_other_versions
from review.revision import git, run_dvc


@dataclass(frozen=True)
class Check:
    """Whether the results of a commit belong to its code.

    Attributes
    ----------
    stages_to_run : list of str or None
        The stages that DVC would run, because dvc.lock is not of their code, parameters and
        data. None if DVC cannot read the pipeline.
    missing_results : list of str
        The metrics and plots that Git should keep, and does not.
    """

    stages_to_run: list[str] | None
    missing_results: list[str]

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to run and nothing missing."""
        return self.stages_to_run == [] and not self.missing_results


def check_folder(folder: Path, show: bool = False) -> Check:
    """Check the commit that is checked out in a folder.

    Parameters
    ----------
    folder : Path
        The root of the project.
    show : bool, default False
        Whether to print what DVC says.
    """
    done = run_dvc(folder, "repro", "--allow-missing", "--dry")
    if show:
        print(done.stdout, end="")
        print(done.stderr, end="", file=sys.stderr)
    # DVC also says of a stage that would run that it failed, if its data is not there.
    stages = re.findall(
        r"(?:Running stage|failed to reproduce) '([^']+)'", done.stdout + done.stderr
    )
    if not stages and "up to date" not in done.stdout:
        return Check(None, [])
    return Check(list(dict.fromkeys(stages)), missing_results(folder))


def check_tag(folder: Path, tag: str) -> Check:
    """Check out a tag in a folder of `review.revision.clone`, and check it."""
    git("checkout", "--quiet", "--force", "--detach", tag, folder=folder)
    folder.mkdir(parents=True, exist_ok=True)  # the tag may have no such folder
    return check_folder(folder)


def missing_results(folder: Path) -> list[str]:
    """Return the metrics and plots that Git should keep, and that are not committed or not there.

    They are the outputs that the dvc.yaml at the root declares with ``cache: false``. With
    `--allow-missing`, DVC does not ask for them.

    Parameters
    ----------
    folder : Path
        The root of a project that DVC can read, with a commit checked out.

    Returns
    -------
    list of str
        Their paths below the folder.
    """
    listed = os.fsdecode(git("ls-files", "-z", folder=folder) or b"").split("\0")
    kept: set[Path] = set()
    for name in listed:
        if name and (folder / name).is_file():
            kept |= {Path(name), *Path(name).parents}
    with Repo(str(folder)) as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"]
        kept_by_git = [out for stage in stages for out in stage.outs if not out.use_cache]
        outputs = [Path(out.fs_path) for out in kept_by_git]
        declared = {path.relative_to(repo.root_dir) for path in outputs}
    return sorted(path.as_posix() for path in declared - kept)


def main() -> None:
    """Print what DVC would run; fail if that is anything, or if results are missing.

    A key of params.yaml that no stage reads changes nothing, so that DVC says nothing of it.
    """
    names = (str(PARAMS), "dvc.yaml")
    params, pipeline = (parse_yaml(Path(name).read_bytes(), name) for name in names)
    if isinstance(params, dict):
        check_keys(params, pipeline, str(PARAMS))
    check = check_folder(Path(), show=True)
    if check.stages_to_run is None:
        raise InputError("DVC cannot read the pipeline; what it says of that stands above")
    stages = stages_of_other_versions(Path())
    if stages:
        raise InputError(
            f"requirements.txt has other versions of packages than {PACKAGES}, on which the "
            f"stages {', '.join(stages)} depend: run `python -m review.packages` and `dvc repro`, "
            "and commit what they write"
        )
    if check.stages_to_run:
        raise InputError(
            "dvc.lock does not belong to the committed code: run `dvc repro` and commit what it "
            "writes"
        )
    if check.missing_results:
        raise InputError(
            f"results that Git should keep are missing: {', '.join(check.missing_results)}: run "
            "`dvc repro` and commit what it writes"
        )


if __name__ == "__main__":
    run("current", main)
