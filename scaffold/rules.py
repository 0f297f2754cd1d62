"""The rules by which this code becomes that of a repository in which nothing is about MNIST.

1. The files in `LEFT_OUT` are left out.
2. Of the others, a line that ends in a mark is left out, and so is a passage between two marks:

       # make new leaves this out
       ...
       # make new goes on here

   In Markdown the marks are comments of HTML, which nobody sees who reads the page.
3. The words in `WORDS` are replaced.
4. A package whose line in requirements.in was left out is taken out of the locks as well.
"""

import re
from contextlib import suppress
from pathlib import Path

from common.outputs import remove

LEFT_OUT = (
    # what gets MNIST, and what came of it
    "data",
    "dvc.lock",
    "metrics",
    "plots",
    "review/example.png",
    # the recipes for MNIST and their results
    "recipes",
    "spaces/default.csv",
    "runs/recipe_table.py",
    "runs/results.py",
    "tests/test_data.py",
    "tests/test_recipes.py",
    # measurements
    "bench",
    "tests/test_luck.py",
    "common/pages.py",
    "docs/benchmark.md",
    "docs/recipes.md",
    "docs/scale.md",
    "docs/scale.png",
    # other data sets, and what makes repositories
    "docs/colour-samples.png",
    "docs/colour.md",
    "docs/your-own-repository.md",
    "scaffold",
    "tests/test_new.py",
)
WORDS = {"mnist_cnn": "cnn", "mnist-cnn": "cnn", "mnist-jpg": "images"}

BEGIN, END = "make new leaves this out", "make new goes on here"
MARK_ALONE = re.compile(rf"\s*(#|<!--) ({BEGIN}|{END})( -->)?\s*")


def apply_rules(folder: Path) -> None:
    """Apply the rules to a copy of the files of this repository.

    Parameters
    ----------
    folder : Path
        The copy, with nothing else in it.
    """
    for name in LEFT_OUT:
        remove(folder / name)
    packages_before = packages(folder)
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            with suppress(UnicodeDecodeError):  # no text
                path.write_bytes(rewritten(path.read_bytes().decode()).encode())
    for lock in folder.glob("requirements*.txt"):
        for package in packages_before - packages(folder):
            lock.write_text(without_package(lock.read_text(), package))


def rewritten(text: str) -> str:
    r"""Return a text by the rules 2 and 3.

    Examples
    --------
    >>> rewritten("a\nb  # make new leaves this out\nmodels/mnist_cnn_model.h5\n")
    'a\nmodels/cnn_model.h5\n'
    """
    kept, inside = [], False
    for line in text.splitlines(keepends=True):
        if MARK_ALONE.fullmatch(line):
            inside = BEGIN in line
        elif not inside and BEGIN not in line:
            kept.append(line)
    text = "".join(kept)
    for word, replacement in WORDS.items():
        text = text.replace(word, replacement)
    return text


def packages(folder: Path) -> set[str]:
    """Return the names of the packages in requirements.in."""
    return set(re.findall(r"^[\w.-]+", (folder / "requirements.in").read_text(), re.MULTILINE))


def without_package(lock: str, package: str) -> str:
    r"""Return the text of a lock without a package that no other one needs.

    Examples
    --------
    >>> without_package("a==1\n    # via\n    #   b\n    #   c\nb==2\n    # via -r x\n", "b")
    'a==1\n    # via\n    #   c\n'
    """
    lock = re.sub(rf"(?m)^{re.escape(package)}==.*\n(?:[ ].*\n)*", "", lock)
    return re.sub(rf"(?m)^    #   {re.escape(package)}\n", "", lock)
