"""Which images of a data set train, validate and test."""

import hashlib
from array import array
from collections import defaultdict
from typing import NamedTuple

import numpy as np

from common.console import InputError
from common.datasets import Dataset
from common.layout import SUFFIXES, is_image, split_of

ALL = "all"  # in place of a split, where a data set has class folders alone
TEST_SHARE = 5  # one image of so many tests
TEST_SEED = b"test images"  # of that choice alone: no other seed moves an image out of the test set

Groups = dict[str, np.ndarray]


class Counts(NamedTuple):
    """How many images of each split are wanted; None for all that there are."""

    train: int | None
    validation: int | None
    test: int | None


def find_images(dataset: Dataset, classes: list[str] | None) -> tuple[list[str], Groups]:
    """Find the images of each split, and of which classes they are.

    Folders that `classes` does not name and files that are not images by their suffix are
    left out, with a line on the console.

    Parameters
    ----------
    dataset : Dataset
        Where the images are.
    classes : list of str or None
        Names of the classes, by label; None for all class folders, sorted.

    Returns
    -------
    classes : list of str
        Names of the classes, by label.
    groups : dict of str to ndarray of int64
        For each split, or for `ALL`, the indices of its images in ``dataset.names``, ascending.

    Raises
    ------
    InputError
        If a class has no image in a split, or there are fewer than two classes.
    """
    images: dict[str, array] = defaultdict(lambda: array("q"))
    classes_of: dict[str, set[str]] = defaultdict(set)
    left_out: dict[str, set[str]] = defaultdict(set)
    other_files: dict[str, list[str]] = defaultdict(list)
    depth = 1 if dataset.has_splits else 0
    for index, name in enumerate(dataset.names):
        parts = name.split("/", depth + 1)
        folder = parts[0] if dataset.has_splits else ALL
        if classes is not None and parts[depth] not in classes:
            left_out[folder].add(parts[depth])
        elif not is_image(name):
            other_files[folder].append(name)
        else:
            classes_of[folder].add(parts[depth])
            images[folder].append(index)
    for folder, names in left_out.items():
        print(f"load: left out, not in `classes`: {of(folder)}{', '.join(sorted(names))}")
    for files in other_files.values():
        suffixes = ", ".join(SUFFIXES)
        print(f"load: left out, not {suffixes}: {len(files)} files, as {files[0]}", flush=True)
    found = sorted(set().union(*classes_of.values()))
    check_classes(found if classes is None else classes, classes, classes_of)
    groups = {split_of(folder) or ALL: np.array(images[folder]) for folder in images}
    return found if classes is None else classes, groups


def of(folder: str) -> str:
    """Return how a message begins the path of a class."""
    return "" if folder == ALL else f"{folder}/ "


def check_classes(
    wanted: list[str], named: list[str] | None, classes_of: dict[str, set[str]]
) -> None:
    """Check that each class has an image in each split.

    Parameters
    ----------
    wanted : list of str
        The classes.
    named : list of str or None
        Those that `classes` in params.yaml names; None if it is null.
    classes_of : dict of str to set of str
        The classes that have images in each folder.
    """
    reason = "which `classes` in params.yaml names" if named else "a class of another folder"
    for folder in classes_of or {ALL: set()}:
        for name in wanted:
            if name not in classes_of[folder]:
                path = f"{name}/" if folder == ALL else f"{folder}/{name}/"
                has = ", ".join(sorted(classes_of[folder])) or "none"
                where = "the data set" if folder == ALL else f"{folder}/"
                raise InputError(f"dataset: no images in {path}, {reason}; {where} has {has}")
    if len(wanted) < 2:
        raise InputError(
            f"dataset: there must be two or more class folders; found {', '.join(wanted) or 'none'}"
        )


