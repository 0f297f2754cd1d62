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


def choose_images(groups: Groups, wanted: Counts, seed: int) -> Groups:
    """Choose the images of each split at random.

    Parameters
    ----------
    groups : dict of str to ndarray of int64
        All images of ``train`` and ``test``, and of ``validation`` if the data set says which
        images validate. Otherwise they are taken from ``train``.
    wanted : Counts
        The number of images of each split.
    seed : int
        What is chosen depends on it and on `groups` alone.

    Returns
    -------
    dict of str to ndarray of int64
        Images for ``train``, ``validation`` and ``test``, in random order. The first two
        share none. Which images validate does not depend on how many train.

    Raises
    ------
    InputError
        If there are fewer images than wanted: each number that is too large, and what would fit.
    """
    train = np.random.default_rng([seed, 0]).permutation(groups["train"])
    test = np.random.default_rng([seed, 1]).permutation(groups["test"])
    of_train = f"train/ has {len(train)}"
    if "validation" in groups:
        validation = np.random.default_rng([seed, 2]).permutation(groups["validation"])
        of_validation = f"validation/ has {len(validation)}"
    else:
        if wanted.validation is None:
            raise InputError(
                "params.yaml: validation_images is null, but the data set has no validation/ of "
                "which to take all; it must be a whole number from 1"
            )
        validation, of_validation = train[: wanted.validation], of_train
        train = train[wanted.validation :]
        of_train = f"validation leaves {len(train)} of train/"
    problems = [
        f"{key} is {'null' if count is None else count}, but {reason}"
        for key, count, available, reason in (
            ("validation_images", wanted.validation, validation, of_validation),
            ("train_images", wanted.train, train, of_train),
            ("test_images", wanted.test, test, f"test/ has {len(test)}"),
        )
        if len(available) < (count or 1)
    ]
    if problems:
        fits = "null"
        if "validation" not in groups:
            fits = str(min(wanted.validation or 1, max(1, len(groups["train"]) // 10)))
        raise InputError(
            f"params.yaml: {'; '.join(problems)}; validation_images: {fits}, train_images: null "
            "and test_images: null would fit"
        )
    return {
        "train": train[: wanted.train],
        "validation": validation[: wanted.validation],
        "test": test[: wanted.test],
    }
