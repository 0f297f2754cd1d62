"""Make a repository for images of one's own: `make new DIR=../flowers DATASET=/path/to/images`.

    python -m scaffold.new DIR DATASET

Reads   the last commit of this repository, and DATASET: what `load` takes as a data set
Writes  DIR: a Git repository of one commit, with this code by the rules of `scaffold.rules`,
        parameters proposed for the images, and the images as data/images.zip, kept by DVC

It is made beside DIR and renamed at the end: whole or not at all.
"""

import argparse
import io
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import zipfile
from pathlib import Path

from jinja2 import Environment, StrictUndefined

from common.console import InputError, progress, run, run_program
from common.datasets import Dataset, open_dataset
from common.outputs import replacing
from common.params import PARAMS
from review.git import folder_environment, git, successful_git
from scaffold.proposal import Proposal, propose
from scaffold.rules import apply_rules

HERE = Path(__file__).parent
ARCHIVE = "data/images.zip"
SPACE, SPACE_SIZE = "spaces/default.yaml", 28  # pixels of the images for which it is made
COMMENTS = 32  # the column of params.yaml in which they begin
# Without the user's hooks, and without what the user ignores everywhere.
GIT = ("git", "-c", "core.hooksPath=/dev/null", "-c", "core.excludesFile=/dev/null")
USAGE = "make new DIR=../flowers DATASET=/path/to/images"


def check_place(directory: Path, images: Path) -> None:
    """Check that a new repository may be made in a folder.

    Raises
    ------
    InputError
        If there is something already, or it would lie in this repository, in the data set, or in
        a folder that does not exist.
    """
    if os.path.lexists(directory):
        raise InputError(f"DIR: {directory} exists; give the name of a folder that does not")
    if not directory.parent.is_dir():
        raise InputError(f"DIR: {directory.parent}, in which it is to be made, is no folder")
    for other, words in ((HERE.parent, "this repository"), (images, "the data set")):
        if directory.resolve().is_relative_to(other.resolve()):
            raise InputError(f"DIR: {directory} lies in {words}; give a place outside of it")


def check_identity() -> None:
    """Check that Git knows the user, in any repository; what it guesses does not count."""
    for variable, key in (("GIT_AUTHOR_IDENT", "author"), ("GIT_COMMITTER_IDENT", "committer")):
        if git("-c", "user.useConfigOnly=true", "var", variable, folder=Path("/")) is None:
            raise InputError(
                f"Git does not know who you are, as the {key} of the first commit: git config "
                '--global user.name "..." and git config --global user.email ...'
            )


def committed_code() -> bytes:
    """Return the files of the last commit as a tar archive; say what is not in it.

    Raises
    ------
    InputError
        If Git cannot give them: there is no commit here, or the folder is another user's.
    """
    try:
        code = successful_git("archive", "--format=tar", "HEAD", folder=HERE.parent)
    except InputError as error:
        raise InputError(
            f"the code is that of the last commit of {HERE.parent}, and {error}; it must be a "
            "clone that Git made"
        ) from None
    if git("status", "--porcelain", "--", ".", folder=HERE.parent):
        print(
            "new: the code is that of the last commit; your changes since are not in it", flush=True
        )
    return code


def write_code(code: bytes, folder: Path, name: str, proposal: Proposal) -> None:
    """Write the code, made theirs.

    Parameters
    ----------
    code : bytes
        A tar archive of it.
    folder : Path
        Where to; it is empty.
    name : str
        Of the repository, for its page.
    proposal : Proposal
        What params.yaml says and its page tells.
    """
    with tarfile.open(fileobj=io.BytesIO(code)) as archive:
        # Python 3.12 and 3.13 warn without a filter, which 3.11 does not know before 3.11.4.
        archive.extraction_filter = lambda member, _: member
        archive.extractall(folder)  # noqa: S202  Git made it a moment ago, of this repository
    apply_rules(folder)
    template = Environment(undefined=StrictUndefined, keep_trailing_newline=True, autoescape=False)  # noqa: S701  Markdown
    (folder / "README.md").write_text(
        template.from_string((HERE / "README.jinja").read_text(encoding="utf-8")).render(
            name=name, images=f"{len(proposal.images):,}", classes=len(proposal.classes)
        ),
        encoding="utf-8",
    )
    (folder / "recipes").mkdir()
    shutil.copy(HERE / "longer.yaml", folder / "recipes")
    params = folder / PARAMS
    text = params.read_text(encoding="utf-8")
    for key, value in {"dataset": ARCHIVE, **proposal.parameters}.items():
        text = with_value(text, key, "null" if value is None else str(value))
    params.write_text(text, encoding="utf-8")
    space, image_size = folder / SPACE, proposal.parameters["image_size"]
    assert isinstance(image_size, int)
    space.write_text(in_proportion(space.read_text(), image_size))


