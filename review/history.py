"""Which settings this repository has scored on the same images, and what that means for p.

Whoever compares twenty settings on the same images finds one in twenty "better" by luck alone. Two
results are of one setting if they come from the same code, data and parameters, the seed left
aside, or if they predict the same class for each image.
"""

import hashlib
import json
import math
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.cluster.hierarchy import DisjointSet

from common.console import InputError
from review.predictions import PREDICTIONS, PREDICTIONS_FILE
from review.revision import EXPERIMENTS, Revision, Stages, git, unnamed
from review.significance import paired, right_before_and_after, same_images

FILES = ("dvc.lock", PREDICTIONS_FILE)
PREPARED = "data/prepared/"
EVERYWHERE = (  # the experiments are those of `review.revision.experiments`
    "--branches",
    "--remotes",
    "--tags",
    f"--glob={EXPERIMENTS}/[0-9a-f][0-9a-f]/*",
)


@dataclass(frozen=True)
class Result:
    """A dvc.lock together with its predictions, and the first commit that holds both.

    Attributes
    ----------
    commit : str
        Its hash.
    files : tuple of str
        Git's hashes of the two files.
    setting : str
        All that the result comes from, except the seed.
    predicted : str
        A hash of the classes that were predicted, by image.
    seed : int or None
        The seed.
    """

    commit: str
    files: tuple[str, str]
    setting: str
    predicted: str
    seed: int | None


@dataclass(frozen=True)
class Standing:
    """Where a revision stands among the settings that were scored on the images of its test.

    Attributes
    ----------
    place : int
        How many settings had been scored when it was, itself included.
    settings : int
        How many there are now.
    p_values : list of float
        Of each setting but the two that are compared, against the base: the exact McNemar test.
        NaN where the predictions cannot be compared.
    """

    place: int
    settings: int
    p_values: list[float]

    def corrected(self, p_value: float) -> float:
        """Return the p value of the revision against the base, corrected for all comparisons."""
        return holm(p_value, self.p_values)

    def corrected_alone(self, p_value: float) -> float:
        """Return the p value of another test, which the other settings did not take, corrected."""
        return holm(p_value, [math.nan] * len(self.p_values))

    def __str__(self) -> str:
        """Say it: "the 15th setting", or "one of 15 settings" if it is not the last one."""
        if self.place < self.settings:
            return f"one of {self.settings} settings"
        return f"the {ordinal(self.place)} setting"


def ordinal(number: int) -> str:
    """Write a number of a row.

    Examples
    --------
    >>> ", ".join(map(ordinal, (1, 2, 3, 4, 11, 12, 22, 113)))
    '1st, 2nd, 3rd, 4th, 11th, 12th, 22nd, 113th'
    """
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10)
    return f"{number}{ending or 'th'}"


def holm(p_value: float, others: list[float]) -> float:
    """Correct a p value for further comparisons, by Holm's method [1]_.

    If no comparison has a difference in truth, or only some have, then a p value that is
    corrected in this way is below 0.05 for any of the others in at most 5% of all cases, however
    they depend on one another. The smallest p value counts as often as there are comparisons, the
    second as often less one, and so on; none becomes smaller than the one before it.

    Parameters
    ----------
    p_value : float
        What is corrected; NaN stays NaN.
    others : list of float
        Of the other comparisons. One that is not known, NaN, is taken for 1, which gives the
        largest result that any value could.

    References
    ----------
    .. [1] S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian
       Journal of Statistics 6, 1979.

    Examples
    --------
    >>> holm(0.013, []), holm(0.013, [0.2, float("nan")])
    (0.013, 0.039)

    Where another one is smaller, it is not tried again what that one has passed:

    >>> holm(0.013, [0.001, 0.2])
    0.026
    """
    if math.isnan(p_value):
        return math.nan
    known = np.nan_to_num(np.array([p_value, *others]), nan=1.0)
    smaller = np.sort(known[known <= p_value])
    return float(min(1.0, np.max(smaller * (known.size - np.arange(smaller.size)))))


def standing(before: Revision, after: Revision) -> Standing | None:
    """Return where a revision stands among the settings that were scored on the same images.

    It looks at every commit that a branch, a tag or an experiment reaches, and reads no file
    but dvc.lock and the predictions.

    Parameters
    ----------
    before, after : Revision
        The two sides.

    Returns
    -------
    Standing or None
        None if the revision has no result, or its dvc.lock does not say of which images.
    """
    images = scored_images(after.stages)
    files_before, files_after = files_of([before.commit, after.commit])
    if images is None or files_after is None:
        return None
    settings = by_setting(results_on(images, before, after))
    files = [{result.files for result in setting} for setting in settings]
    places = [place for place, held in enumerate(files, 1) if files_after in held]
    if not places:
        return None
    p_values = [
        p_value_against(before, alike(setting, after.seed))
        for setting, held in zip(settings, files, strict=True)
        if not {files_before, files_after} & held
    ]
    return Standing(places[0], len(settings), p_values)


