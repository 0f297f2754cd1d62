"""From what is committed and what was made again to one verdict."""

import json
from dataclasses import dataclass, field
from typing import Literal

import pandas as pd

from review.predictions import PREDICTIONS_FILE
from review.revision import PROVENANCE
from review.significance import same_images
from verify.committed import calibration_error
from verify.equivalence import (
    LEVEL,
    WIDEST,
    Difference,
    accuracy_difference,
    likeness,
    mean_difference,
)

MAY_DIFFER = ("train", "evaluate")  # they add floating-point numbers, in the processor's order
NEAR = 0.5  # of what another seed lacks to be alike may a run lack that counts as one of this seed

Verdict = Literal["Verified", "Verified as equivalent", "Not verified", "Could not tell"]
STATUS: dict[Verdict, int] = {
    "Verified": 0,
    "Verified as equivalent": 0,
    "Not verified": 1,
    "Could not tell": 3,
}


@dataclass(frozen=True)
class Output:
    """An output of a stage: its hash as committed, and as made here; "" where there is none."""

    stage: str
    path: str
    committed: str
    here: str

    @property
    def is_same(self) -> bool:
        """Whether both are the same bytes."""
        return self.committed == self.here


@dataclass(frozen=True)
class Margin:
    """The largest difference of two accuracies that counts as none, and where it comes from."""

    value: float
    reason: str


@dataclass
class Equivalence:
    """How the committed predictions and those made here compare.

    Attributes
    ----------
    images : int
        Number of images.
    accuracy, confidence : Difference
        Of the accuracies, and of the mean confidences; here less committed.
    agreement : float
        Share of the images of which both say the same class.
    calibration_errors : tuple of float
        Expected calibration error, committed and here.
    likeness : float
        How alike the committed run and the one made here are, by `verify.equivalence.likeness`.
    margin : Margin
        For the accuracies; for the mean confidences it is `verify.equivalence.WIDEST`.
    likeness_of_other_seed, likeness_of_same_seed : float or None
        How alike the run made here is to others made here: of another seed, and of the same
        with another number of threads. None where that was not asked for.
    """

    images: int
    accuracy: Difference
    confidence: Difference
    agreement: float
    calibration_errors: tuple[float, float]
    likeness: float
    margin: Margin
    likeness_of_other_seed: float | None = None
    likeness_of_same_seed: float | None = None

    def is_like(self, likeness: float) -> bool:
        """Whether so much likeness is that of one seed: another seed lacks twice as much."""
        other = self.likeness_of_other_seed
        return other is None or 1 - likeness <= NEAR * (1 - other)

    @property
    def sentence(self) -> str:
        """The difference of the accuracies and the agreement, in words."""
        return (
            f"the accuracy here {points(self.accuracy)} points ({LEVEL:.0%} interval "
            f"{100 * self.accuracy.low:+.2f} to {100 * self.accuracy.high:+.2f}, margin "
            f"{100 * self.margin.value:.2f}), {self.agreement:.1%} of {self.images:,} predictions "
            "the same"
        )


def points(difference: Difference) -> str:
    """Write a difference of two shares in percentage points."""
    return f"{100 * difference.value:+.2f}"


