"""Tell from the names of its files how a data set is laid out.

Folders and archives are judged by this alone, so that the same tree is the same data set:

- What counts are the images, by their suffix. Empty folders and other files decide nothing.
- A folder named like a split (`SPLIT_OF_FOLDER`, in any case) is one if it has class folders, that
  is, folders with images. Where there is such a folder, there must be one for training and one for
  testing, and no two for the same split. Images beside them are left out, with a line.
- Where there is none, the folders are classes. One that is named like a split and has images
  directly in it is refused, because these may be images without a class; but ``train/`` beside two
  or more class folders is a class, as there are trains among vehicles.
"""

import re
from pathlib import Path

from common.console import InputError

SPLIT_OF_FOLDER = {
    "train": "train",
    "training": "train",
    "validation": "validation",
    "val": "validation",
    "valid": "validation",
    "test": "test",
    "testing": "test",
}
FORMS = "train/<class>/ and test/<class>/, or class folders alone, or zip archives of one of these"
SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp")
VERBS = {"train": "trains", "validation": "validates", "test": "tests"}
IGNORED = re.compile(
    r"(^|/)(\.|(thumbs\.db|desktop\.ini|__macosx|lost\+found)(/|$))", re.IGNORECASE
)
MOST_NAMED = 10  # folders in a line on the console


def split_of(folder: str) -> str | None:
    """Return the split that a folder is named like, or None.

    Examples
    --------
    >>> split_of("VAL"), split_of("value")
    ('validation', None)
    """
    return SPLIT_OF_FOLDER.get(folder.lower())


def wrapping_folder(names: list[str]) -> str:
    """Return the one folder in which all files lie, with its slash; "" if there is none.

    A folder named like a split does not count.
    """
    top_names = {name.partition("/")[0] for name in names}
    if len(top_names) != 1 or split_of(min(top_names)):
        return ""
    return f"{top_names.pop()}/"


def find_files(names: list[str], path: Path) -> tuple[list[int], bool]:
    """Find the files in class folders, and say how they are laid out and what is left out.

    Parameters
    ----------
    names : list of str
        All files of the data set, below its root.
    path : Path
        What errors call the data set.

    Returns
    -------
    (list of int, bool)
        The indices of the files, by name; whether the data set says which images test.

    Raises
    ------
    InputError
        If there are none, or it is not clear which of the two forms the data set has.
    """
    flat, deep = find_folders(names)
    splits = find_splits(flat, deep, path)
    if not splits:
        check_classes_alone(flat, deep, path)
    found, beside, images_beside = [], set(), 0
    for index, name in enumerate(names):
        top, slash, below = name.partition("/")
        is_in_class = top in splits and "/" in below if splits else bool(slash)
        if is_in_class:
            found.append(index)
        elif is_image(name):
            beside.add(f"{top}/" if slash else "no folder")
            images_beside += 1
    if not found:
        hint = ""
        if any("\\" in name for name in names):
            hint = "; some names hold a backslash in place of a slash, which makes no folders"
        raise InputError(
            f"dataset: {path} has no images in class folders; it must hold {FORMS}{hint}"
        )
    if splits:
        layout = ", ".join(f"{folder}/ {VERBS[split]}" for folder, split in splits.items())
        where = " or ".join(f"{folder}/<class>/" for folder in splits)
    else:
        layout = f"class folders alone ({listed(flat | deep) or 'without images'})"
        where = "a class folder"
    print(f"load: {path}: {layout}", flush=True)
    if images_beside:
        folders = listed(beside)
        print(f"load: left out, not in {where}: {images_beside} images, in {folders}", flush=True)
    return sorted(found, key=names.__getitem__), bool(splits)


def find_folders(names: list[str]) -> tuple[set[str], set[str]]:
    """Return the folders with images directly in them, and those with images in their folders."""
    flat: set[str] = set()
    deep: set[str] = set()
    for name in names:
        top, slash, below = name.partition("/")
        if slash and is_image(name):
            (deep if "/" in below else flat).add(top)
    return flat, deep


def find_splits(flat: set[str], deep: set[str], path: Path) -> dict[str, str]:
    """Return the split of each folder that is one; nothing where there are classes alone."""
    splits = {folder: split for folder in sorted(deep) if (split := split_of(folder))}
    folder_of: dict[str, str] = {}
    for folder, split in splits.items():
        if split in folder_of:
            raise InputError(
                f"dataset: {path} holds both {folder_of[split]}/ and {folder}/; it must hold one"
            )
        folder_of[split] = folder
    for split in ("train", "test") if splits else ():
        if split not in folder_of:
            outside = [f"{folder}/" for folder in sorted(flat) if split_of(folder) == split]
            reason = f" (those in {outside[0]} are in no class folder)" if outside else ""
            raise InputError(
                f"dataset: {path} has {min(splits)}/<class>/, but no images in "
                f"{split}/<class>/{reason}; it must hold {FORMS}"
            )
    return {folder_of[split]: split for split in VERBS if split in folder_of}


def check_classes_alone(flat: set[str], deep: set[str], path: Path) -> None:
    """Refuse folders that are named like a split, but may be classes or images without a class."""
    doubtful = sorted(folder for folder in flat if split_of(folder))
    classes = (flat | deep).difference(doubtful)
    may_be_class = [split_of(folder) for folder in doubtful] == ["train"] and len(classes) > 1
    if doubtful and not may_be_class:
        beside = f" beside {listed(classes)}" if classes else ""
        folders = listed(set(doubtful))
        raise InputError(
            f"dataset: {path} has images directly in {folders}{beside}, of which it is not clear "
            f"whether they have a class; rename {folders} if that is the class, or let it hold "
            "class folders, or take it away"
        )


def is_image(name: str) -> bool:
    """Tell whether a file counts as an image."""
    return name.lower().endswith(SUFFIXES)


def listed(folders: set[str]) -> str:
    """Return folders as text, some of them where there are many."""
    names = sorted(folders)
    return ", ".join(names if len(names) <= MOST_NAMED else [*names[:MOST_NAMED], "..."])
