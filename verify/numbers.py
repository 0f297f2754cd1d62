"""The numbers that a run has written, and whether another processor could have written others.

What follows from the predictions and the curves is computed anew by `verify.committed`. All the
rest, that is the curves of the training, the losses, and metrics of one's own, is compared here
with what was made here.
"""

import io
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from common.console import InputError
from review.predictions import PREDICTIONS_FILE
from verify.committed import CALIBRATION, CURVES, EVALUATE, PER_CLASS, TRAIN

Key = tuple[str, str]  # a file, and a name in it
Columns = Mapping[Key, list[str]]  # a text for each row of a table, and one of a JSON file
Floats = NDArray[np.float64]

FACTOR = 8.0  # measured where runs of one seed have moved apart: up to 4.5
SHARE = 0.01  # of a loss, and of what is no accuracy
NATS = 0.002
FEW_IMAGES = 3  # on the edge between two classes
FEW_POINTS = 0.002
NATS_OF_IMAGES = 0.02  # the root of the mean square over the images
ERRORS = 4.0  # by as many standard errors a mean may be off

# The names of what `verify.committed` computes anew, so that there is one value that is right.
FOLLOWS = {
    *(
        f"{split}_accuracy{end}"
        for split in ("test", "validation")
        for end in ("", "_low", "_high")
    ),
    *("errors", "macro_f1", "expected_calibration_error"),
}
CONFIDENCE, LOSS = (PREDICTIONS_FILE, "confidence"), (PREDICTIONS_FILE, "loss")
OWN_TESTS = {CONFIDENCE, (PREDICTIONS_FILE, "predicted")}  # of `verify.equivalence`


@dataclass(frozen=True)
class Runs:
    """The numbers of three runs of one setting, of those files that differ.

    Runs that differ in rounding alone move apart as they train, and in the end as far as runs of
    two seeds. How far they have come shows in the confidences. So the committed run may differ
    from the one made here by that share of what another seed differs by, times `FACTOR`.

    Attributes
    ----------
    committed, here : Columns
        As committed, and as made here.
    other_seed : Columns
        Of another seed, made here; empty if there is none.
    images : dict of str to object
        How many images there are of a kind, by the names in metrics/load.json.
    may_stop_early : bool
        Whether the number of epochs depends on the losses.
    """

    committed: Columns
    here: Columns
    other_seed: Columns
    images: Mapping[str, object]
    may_stop_early: bool

    @property
    def share(self) -> float:
        """How far the committed run is from the one made here, as a share of another seed."""
        columns = [floats(side.get(CONFIDENCE)) for side in self.sides]
        if len({len(column) for column in columns}) > 1:
            return 0.0
        committed, here, other = columns
        apart = root_mean_square(other - here)
        return root_mean_square(committed - here) / apart if apart else 0.0

    @property
    def sides(self) -> tuple[Columns, Columns, Columns]:
        """The three runs."""
        return self.committed, self.here, self.other_seed

    def mismatches(self) -> Iterator[str]:
        """Yield what is committed and comes from this code and data on no processor."""
        for key in dict.fromkeys([*self.here, *self.committed]):
            file, name = key
            committed, here = self.committed.get(key), self.here.get(key)
            if committed is None or here is None:
                has = "has no" if committed is None else "has"
                yield f"{file} {has} {name}, other than the one made here"
            elif self.is_determined(key):
                continue
            elif len(committed) != len(here) and not (file == CURVES and self.may_stop_early):
                yield f"{file} has {len(committed):,} rows, and the one made here {len(here):,}"
            elif key == LOSS:
                yield from self.wrong_losses(committed, here)
            else:
                yield from self.wrong_values(key, committed, here)

    def is_determined(self, key: Key) -> bool:
        """Whether a column is computed anew from another one, or has a test of its own."""
        file, name = key
        return (
            key in OWN_TESTS
            or file in (PER_CLASS, CALIBRATION)
            or (file == EVALUATE and name in FOLLOWS)
            or (file == TRAIN and (CURVES, name) in self.here)
        )

    def wrong_values(self, key: Key, committed: list[str], here: list[str]) -> Iterator[str]:
        """Yield the value of a column that is farthest off, if one is too far."""
        file, name = key
        rows = min(len(committed), len(here))
        there, now = floats(committed)[:rows], floats(here)[:rows]
        reach = np.maximum(self.rounding(key, now), self.reach_of_seeds(key, now))
        excess = np.abs(there - now) - reach
        same = np.array(committed[:rows], object) == np.array(here[:rows], object)
        # What is no number is a text, which no processor changes.
        excess = np.where(same, -math.inf, np.where(np.isfinite(excess), excess, math.inf))
        if rows and excess.max() > 0:
            row = int(excess.argmax())
            where = f" of row {row + 1}" if file.endswith(".csv") else ""
            most = f", and may be {reach[row]:.3g} from it" if math.isfinite(excess[row]) else ""
            yield (
                f"{file} says {name}{where} {committed[row]}, which made here is {here[row]}{most}"
            )

    def rounding(self, key: Key, here: Floats) -> Floats:
        """Return what a column may differ by however alike the two runs are."""
        file, name = key
        if (file, name) == (CURVES, "epoch"):
            return np.zeros_like(here)
        if name.endswith("accuracy"):
            images = self.images.get(f"{name.removesuffix('_accuracy')}_images")
            few = FEW_IMAGES / images if isinstance(images, int) and images else 0.0
            return np.full_like(here, FEW_POINTS + few)
        if (file, name.partition("_")[2]) == (EVALUATE, "loss") and LOSS in self.here:
            return np.maximum(self.allowed(here), self.reach_of_mean_loss())
        return self.allowed(here)

    @staticmethod
    def allowed(here: Floats) -> Floats:
        """Return the share of a number that counts as none."""
        return np.maximum(NATS, SHARE * np.abs(here))

    def reach_of_seeds(self, key: Key, here: Floats) -> float:
        """Return what a column may differ by, for how far the two runs have moved apart."""
        other = floats(self.other_seed.get(key))
        rows = min(len(other), len(here))
        apart = np.abs(other[:rows] - here[:rows])
        return FACTOR * self.share * float(np.nan_to_num(apart).max(initial=0.0))

    def reach_of_losses(self) -> float:
        """Return by how much the losses of the images may differ, as a root mean square."""
        other, here = (floats(side.get(LOSS)) for side in (self.other_seed, self.here))
        apart = root_mean_square(other - here) if len(other) == len(here) else 0.0
        return max(NATS_OF_IMAGES, FACTOR * self.share * apart)

    def reach_of_mean_loss(self) -> float:
        """Return by how much their mean may differ: it is that of a sample of images."""
        return ERRORS * self.reach_of_losses() / math.sqrt(len(self.here[LOSS]))

    def wrong_losses(self, committed: list[str], here: list[str]) -> Iterator[str]:
        """Yield the loss of an image that is farthest off, if all of them together are."""
        apart = floats(committed) - floats(here)
        reach = self.reach_of_losses()
        if not root_mean_square(apart) <= reach:
            row = int(np.nan_to_num(np.abs(apart), nan=math.inf).argmax())
            yield (
                f"{PREDICTIONS_FILE} says loss of row {row + 1} {committed[row]}, which made here "
                f"is {here[row]}; over all images the two are {root_mean_square(apart):.3g} apart "
                f"(root mean square), and may be {reach:.3g}"
            )


