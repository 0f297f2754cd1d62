"""Put the seeds of each setting together, and tell which settings cannot be told from the best."""

import hashlib
import io
import math
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from statistics import mean
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import binomtest

from review.history import holm
from review.predictions import PREDICTIONS, PREDICTIONS_FILE, fault_of
from review.seeds import over_seeds_and_images
from review.significance import LEVEL, paired
from search.results import Result, Split, read_objects, settings_of

FRESH = ("winner", "default")  # roles of what a search ran again with fresh seeds, at its end
Interval = tuple[float, float]
Key = tuple[Split | Literal[""], str]  # of a section: the split and the images
NOWHERE: Key = ("", "")


@dataclass(frozen=True)
class Scored:
    """Which images a result got right.

    Attributes
    ----------
    images : str
        A hash of the names of the images and of their classes.
    right : ndarray of bool, shape (N,)
        Whether each was classified correctly, the images in the order of their names.
    """

    images: str
    right: NDArray[np.bool_]


@dataclass
class Setting:
    """A row of the table: the results of one setting, an element a seed.

    Attributes
    ----------
    results : list of Result
        The finished ones first.
    scored : list of Scored
        Of the finished ones; empty unless all of them scored the same images.
    interval : tuple of float or None
        Of the mean accuracy, at 95%; None if the images are not known.
    p_value : float
        Of the comparison with the best setting, corrected; NaN if there is none.
    is_best : bool
        Whether its mean accuracy is the highest on its images.
    """

    results: list[Result]
    scored: list[Scored]
    interval: Interval | None = None
    p_value: float = math.nan
    is_best: bool = False

    @property
    def finished(self) -> list[Result]:
        """The results that have an accuracy."""
        return [result for result in self.results if result.accuracy is not None]

    @property
    def accuracy(self) -> float | None:
        """The mean accuracy over the seeds; None if no run was scored."""
        return self.metric("accuracy")

    def metric(self, name: str) -> float | None:
        """Return the mean over the seeds of a metric of the images that were scored."""
        keys = [(name, f"{result.scored}_{name}") for result in self.finished]
        found = [
            result.metrics[key]
            for result, names in zip(self.finished, keys, strict=True)
            for key in names
            if key in result.metrics
        ]
        return mean(found) if found and len(found) == len(self.finished) else None

    @property
    def standing(self) -> str:
        """How it compares with the best setting, in words."""
        if self.is_best:
            return "the best"
        if math.isnan(self.p_value):
            return "not compared" if self.finished else "not scored"
        return "cannot be told from the best" if self.p_value >= 1 - LEVEL else "worse"


@dataclass
class Section:
    """The settings that scored the same images: only these are compared.

    Attributes
    ----------
    split : str
        ``test`` or ``validation``; "" if nothing was scored.
    images : int
        How many images; 0 if that is not known.
    settings : list of Setting
        The best first, and what was not scored last.
    """

    split: str
    images: int
    settings: list[Setting] = field(default_factory=list)

    @property
    def results(self) -> list[Result]:
        """The results of all settings."""
        return [result for setting in self.settings for result in setting.results]


def read_scored(results: list[Result]) -> list[Scored | None]:
    """Return which images each result got right; None where the predictions cannot be read."""
    names = (f"{result.commit}:./{PREDICTIONS_FILE}" for result in results)
    return [scored_of(found.content) for found in read_objects(names)]


def scored_of(content: bytes) -> Scored | None:
    """Return which images a table of predictions got right; None if no run can have written it."""
    with suppress(ValueError):
        table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False, engine="c")
        is_whole = not table.empty and set(PREDICTIONS) <= set(table.columns)
        if is_whole and fault_of(table) is None:
            table = table.sort_values("image", kind="stable")
            named = "\n".join(table["image"]) + "\n\n" + "\n".join(table["actual"])
            digest = hashlib.sha256(named.encode(errors="replace")).hexdigest()
            return Scored(digest, (table["actual"] == table["predicted"]).to_numpy())
    return None


