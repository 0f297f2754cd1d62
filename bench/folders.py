"""The folders that the rows of the benchmark work in."""

import sys
import zipfile
from dataclasses import dataclass
from pathlib import Path

from ruamel.yaml import YAML

from bench.commands import ARCHIVE, ROOT, clone_with_results, run_command

TORCH = ROOT / ".venv" / "torch"
EMPTY_PIPELINE = "stages: {nothing: {cmd: 'true', params: [epochs]}}\n"

yaml = YAML(typ="safe")  # as DVC reads it


@dataclass(frozen=True)
class Folders:
    """The folders, all below one temporary folder.

    Attributes
    ----------
    temporary : Path
        That folder.
    images : Path
        The images as files: ``train/<class>/`` and ``test/<class>/``.
    repository : Path
        A clone of this repository in which the pipeline was run.
    empty_project : Path
        A DVC project of one stage that does nothing, which was run.
    all_images : Path
        A folder for stages, see `make_stage_folder`, with all 70,000 images and one epoch;
        `load` and `define` were run.
    """

    temporary: Path
    images: Path
    repository: Path
    empty_project: Path
    all_images: Path


def prepare_folders(temporary: Path) -> Folders:
    """Make all folders; it takes a minute."""
    with zipfile.ZipFile(ARCHIVE) as archive:
        archive.extractall(temporary)
    all_images = make_stage_folder(
        temporary / "all_images",
        train_images=None,
        validation_images=1,
        test_images=None,
        epochs=1,
    )
    for stage in ("load", "define"):
        run_command(all_images, "python", "-m", f"stages.{stage}")
    return Folders(
        temporary=temporary,
        images=temporary / "mnist-jpg",
        repository=clone_with_results(temporary / "repository"),
        empty_project=make_empty_project(temporary / "empty_project"),
        all_images=all_images,
    )


def python_with_torch() -> Path:
    """Return a Python that has PyTorch, in an environment of its own, which is made once.

    This repository does without PyTorch, and its packages should not depend on what that needs.
    """
    python = TORCH / "bin" / "python"
    if not python.exists():
        print("    making an environment with PyTorch", flush=True)
        made = TORCH.with_suffix(".partial")
        run_command(ROOT, sys.executable, "-m", "venv", "--clear", str(made))
        run_command(ROOT, str(made / "bin/python"), "-m", "pip", "install", "torch", "numpy")
        made.rename(TORCH)
    return python


def make_empty_project(folder: Path) -> Path:
    """Make a DVC project of one stage that does nothing, run it, and commit it."""
    folder.mkdir()
    run_command(folder, "git", "init", "--quiet")
    run_command(folder, "dvc", "init", "--quiet")
    (folder / "dvc.yaml").write_text(EMPTY_PIPELINE)
    (folder / "params.yaml").write_text("epochs: 0\n")
    run_command(folder, "dvc", "repro")
    run_command(folder, "git", "add", "--all")
    run_command(folder, "git", "commit", "--quiet", "--message", "empty")
    return folder


def make_stage_folder(folder: Path, **changes: object) -> Path:
    """Make a folder in which stages run by themselves, without DVC.

    It holds a params.yaml: that of this repository, with the real data and with changes. If
    the folder exists, params.yaml is replaced, and all else stays.
    """
    folder.mkdir(exist_ok=True)
    params = yaml.load(ROOT / "params.yaml") | {"dataset": str(ARCHIVE)} | changes
    yaml.dump(params, folder / "params.yaml")
    return folder
