"""The table of predictions, as it is read back: what no run can have written is refused."""

from collections.abc import Iterator

import numpy as np
import pandas as pd

PREDICTIONS_FILE = "plots/predictions.csv"
PREDICTIONS = ["image", "actual", "predicted", "confidence"]  # older tables have no `loss`


def fault_of(table: pd.DataFrame) -> str | None:
    """Return what is wrong in a table of predictions, and where; None if nothing is.

    Parameters
    ----------
    table : DataFrame
        Its cells as text, with the columns `PREDICTIONS` at least.

    Examples
    --------
    >>> table = pd.DataFrame([["a", "1", "1", "0.5"], ["b", "1", "1", "nan"]], columns=PREDICTIONS)
    >>> fault_of(table)
    "row 2, column confidence, is 'nan'; it must be a number from 0 to 1"
    >>> fault_of(table[:1]) is None
    True
    """
    for column, is_wrong, right in checks(table):
        if is_wrong.any():
            row = int(np.argmax(is_wrong))
            value = str(table[column].iloc[row])
            return f"row {row + 1}, column {column}, is {value!r}; it must be {right}"
    return None


def checks(table: pd.DataFrame) -> Iterator[tuple[str, np.ndarray, str]]:
    """Yield of each column which of its cells are wrong, and what they must be."""
    for column in ("image", "actual", "predicted"):
        yield column, (table[column].isna() | (table[column] == "")).to_numpy(), "a name"
    yield "image", table["image"].duplicated().to_numpy(), "another image in each row"
    for column, most, right in (
        ("confidence", 1.0, "a number from 0 to 1"),
        ("loss", np.finfo(float).max, "a finite number, 0 or more"),
    ):
        if column in table:
            values = pd.to_numeric(table[column], errors="coerce")
            yield column, ~values.between(0, most).to_numpy(), right
