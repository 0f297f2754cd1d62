"""Look at the images of a data set and propose parameters for them, each with its reason."""

import io
import warnings
from dataclasses import dataclass, field

import numpy as np
from PIL import Image

from common.console import InputError
from common.datasets import Dataset
from common.decoding_pool import decode_in_processes
from common.selection import ALL, Counts, choose_images, find_images, set_test_images_aside

SIZE_TO_LOOK = 32  # pixels, height and width
COLOURED = 16  # how far red, green and blue differ in a pixel that is no grey, of 255
COLOURED_PIXELS = 0.01  # share of such pixels in an image that is coloured
COLOURED_IMAGES = 0.05  # share of coloured images in a data set in colour
IMAGES_MEASURED = 1000  # whose size is looked at
SIZES = (128, 96, 64, 48, 32)  # of which one is proposed, or less where the images are smaller
SMALLEST = 16  # pixels, what the default network lets through
BUDGET = 100_000_000  # pixels of all training images: five epochs take about two minutes on 2 cores
FLATTEN_TO = 64  # pixels; of larger images, `head: flatten` makes millions of weights
VALIDATION_SHARE, MOST_VALIDATION = 10, 2000  # one training image in so many validates


@dataclass
class Proposal:
    """What is proposed for a data set.

    Attributes
    ----------
    images : ndarray of int64
        The indices of all images in ``dataset.names``.
    classes : list of str
        Names of the classes.
    parameters : dict of str to object
        Values for params.yaml.
    reasons : list of str
        A line for each value that was not always the same.
    """

    images: np.ndarray
    classes: list[str]
    parameters: dict[str, object] = field(default_factory=dict)
    reasons: list[str] = field(default_factory=list)

    def propose(self, key: str, value: object, reason: str) -> None:
        """Add a value and its reason."""
        self.parameters[key] = value
        shown = "null" if value is None else value
        self.reasons.append(f"{key}: {shown}, because {reason}")


def propose(dataset: Dataset) -> Proposal:
    """Read all images of a data set and propose parameters.

    Raises
    ------
    InputError
        If `load` would refuse the data set, or an image cannot be read: up to ten are named.
    """
    classes, groups = find_images(dataset, None)
    proposal = Proposal(np.sort(np.concatenate(list(groups.values()))), classes)
    proposal.parameters |= {"classes": None, "train_images": None, "test_images": None}
    if ALL in groups:
        groups = set_test_images_aside(dataset, groups[ALL])
    images = len(groups["train"])
    validation = None
    if "validation" in groups:
        proposal.propose(
            "validation_images", validation, "that is all in the folder for validation"
        )
    else:
        validation = min(max(1, images // VALIDATION_SHARE), MOST_VALIDATION)
        reason = (
            f"a tenth of the {images:,} training images is enough, and so are {MOST_VALIDATION:,}"
        )
        if validation > images - len(classes) > 0:
            validation = images - len(classes)
            reason = f"each of the {len(classes):,} classes needs an image to train on"
        proposal.propose("validation_images", validation, reason)
    choose_images(dataset, groups, Counts(None, validation, None), seed=0)
    propose_color_mode(proposal, dataset)
    propose_image_size(proposal, dataset, images)
    return proposal


def propose_color_mode(proposal: Proposal, dataset: Dataset) -> None:
    """Propose colour if enough of the images show some; an image stored in colour may be grey."""
    problems: list[tuple[int, str]] = []
    coloured = 0
    for block in decode_in_processes(dataset, proposal.images, SIZE_TO_LOOK, "rgb", "new: reading"):
        problems += block.problems
        spread = np.ptp(block.images, axis=3)
        coloured += int(((spread > COLOURED).mean(axis=(1, 2)) > COLOURED_PIXELS).sum())
    total = len(proposal.images)
    if problems:
        lines = [f"{dataset.names[index]}: {reason}" for index, reason in problems[:10]]
        listed = "\n  ".join(lines if len(problems) <= 10 else [*lines, "..."])
        raise InputError(
            f"{len(problems)} of {total} images cannot be read:\n  {listed}\nRepair or remove them"
        )
    mode = "rgb" if coloured > COLOURED_IMAGES * total else "grayscale"
    proposal.propose("color_mode", mode, f"{coloured:,} of the {total:,} images show colours")


def propose_image_size(proposal: Proposal, dataset: Dataset, training_images: int) -> None:
    """Propose the size of an image in the middle, or one with which training is quick."""
    step = -(-len(proposal.images) // IMAGES_MEASURED)
    usual = int(np.median([shorter_side(dataset, index) for index in proposal.images[::step]]))
    reason = f"half of the images have {usual} pixels or more on their shorter side"
    if usual < SIZES[-1]:
        size = max(usual, SMALLEST)
    else:
        quick = [size for size in SIZES if size**2 * training_images <= BUDGET] or [SIZES[-1]]
        size = next(size for size in SIZES if size <= min(usual, quick[0]))
        if size == quick[0] < usual:
            reason += ", and training at a larger size would not be quick"
    proposal.propose("image_size", size, reason)
    if size > FLATTEN_TO:
        reason = "`flatten` would give the dense layer of images this large millions of weights"
        proposal.propose("head", "average", reason)


def shorter_side(dataset: Dataset, index: int) -> int:
    """Return the width or the height of an image that can be read, whichever is less."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # nothing is decoded
        with Image.open(io.BytesIO(dataset.read(index))) as image:
            return min(image.size)
