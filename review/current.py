"""Check that the committed results belong to the committed code: `make current`.

They do if DVC would run no stage, if each result is an output of a stage that DVC does run, and if
Git keeps every metric and every small plot. Nothing is run and nothing is written.
"""

import os
import re
import sys
from contextlib import chdir
from dataclasses import dataclass, field
from pathlib import Path

from dvc.repo import Repo

from common.console import InputError, run
from common.params import PARAMS, check_keys, parse_yaml
from review.packages import PACKAGES, stages_of_other_versions
from review.revision import git, run_dvc

# What the review, the board and the verification read by its name.
READ_BY_NAME = (
    *(f"metrics/{name}.json" for name in ("define", "evaluate", "load", "provenance", "train")),
    *(f"plots/{name}.csv" for name in ("calibration", "per_class", "predictions", "training")),
)


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
    unmade : list of str
        Why not every result is made by a stage, in sentences, from `unmade_results`.
    """

    stages_to_run: list[str] | None
    missing_results: list[str] = field(default_factory=list)
    unmade: list[str] = field(default_factory=list)

    @property
    def is_current(self) -> bool:
        """Whether there is nothing to run, nothing missing, and nothing that no stage makes."""
        return self.stages_to_run == [] and not self.missing_results and not self.unmade


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
    if not stages and "up to date" not in done.stdout and " is frozen" not in done.stderr:
        return Check(None)
    return Check(list(dict.fromkeys(stages)), missing_results(folder), unmade_results(folder))


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
    kept = kept_by_git(folder)
    with Repo(str(folder)) as repo:
        stages = [stage for stage in repo.index.stages if stage.path_in_repo == "dvc.yaml"]
        declared = {
            Path(out.fs_path).relative_to(repo.root_dir)
            for stage in stages
            for out in stage.outs
            if not out.use_cache
        }
    return sorted(path.as_posix() for path in declared - kept)


def kept_by_git(folder: Path) -> set[Path]:
    """Return the files that Git keeps and that are there, with their folders, below a folder."""
    listed = os.fsdecode(git("ls-files", "-z", folder=folder) or b"").split("\0")
    files = [Path(name) for name in listed if name and (folder / name).is_file()]
    return {path for file in files for path in (file, *file.parents)}


def unmade_results(folder: Path) -> list[str]:
    """Return a sentence for each stage that never runs, and one on results that no stage makes.

    A result is what is in `READ_BY_NAME`, and what dvc.yaml calls a metric or a plot. Whatever is
    written into such a file, DVC finds nothing changed.

    Parameters
    ----------
    folder : Path
        As for `missing_results`.
    """
    with chdir(folder), Repo() as repo:  # some of its paths are relative to the current folder
        root = Path(repo.root_dir)
        stages = [stage for stage in repo.index.stages if stage.cmd]
        own = [stage for stage in stages if stage.path_in_repo == "dvc.yaml"]
        frozen = [stage.name for stage in own if stage.frozen]
        made, made_by_own = (
            {Path(out.fs_path).relative_to(root) for stage in some for out in stage.outs}
            for some in (stages, own)
        )
        keys = [keys.get("repo", ()) for keys in (repo.index.metric_keys, repo.index.plot_keys)]
    unmade = {Path(*key) for of in keys for key in of if not is_below(Path(*key), made)}
    unmade |= {Path(name) for name in READ_BY_NAME if not is_below(Path(name), made_by_own)}
    sentences = [f"the stage {name} is frozen in dvc.yaml: it never runs" for name in frozen]
    paths = [path.as_posix() for path in sorted(unmade & kept_by_git(folder))]
    if paths:
        sentences.append(f"no stage of dvc.yaml has as its output {', '.join(paths)}")
    return sentences


def is_below(path: Path, outputs: set[Path]) -> bool:
    """Whether a path is one of some outputs, or is in a folder that is one."""
    return not outputs.isdisjoint((path, *path.parents))


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
    if check.unmade:
        raise InputError(
            f"not every result is made by a stage that runs: {'; '.join(check.unmade)}; mend "
            "dvc.yaml, run `dvc repro` and commit what it writes"
        )
    if check.missing_results:
        raise InputError(
            f"results that Git should keep are missing: {', '.join(check.missing_results)}: run "
            "`dvc repro` and commit what it writes"
        )


if __name__ == "__main__":
    run("current", main)