def in_proportion(space: str, image_size: int) -> str:
    """Return the text of a space whose ranges in pixels are in proportion to the images.

    Examples
    --------
    >>> in_proportion("shift: {low: 0.0, high: 2.0}", 64)
    'shift: {low: 0.0, high: 4.6}'
    """

    def enlarged(match: re.Match[str]) -> str:
        return f"{match[1]}{round(float(match[2]) * image_size / SPACE_SIZE, 1)}"

    return re.sub(r"(?m)^((?:shift|elastic): .*high: )([0-9.]+)", enlarged, space)


def with_value(text: str, key: str, value: str) -> str:
    """Return params.yaml with another value; the comment behind it begins where all do.

    Examples
    --------
    >>> with_value("image_size: 28  # pixels", "image_size", "128")
    'image_size: 128                 # pixels'
    """
    return re.sub(rf"(?m)^{key}: [^#]*", lambda _: f"{key}: {value}".ljust(COMMENTS), text, count=1)


def write_images(dataset: Dataset, proposal: Proposal, path: Path) -> None:
    """Write the images as one stored archive, without times: the same images, the same bytes."""
    path.parent.mkdir()
    with (
        zipfile.ZipFile(path, "w") as archive,
        progress("new: writing", len(proposal.images), "images") as bar,
    ):
        for index in proposal.images:
            archive.writestr(zipfile.ZipInfo(dataset.names[index]), dataset.read(index))
            bar.update()


def run_in(folder: Path, *command: str) -> None:
    """Run git or dvc in the new repository.

    Raises
    ------
    InputError
        If it fails, with the whole command and what it says.
    """
    done = run_program(
        list(command),
        cwd=folder,
        env=folder_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    )
    if done.returncode:
        raise InputError(
            f"nothing is made, as this failed there: {shlex.join(command)}: "
            f"{' '.join(done.stdout.split())}; mend that (`git config --list --show-origin` shows "
            "your settings of Git) and run the same again"
        )


def main() -> None:
    """Check what the user typed, look at the images, and make the repository."""
    parser = argparse.ArgumentParser(prog="make new", description=__doc__.splitlines()[0])
    parser.add_argument("directory", metavar="DIR")
    parser.add_argument("dataset", metavar="DATASET")
    arguments = parser.parse_args()
    for variable, value in (("DIR", arguments.directory), ("DATASET", arguments.dataset)):
        if not value:
            raise InputError(f"{variable} is not set: {USAGE}")
    try:
        directory = Path(arguments.directory).expanduser()
        images = Path(arguments.dataset).expanduser()
    except RuntimeError as error:  # a "~name" of nobody
        raise InputError(f"DIR or DATASET: {error}") from None
    check_place(directory, images)
    code = committed_code()
    check_identity()
    dataset = open_dataset(images)
    proposal = propose(dataset)
    total, classes = len(proposal.images), len(proposal.classes)
    tests = "with test/ set apart" if dataset.has_splits else "of each a fifth is set aside to test"
    print(f"new: {total:,} images in {classes} classes, {tests}")
    for reason in proposal.reasons:
        print(f"new: {reason}", flush=True)
    with replacing(directory) as folder:
        folder.mkdir()
        write_code(code, folder, directory.resolve().name, proposal)
        write_images(dataset, proposal, folder / ARCHIVE)
        run_in(folder, *GIT, "init", "--quiet", "--initial-branch=main")
        run_in(folder, "dvc", "add", "--quiet", ARCHIVE)
        run_in(folder, *GIT, "add", "--all")
        message = f"Begin with {total:,} images in {classes} classes"
        run_in(folder, *GIT, "commit", "--quiet", "-m", message)
    print(f"new: {directory} is made; go on there with `make repro`")


if __name__ == "__main__":
    run("new", main)
