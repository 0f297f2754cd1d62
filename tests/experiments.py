"""Experiments as DVC and `make search` leave them in Git, written without running anything."""

import json
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd

from tests.helpers import DEFAULTS, ENVIRONMENT, ROOT, commit, git

IMAGES = 400  # that are scored
EPOCHS = 3
EVALUATED = ("metrics/evaluate.json", "plots/predictions.csv")


@dataclass(frozen=True)
class Experiment:
    """An experiment that gets a share of the images right, and always the easier ones.

    Attributes
    ----------
    name : str
        Its name.
    accuracy : float
        The share.
    params : dict
        The parameters that are not the defaults.
    trailers : dict of str to str
        What a search wrote of it. One that was pruned or failed has not scored the images.
    files : dict of str to str
        The contents of files that are otherwise.
    """

    name: str
    accuracy: float = 0.9
    params: dict[str, object] = field(default_factory=dict)
    trailers: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)


def trial(
    number: int, seed: int = 42, accuracy: float = 0.9, state: str = "finished", **params: object
) -> Experiment:
    """Return a trial of the search ``digits``, as it names and describes it."""
    ending = "" if state == "finished" else f"-{state}"
    trailers = {
        "Search": "digits",
        "Settings": "3f2a91c0",
        "Role": "trial",
        "Trial": str(number),
        "Seed": str(seed),
        "State": state,
        "Metric": "accuracy",
    }
    params |= {"seed": seed, "evaluate_on": "validation"}
    return Experiment(f"digits-{number:03}-{seed}{ending}", accuracy, params, trailers)


def files_of(experiment: Experiment) -> dict[str, str]:
    """Return the files of an experiment."""
    params = DEFAULTS | experiment.params
    split = params["evaluate_on"]
    errors = round(IMAGES * (1 - experiment.accuracy))
    predicted = np.where(np.arange(IMAGES) < errors, "b", "a")
    table = pd.DataFrame({"image": [f"{split}/a/{i}.png" for i in range(IMAGES)], "actual": "a"})
    table = table.assign(predicted=predicted, confidence=0.9, loss=0.1, split=split)
    losses = [round(0.5 / epoch + 1 - experiment.accuracy, 6) for epoch in range(1, EPOCHS + 1)]
    curve = pd.DataFrame({"epoch": range(1, EPOCHS + 1), "train_loss": losses})
    curve = curve.assign(train_accuracy=0.9, validation_loss=losses, validation_accuracy=0.9)
    scores = {f"{split}_loss": losses[-1], f"{split}_accuracy": 1 - errors / IMAGES}
    files = {
        # JSON is YAML, too.
        "params.yaml": "".join(f"{key}: {json.dumps(value)}\n" for key, value in params.items()),
        "metrics/train.json": json.dumps({"validation_accuracy": 0.9, "validation_loss": 1.0}),
        "metrics/evaluate.json": json.dumps(scores | {"errors": errors}),
        "plots/training.csv": curve.to_csv(index=False),
        "plots/predictions.csv": table.to_csv(index=False),
    }
    if experiment.trailers.get("State", "finished") != "finished":
        for name in EVALUATED:
            del files[name]
    return files | experiment.files


def write_experiments(folder: Path, experiments: Iterable[Experiment]) -> None:
    """Add experiments to a repository, whose parent is the commit that is checked out."""
    parent = git(folder, "rev-parse", "HEAD").strip()
    stream = bytearray()
    for number, experiment in enumerate(experiments):
        trailers = "".join(f"{key}: {value}\n" for key, value in experiment.trailers.items())
        message = f"dvc: commit experiment\n\n{trailers}".encode()
        reference = f"refs/exps/{parent[:2]}/{parent[2:]}/{experiment.name}"
        stream += (
            f"commit {reference}\ncommitter t <t@example.com> {1.7e9 + number:.0f} +0000\n".encode()
        )
        stream += b"data %d\n%s\nfrom %s\n" % (len(message), message, parent.encode())
        files = files_of(experiment)
        for name in {*EVALUATED} - files.keys():
            stream += f"D {name}\n".encode()
        for name, content in files.items():
            data = content.encode(errors="surrogateescape")
            stream += b"M 100644 inline %s\ndata %d\n%s\n" % (name.encode(), len(data), data)
    subprocess.run(
        ("git", "fast-import", "--quiet", "--force"),
        cwd=folder,
        env=ENVIRONMENT,
        input=bytes(stream),
        check=True,
    )


def start_repository(folder: Path) -> Path:
    """Make a repository whose only commit has no results yet."""
    git(folder, "init", "--quiet", "--initial-branch=main")
    (folder / "dvc.yaml").write_text((ROOT / "dvc.yaml").read_text())
    commit(folder, "start")
    return folder