@dataclass
class Findings:
    """All that was found out about a revision, as far as that went.

    Attributes
    ----------
    unmade : list of str
        Why not every result is made by a stage that runs, from `review.current.unmade_results`.
    contradictions : list of str
        In what is committed, found without running anything.
    outputs : list of Output
        Of every stage that ran; empty if none did.
    provenance : dict of str to (str, str), or None
        What differs between where the result was made and here, by name: there, here. None if
        the revision does not say where it was made.
    packages : dict of str to (str, str)
        Packages of another version here than in the lock of the revision: there, here.
    equivalence : Equivalence or None
        Where bytes differ and may differ.
    changed_images : int or None
        Images of which the committed model does not say here what is committed; None if the
        model cannot be had, or was not asked for.
    mismatches : list of str
        What is committed and comes from this code and data on no processor, from `verify.numbers`.
    obstacle : str
        Why it went no further; "" if it went to the end.
    """

    unmade: list[str] = field(default_factory=list)
    contradictions: list[str] = field(default_factory=list)
    outputs: list[Output] = field(default_factory=list)
    provenance: dict[str, tuple[str, str]] | None = None
    packages: dict[str, tuple[str, str]] = field(default_factory=dict)
    equivalence: Equivalence | None = None
    changed_images: int | None = None
    mismatches: list[str] = field(default_factory=list)
    obstacle: str = ""

    @property
    def differing(self) -> list[Output]:
        """The outputs of other bytes, but for the one that says where it was made."""
        return [o for o in self.outputs if not o.is_same and o.path != PROVENANCE]

    @property
    def must_be_same(self) -> list[Output]:
        """The outputs of other bytes, of stages that give the same on every machine."""
        return [output for output in self.differing if output.stage not in MAY_DIFFER]

    @property
    def asks_for_equivalence(self) -> bool:
        """Whether bytes differ for a reason that may be an honest one."""
        has_reason = self.provenance is None or bool(self.provenance)
        return bool(self.differing) and has_reason and not (self.must_be_same or self.packages)

    @property
    def elsewhere(self) -> str:
        """In what the place where the result was made differs from here."""
        if self.provenance is None:
            return "where it was made is not recorded"
        return (
            f"{', '.join(self.provenance)} {'differs' if len(self.provenance) == 1 else 'differ'}"
        )

    def verdict(self) -> tuple[Verdict, str]:
        """Return the verdict, and the reason in a sentence."""
        if self.unmade:
            return (
                "Not verified",
                f"not every result is made by a stage that runs: {first(self.unmade)}",
            )
        if self.contradictions:
            return (
                "Not verified",
                f"what is committed contradicts itself: {first(self.contradictions)}",
            )
        if self.obstacle:
            return "Could not tell", self.obstacle
        if not self.differing:
            elsewhere = (
                f"; it was made elsewhere, where {self.elsewhere}" if self.provenance else ""
            )
            number = sum(output.is_same for output in self.outputs)
            return "Verified", f"all {number} outputs are the same bytes{elsewhere}"
        if self.packages:
            changes = (
                f"{name} {there}, here {here}" for name, (there, here) in self.packages.items()
            )
            return "Could not tell", (
                f"other bytes than committed: {listed(self.differing)}; other packages are "
                f"installed than the lock names: {', '.join(changes)}"
            )
        if self.must_be_same:
            return "Not verified", (
                f"other bytes than committed: {listed(self.must_be_same)}; "
                f"{self.must_be_same[0].stage} gives the same on every machine"
            )
        if not self.asks_for_equivalence:
            return "Not verified", (
                f"other bytes than committed: {listed(self.differing)}; on a machine of this kind, "
                "where it says that it was made, they are the same"
            )
        return self.verdict_of_equivalence()

    def verdict_of_equivalence(self) -> tuple[Verdict, str]:
        """Return the verdict where bytes differ for a reason."""
        found = self.equivalence
        if found is None:
            return "Not verified", (
                "the predictions that are committed are not of the images that the data gives"
            )
        if self.changed_images:
            return "Not verified", (
                f"of {count(self.changed_images, 'image')} the committed model does not say what "
                f"{PREDICTIONS_FILE} says"
            )
        is_like = found.is_like(found.likeness)
        ranks = ""
        if not is_like:
            ranks = (
                "the rank correlation of the confidences with those made here is "
                f"{found.likeness:.3f}, and that of another seed {found.likeness_of_other_seed:.3f}"
            )
            control = found.likeness_of_same_seed
            if control is not None and found.is_like(control):
                return "Not verified", f"it is not of this seed: {ranks}; {found.sentence}"
        differences = (
            ("accuracy", found.accuracy, found.margin.value),
            ("mean confidence", found.confidence, WIDEST),
        )
        for name, difference, margin in differences:
            if difference.is_outside(margin):
                return "Not verified", f"the {name} is another one: {found.sentence}"
        if self.mismatches:
            return "Not verified", f"no processor makes these numbers: {first(self.mismatches)}"
        if not is_like:
            return "Could not tell", (
                f"it may be of this seed or of another: {ranks}; so long a training forgets "
                f"its seed; {found.sentence}"
            )
        for name, difference, margin in differences:
            if not difference.is_within(margin):
                return "Could not tell", (
                    f"{found.images:,} images are too few to tell the {name} from one outside the "
                    f"margin: {found.sentence}"
                )
        same = [
            stage
            for stage in dict.fromkeys(o.stage for o in self.outputs)
            if stage not in {o.stage for o in self.differing}
        ]
        return "Verified as equivalent", (
            f"the same bytes of {', '.join(same)}; {self.elsewhere}, and {found.sentence}"
        )


def first(sentences: list[str]) -> str:
    """Return the first of several sentences, and say how many more there are."""
    more = f" (and {len(sentences) - 1} more)" if len(sentences) > 1 else ""
    return f"{sentences[0]}{more}"


def count(number: int, noun: str) -> str:
    """Write a number of things.

    Examples
    --------
    >>> count(1, "image"), count(2000, "image")
    ('1 image', '2,000 images')
    """
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(outputs: list[Output]) -> str:
    """Name outputs, the first three of many."""
    names = [output.path for output in outputs]
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def compare_predictions(
    committed: pd.DataFrame,
    here: pd.DataFrame,
    margin: Margin,
) -> Equivalence | None:
    """Compare predictions; return None if they are not of the same images.

    Parameters
    ----------
    committed, here : DataFrame
        From `verify.committed.read_predictions`.
    margin : Margin
        From `verify.__main__`.
    """
    matched = same_images(committed, here)
    if matched is None:
        return None
    before, after = (
        matched[["actual", f"predicted_{side}", f"confidence_{side}"]].set_axis(
            ["actual", "predicted", "confidence"], axis=1
        )
        for side in ("before", "after")
    )
    right_before, right_after = (
        (side["actual"] == side["predicted"]).to_numpy() for side in (before, after)
    )
    return Equivalence(
        images=len(matched),
        accuracy=accuracy_difference(right_before, right_after),
        confidence=mean_difference(
            before["confidence"].to_numpy(float), after["confidence"].to_numpy(float)
        ),
        agreement=float((before["predicted"] == after["predicted"]).mean()),
        calibration_errors=(calibration_error(before), calibration_error(after)),
        likeness=likeness(before["confidence"], after["confidence"]),
        margin=margin,
    )


def differing_provenance(
    committed: bytes | None, here: bytes | None
) -> dict[str, tuple[str, str]] | None:
    """Return what differs between two files of provenance; None if one of them is missing."""
    if committed is None or here is None:
        return None
    there, now = (as_texts(content) for content in (committed, here))
    names = dict.fromkeys([*there, *now])
    return {
        name: (there.get(name, "-"), now.get(name, "-"))
        for name in names
        if there.get(name) != now.get(name)
    }


def as_texts(content: bytes) -> dict[str, str]:
    """Return a flat JSON mapping with its values as texts; empty if it is something else."""
    try:
        values = json.loads(content)
    except ValueError:
        return {}
    if not isinstance(values, dict):
        return {}
    return {
        name: " ".join(map(str, value)) if isinstance(value, list) else str(value)
        for name, value in values.items()
    }