def floats(values: Iterable[str] | None) -> Floats:
    """Return texts as numbers, NaN where one is none; an empty array of None."""
    series = pd.Series(list(values or ()), dtype=object)
    return pd.to_numeric(series, errors="coerce").to_numpy(float)


def root_mean_square(values: Floats) -> float:
    """Return the root of the mean of the squares; 0 of nothing."""
    return math.sqrt(float(np.mean(values**2))) if values.size else 0.0


def columns_of(paths: Iterable[str], read: Callable[[str], bytes | None]) -> Columns:
    """Return what tables and files of metrics say.

    Parameters
    ----------
    paths : iterable of str
        Files, of which those that are neither JSON nor CSV are left out.
    read : function
        Returns the content of a file, or None if there is none.

    Raises
    ------
    InputError
        If one cannot be read.
    """
    columns: dict[Key, list[str]] = {}
    for path in paths:
        content = read(path) if path.endswith((".json", ".csv")) else None
        if content is None:
            continue
        try:
            if path.endswith(".json"):
                pairs = flat(json.loads(content))
                columns |= {(path, name): [value] for name, value in pairs}
            else:
                table = pd.read_csv(io.BytesIO(content), dtype=str, keep_default_na=False)
                columns |= {(path, str(name)): list(table[name]) for name in table}
        except ValueError:
            raise InputError(f"{path} cannot be read") from None
    return columns


def flat(value: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield the names and values of a JSON file; what is inside another is named ``outer.inner``.

    Examples
    --------
    >>> list(flat({"loss": 0.5, "by_class": {"a": [1, 2]}}))
    [('loss', '0.5'), ('by_class.a.0', '1'), ('by_class.a.1', '2')]
    """
    if isinstance(value, list):
        value = dict(enumerate(value))
    if not isinstance(value, dict):
        yield name, str(value)
        return
    for key, inner in value.items():
        yield from flat(inner, f"{name}.{key}" if name else str(key))
