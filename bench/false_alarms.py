"""Simulate how often each test of the review finds a difference where there is none.

    python -m bench.false_alarms [REPETITIONS]

Two settings are made up that are equally good in truth, and the review's own tests are asked. All
of them say that they are wrong in 5% of such cases, or less. The table is printed and written
into docs/review.md; with 1,000 repetitions it takes two minutes.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from bench.commands import ROOT
from bench.pages import table
from common.console import run
from common.pages import replace_between_markers
from review.bootstrap import resample
from review.history import holm
from review.seeds import over_seeds_and_images
from review.significance import LEVEL, over_seeds, paired, unpaired

PAGE = ROOT / "docs" / "review.md"
BEGIN = "<!-- simulated: written by `python -m bench.false_alarms` -->\n"
END = "<!-- end of what was simulated -->\n"
IMAGES = 1000
CLASSES = 10
SETTINGS = 15
SEED = 42

Right = NDArray[np.bool_]
Case = Callable[[np.random.Generator], dict[str, bool]]  # a repetition: which tests raised an alarm


@dataclass(frozen=True)
class World:
    """How settings that are equally good differ from one another, on the logistic scale.

    Attributes
    ----------
    easy : float
        How easy an image is, on average: the larger, the more accurate everybody is.
    images : float
        Standard deviation of how easy it is, for all settings alike.
    settings : float
        Of what makes an image easy for one setting alone.
    seeds : float
        Of what one seed is better by, on all images.
    shared : float
        The share of that which the same seed of both settings has in common, from 0 to 1.
    """

    easy: float = 6.0
    images: float = 3.0
    settings: float = 0.0
    seeds: float = 0.3
    shared: float = 0.0

    def sides(self, generator: np.random.Generator, seeds: int) -> list[Right]:
        """Return which images two settings get right, shapes (seeds, images), by so many seeds."""
        images = generator.normal(self.easy, self.images, IMAGES)
        common = generator.normal(0, self.seeds * self.shared**0.5, (seeds, 1))
        sides = []
        for _ in range(2):
            own = generator.normal(0, self.settings, IMAGES)
            luck = generator.normal(0, self.seeds * (1 - self.shared) ** 0.5, (seeds, 1))
            chance = 1 / (1 + np.exp(-(images + own + luck + common)))
            sides.append(generator.random((seeds, IMAGES)) < chance)
        return sides


ALIKE = World()
BLOCKS = World(shared=0.6)
OWN_IMAGES = World(settings=2.0, seeds=0.1)
WORLDS = {
    "seeds differ": ALIKE,
    "seeds differ, and have much in common on both sides": BLOCKS,
    "each setting has images that it alone finds easy": OWN_IMAGES,
}


def two_models(generator: np.random.Generator) -> dict[str, bool]:
    """Compare two models that are right on images of their own, but on as many."""
    before, after = (side[0] for side in replace(OWN_IMAGES, seeds=0.0).sides(generator, 1))
    other = replace(OWN_IMAGES, seeds=0.0).sides(generator, 1)[0][0]
    return {
        "exact McNemar test": is_alarm(paired(before, after).p_value),
        "test of two proportions": is_alarm(unpaired(before, other).p_value),
    }


def two_seeds(generator: np.random.Generator) -> dict[str, bool]:
    """Compare two seeds of one setting as if they were two settings."""
    before, after = ALIKE.sides(generator, 1)
    return {"exact McNemar test": is_alarm(paired(before[0], after[0]).p_value)}


def many_settings(generator: np.random.Generator) -> dict[str, bool]:
    """Compare many settings with one base, and ask whether any of them seems to differ."""
    images = generator.normal(OWN_IMAGES.easy, OWN_IMAGES.images, IMAGES)
    own = generator.normal(0, OWN_IMAGES.settings, (SETTINGS, IMAGES))
    right = generator.random((SETTINGS, IMAGES)) < 1 / (1 + np.exp(-(images + own)))
    p_values = [paired(right[0], other).p_value for other in right[1:]]
    corrected = [
        holm(p_value, p_values[:number] + p_values[number + 1 :])
        for number, p_value in enumerate(p_values)
    ]
    return {
        "exact McNemar test": any(map(is_alarm, p_values)),
        "exact McNemar test, corrected by Holm": any(map(is_alarm, corrected)),
    }


def three_metrics(generator: np.random.Generator) -> dict[str, bool]:
    """Compare F1, loss and calibration of two models that are made in the same way."""
    labels = generator.integers(CLASSES, size=IMAGES)
    images = generator.normal(0, 0.8, (IMAGES, CLASSES))
    matched = pd.DataFrame({"image": np.arange(IMAGES), "actual": labels})
    for side in ("before", "after"):
        scores = images + generator.normal(0, 0.6, (IMAGES, CLASSES))
        scores[np.arange(IMAGES), labels] += 3.5
        chances = np.exp(2 * scores)
        chances /= chances.sum(axis=1, keepdims=True)
        matched[f"predicted_{side}"] = chances.argmax(axis=1)
        matched[f"confidence_{side}"] = chances.max(axis=1)
        matched[f"loss_{side}"] = -np.log(chances[np.arange(IMAGES), labels])
    return {
        f"paired bootstrap of {metric.name}": is_alarm(metric.p_value)
        for metric in resample(matched)
    }


def several_seeds(world: World, seeds: int) -> Case:
    """Return the comparison of so many seeds of two settings."""

    def compare(generator: np.random.Generator) -> dict[str, bool]:
        before, after = world.sides(generator, seeds)
        accuracies = [side.mean(axis=1).tolist() for side in (before, after)]
        return {
            "same seeds": is_alarm(over_seeds_and_images(before, after, True).p_value),
            "other seeds": is_alarm(over_seeds_and_images(before, after, False).p_value),
            "Welch": is_alarm(over_seeds(*accuracies).p_value),
        }

    return compare


def is_alarm(p_value: float) -> bool:
    """Return whether a test finds a difference; it does not where it cannot tell, NaN."""
    return p_value < 1 - LEVEL


def alarms(case: Case, repetitions: int) -> dict[str, float]:
    """Return the share of false alarms of each test in a case. Every call returns the same."""
    generator = np.random.default_rng(SEED)
    raised = pd.DataFrame([case(generator) for _ in range(repetitions)])
    return {str(name): float(share) for name, share in raised.mean().items()}


def rows_of_models(repetitions: int) -> Iterator[list[str]]:
    """Return the rows of the tests that compare two models."""
    for said, case in (
        ("two models, each right on images of its own", two_models),
        ("two models made in the same way", three_metrics),
        (f"any of {SETTINGS - 1} settings against one base", many_settings),
        ("two seeds of one setting, taken for two settings", two_seeds),
    ):
        for name, share in alarms(case, repetitions).items():
            yield [name, said, f"{share:.1%}"]


def rows_of_seeds(repetitions: int) -> Iterator[list[str]]:
    """Return the rows of the tests that compare settings of several seeds."""
    for said, world in WORLDS.items():
        for seeds in (2, 3, 5, 10):
            shares = alarms(several_seeds(world, seeds), repetitions)
            yield [said, str(seeds), *(f"{share:.1%}" for share in shares.values())]


def main() -> None:
    """Simulate, print the tables and write them into the page."""
    parser = argparse.ArgumentParser(prog="bench.false_alarms", description=__doc__.splitlines()[0])
    parser.add_argument("repetitions", nargs="?", type=int, default=1000)
    repetitions = parser.parse_args().repetitions
    noise = 1.96 * (0.05 * 0.95 / repetitions) ** 0.5
    text = "\n\n".join(
        [
            f"{repetitions:,} repetitions on {IMAGES:,} images: a test that is wrong in exactly 5% "
            f"of them would show {0.05 - noise:.1%} to {0.05 + noise:.1%}, 19 times in 20.",
            table(["test", "of what", "false alarms"], list(rows_of_models(repetitions))),
            table(
                [
                    "several seeds a side",
                    "seeds",
                    "over seeds and images, the same seeds on both sides",
                    "the same, other seeds on each side",
                    "over seeds alone: Welch",
                ],
                list(rows_of_seeds(repetitions)),
            ),
        ]
    )
    print(text)
    replace_between_markers(PAGE, BEGIN, END, text + "\n")


if __name__ == "__main__":
    run("false_alarms", main)