def sections_of(results: list[Result]) -> list[Section]:
    """Return the settings in sections, those of most settings first, each compared with its best.

    What was not scored stands with the others of its search, or else with those of its split.
    """
    scored = dict(zip(map(id, results), read_scored(results), strict=True))
    sections: dict[Key, Section] = {}
    homes: dict[object, Counter[Key]] = {}
    waiting = []
    for setting in split_settings(results):
        known = [found for result in setting.finished if (found := scored[id(result)])]
        if len(known) == len(setting.finished) and len({one.images for one in known}) == 1:
            setting.scored = known
        if not setting.finished:
            waiting.append(setting)
            continue
        key: Key = (setting.finished[0].scored, setting.scored[0].images if setting.scored else "")
        images = setting.scored[0].right.size if setting.scored else 0
        sections.setdefault(key, Section(key[0], images)).settings.append(setting)
        for home in homes_of(setting):
            homes.setdefault(home, Counter())[key] += 1
    for setting in waiting:
        keys = [home for home in homes_of(setting) if home in homes]
        key = homes[keys[0]].most_common(1)[0][0] if keys else NOWHERE
        sections.setdefault(key, Section(key[0], 0)).settings.append(setting)
    for section in sections.values():
        compare(section)
    return sorted(sections.values(), key=lambda section: -len(section.settings))


def homes_of(setting: Setting) -> list[object]:
    """Return what a setting shares with those that scored the same images, the surest first."""
    first = setting.results[0]
    search = (first.trailers.get("Search"), first.trailers.get("Settings"))
    split = first.params.get("evaluate_on", "test")
    return [search, split] if search[0] else [split]


def split_settings(results: Iterable[Result]) -> list[Setting]:
    """Return the settings, a result a seed.

    The runs with fresh seeds at the end of a search are rows of their own: nobody chose them for
    their luck, as the trial that won was chosen.
    """
    settings = []
    for group in settings_of(list(results)):
        for role in (None, *FRESH):
            seeds: dict[object, Result] = {}
            for result in sorted(group, key=lambda result: result.accuracy is None):
                found = result.trailers.get("Role")
                if (found if found in FRESH else None) == role:
                    seeds.setdefault(result.seed, result)
            if seeds:
                settings.append(Setting(list(seeds.values()), []))
    return settings


def compare(section: Section) -> None:
    """Sort the settings of a section, and set their intervals and their standing."""
    settings = section.settings
    settings.sort(key=lambda setting: -(setting.accuracy or -1))
    for setting in settings:
        setting.interval = interval_of(setting)
    compared = [setting for setting in settings if setting.scored]
    if not compared:
        return
    best, *others = compared
    best.is_best = True
    p_values = [p_value_against(best, other) for other in others]
    for place, other in enumerate(others):
        other.p_value = holm(p_values[place], p_values[:place] + p_values[place + 1 :])


def interval_of(setting: Setting) -> Interval | None:
    """Return the 95% interval of the mean accuracy: Wilson's of one seed, else `review.seeds`'s."""
    if not setting.scored:
        return None
    right = np.stack([scored.right for scored in setting.scored])
    if len(right) > 1 and right.shape[1] > 1:
        nothing = np.zeros_like(right)  # a model that is always wrong, and adds no error
        found = over_seeds_and_images(nothing, right, same_seeds=False)
        if not math.isnan(found.low):
            return max(found.low, 0.0), min(found.high, 1.0)
    return wilson(round(right.mean() * right.shape[1]), right.shape[1])


def interval_of_metrics(result: Result) -> Interval | None:
    """Return the 95% interval of the accuracy of one result, as `evaluate` has written it."""
    ends = [result.metrics.get(f"{result.scored}_accuracy_{end}") for end in ("low", "high")]
    return (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None


def wilson(right: int, images: int) -> Interval:
    """Return Wilson's 95% interval of an accuracy."""
    interval = binomtest(right, images).proportion_ci(LEVEL, method="wilson")
    return float(interval.low), float(interval.high)


def p_value_against(best: Setting, other: Setting) -> float:
    """Return the p value of a comparison: over seeds and images if both have several seeds.

    Else that of the exact McNemar test, of a seed that both have if there is one.
    """
    seeds = [[result.seed for result in side.finished] for side in (best, other)]
    rows = [[scored.right for scored in side.scored] for side in (best, other)]
    shared = [seed for seed in seeds[0] if seed in seeds[1]]
    if min(map(len, seeds)) > 1 and rows[0][0].size > 1:
        same = sorted(map(repr, seeds[0])) == sorted(map(repr, seeds[1]))
        if same:
            rows[1] = [rows[1][seeds[1].index(seed)] for seed in seeds[0]]
        return over_seeds_and_images(np.stack(rows[0]), np.stack(rows[1]), same).p_value
    places = [side.index(shared[0]) if shared else 0 for side in seeds]
    return paired(rows[0][places[0]], rows[1][places[1]]).p_value