def files_of(commits: list[str]) -> list[tuple[str, str] | None]:
    """Return Git's hashes of dvc.lock and the predictions of commits; None if one is missing."""
    names = "".join(f"{commit}:./{file}\n" for commit in commits for file in FILES)
    printed = git("cat-file", "--batch-check=%(objectname)", stdin=names.encode()) or b""
    hashes = [None if b" " in line else line.decode() for line in printed.splitlines()]
    pairs = zip(hashes[::2], hashes[1::2], strict=True)
    return [(lock, scores) if lock and scores else None for lock, scores in pairs]


def results_on(images: str, before: Revision, after: Revision) -> Iterator[Result]:
    """Return every result on these images that Git holds, oldest first.

    Parameters
    ----------
    images : str
        DVC's hash of them.
    before, after : Revision
        Two commits that count, even if no branch, tag or experiment holds them.
    """
    sides = (before.commit, after.commit)
    order = ("--date-order", "--reverse")
    commits = (git("rev-list", *order, *EVERYWHERE, *sides) or b"").decode().split()
    first_commits: dict[tuple[str, str], str] = {}
    for commit, files in zip(commits, files_of(commits), strict=True):
        if files is not None:
            first_commits.setdefault(files, commit)
    for files, commit in first_commits.items():
        revision = unnamed(commit)
        # Nobody asked for a commit of which a file cannot be read: it is passed over.
        with suppress(InputError):
            # Most of the time goes into reading YAML: what cannot be on these images is not read.
            lock = revision.read(FILES[0]) or b""
            if images.encode() in lock and scored_images(revision.stages) == images:
                setting = json.dumps(revision.setting, sort_keys=True)
                predicted = hash_of_classes(commit)
                yield Result(commit, files, setting, predicted, revision.seed)


def hash_of_classes(commit: str) -> str:
    """Return a hash of the classes that were predicted; of the commit if nobody can read them."""
    # What no run writes is a try all the same. It is not kept: hundreds would fill the memory.
    table = Revision(commit[:7], commit).table(PREDICTIONS_FILE, PREDICTIONS)
    if table is None or table.empty:
        return commit
    # The same prepared images are in the same order.
    names = table[["image", "predicted"]].astype(str).to_numpy().ravel()
    return hashlib.sha256("\n".join(names).encode()).hexdigest()


def scored_images(stages: Stages) -> str | None:
    """Return DVC's hash of the prepared images that `evaluate` scored; None if it scored none."""
    stage = stages.get("evaluate", {})
    split = stage.get("params", {}).get("params.yaml", {}).get("evaluate_on", "test")
    for dependency in stage.get("deps", []):
        if dependency["path"] == f"{PREPARED}{split}":
            return str(dependency.get("md5"))
    return None


def by_setting(results: Iterable[Result]) -> list[list[Result]]:
    """Put the results of each setting together, the settings in the order in which they came.

    Two results are of one setting if they come from the same, except the seed, or if they predict
    the same: a program that was only tidied up makes no new setting.
    """
    results = list(results)
    same: DisjointSet = DisjointSet()
    for result in results:
        same.add(result.setting)
        same.add(result.predicted)
        same.merge(result.setting, result.predicted)
    settings: dict[str, list[Result]] = {}
    for result in results:
        settings.setdefault(same[result.setting], []).append(result)
    return list(settings.values())


def alike(setting: list[Result], seed: int | None) -> Revision:
    """Return the result of a setting with a seed; its latest one if none has that seed."""
    with_seed = [result for result in setting if result.seed == seed]
    commit = (with_seed or setting)[-1].commit
    return Revision(commit[:7], commit)


def p_value_against(before: Revision, other: Revision) -> float:
    """Return the p value of the exact McNemar test of two revisions; NaN if there is none."""
    # Nobody asked for a setting of which the predictions cannot be read.
    with suppress(InputError):
        if before.predictions is not None and other.predictions is not None:
            matched = same_images(before.predictions, other.predictions)
            if matched is not None:
                return paired(*right_before_and_after(matched)).p_value
    return math.nan