def set_test_images_aside(dataset: Dataset, indices: np.ndarray) -> Groups:
    """Choose the test images of a data set of class folders alone, once and for all.

    Of each class one image in `TEST_SHARE` tests: those whose names come first in an order
    that is random, and the same for ever. Neither a seed nor a number of images changes it.

    Raises
    ------
    InputError
        If a class has one image alone.
    """
    by_class: dict[str, list[tuple[bytes, int]]] = defaultdict(list)
    for index in indices.tolist():
        name = dataset.names[index]
        rank = hashlib.blake2b(name.encode(), digest_size=8, key=TEST_SEED).digest()
        by_class[name.split("/", 1)[0]].append((rank, index))
    train, test = [], []
    for name, ranked in by_class.items():
        if len(ranked) < 2:
            raise InputError(
                f"dataset: {name}/ has one image; a class must have two or more, one of which tests"
            )
        ranked.sort()
        tests = -(-len(ranked) // TEST_SHARE)
        test += [index for _, index in ranked[:tests]]
        train += [index for _, index in ranked[tests:]]
    return {"train": np.sort(np.array(train)), "test": np.sort(np.array(test))}


def choose_images(dataset: Dataset, groups: Groups, wanted: Counts, seed: int) -> Groups:
    """Choose the images of each split at random; of each class one or more train.

    Where the draw leaves a class no image to train on, its first image that was not drawn changes
    places with the last one drawn whose class has others.

    Parameters
    ----------
    dataset : Dataset
        Where the images are.
    groups : dict of str to ndarray of int64
        All images of ``train`` and ``test``, and of ``validation`` if the data set says which
        images validate. Otherwise they are taken from ``train``.
    wanted : Counts
        The number of images of each split.
    seed : int
        What is chosen depends on it, on `groups` and on the classes of the images alone.

    Returns
    -------
    dict of str to ndarray of int64
        Images for ``train``, ``validation`` and ``test``, in random order. The first two
        share none. Which images validate does not depend on how many train.

    Raises
    ------
    InputError
        If there are fewer images than wanted, or more classes than images to train on: each number
        that does not fit, and what would fit.
    """
    labels = labels_of(dataset, groups["train"])
    check_counts(groups, wanted, len(np.unique(labels)))

    def with_each_class(order: np.ndarray, count: int) -> np.ndarray:
        return order[swapped(labels[np.searchsorted(groups["train"], order)], count)]

    train = np.random.default_rng([seed, 0]).permutation(groups["train"])
    test = np.random.default_rng([seed, 1]).permutation(groups["test"])
    if "validation" in groups:
        validation = np.random.default_rng([seed, 2]).permutation(groups["validation"])
    else:
        left = len(train) - (wanted.validation or 0)
        train = with_each_class(np.roll(train, left), left)
        train, validation = train[:left], train[left:]
    count = len(train) if wanted.train is None else wanted.train
    return {
        "train": with_each_class(train, count)[:count],
        "validation": validation[: wanted.validation],
        "test": test[: wanted.test],
    }


def labels_of(dataset: Dataset, indices: np.ndarray) -> np.ndarray:
    """Return for each image the number of its class, in the order in which they are met."""
    depth = 1 if dataset.has_splits else 0
    numbers: dict[str, int] = {}
    names = (dataset.names[index].split("/", depth + 1)[depth] for index in indices.tolist())
    return np.array([numbers.setdefault(name, len(numbers)) for name in names])


def swapped(labels: np.ndarray, count: int) -> np.ndarray:
    """Return an order in which each class is among the first images.

    Parameters
    ----------
    labels : ndarray of int64
        The classes of the images, in the order in which they were drawn.
    count : int
        The number of the first images, not less than that of the classes.

    Returns
    -------
    ndarray of int64
        The order as it is, but for one swap for each class that would be missing.

    Examples
    --------
    >>> swapped(np.array([0, 0, 1, 2, 1]), 3)
    array([0, 3, 2, 1, 4])
    """
    order = np.arange(len(labels))
    in_use = np.bincount(labels[:count], minlength=labels.max() + 1)
    place = count
    for missing in np.flatnonzero(in_use == 0):
        place -= 1
        while in_use[labels[place]] == 1:
            place -= 1
        in_use[labels[place]] -= 1
        first = count + int(np.argmax(labels[count:] == missing))
        order[place], order[first] = first, place
    return order


def check_counts(groups: Groups, wanted: Counts, classes: int) -> None:
    """Check that there are as many images as wanted, and one of each class to train on.

    Parameters and errors are those of `choose_images`; `classes` is the number of classes.
    """
    left = len(groups["train"])
    needed = f"each of the {classes} classes needs an image to train on"
    if "validation" in groups:
        most = len(groups["validation"])
        of_validation, of_train, fits = f"validation/ has {most}", f"train/ has {left}", "null"
    elif wanted.validation is None:
        raise InputError(
            "params.yaml: validation_images is null, but the data set has no validation/ of "
            "which to take all; it must be a whole number from 1"
        )
    elif left == classes:
        raise InputError(
            f"dataset: {needed}, which leaves none of {left} images to validate; more are needed"
        )
    else:
        most = left - classes
        of_validation = f"train/ has {left}"
        if wanted.validation <= left:
            of_validation += f" and {needed}"
        fits = str(min(wanted.validation, max(1, left // 10), most))
        left = max(0, left - wanted.validation)
        of_train = f"validation leaves {left} of train/"
    problems = [
        f"{key} is {'null' if count is None else count}, but {reason}"
        for key, count, available, reason in (
            ("validation_images", wanted.validation, most, of_validation),
            ("train_images", wanted.train, left, of_train),
            ("test_images", wanted.test, len(groups["test"]), f"test/ has {len(groups['test'])}"),
        )
        if available < (count or 1)
    ]
    if wanted.train and wanted.train < classes:
        problems.append(f"train_images is {wanted.train}, but {needed}")
    if problems:
        raise InputError(
            f"params.yaml: {'; '.join(problems)}; validation_images: {fits}, train_images: null "
            "and test_images: null would fit"
        )
