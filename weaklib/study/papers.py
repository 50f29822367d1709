"""What the papers reported: ``notebooks/reported.csv``, each number with its source."""

import pandas as pd

from weaklib.arms.folders import NOTEBOOKS


def reported(paper: str, *where: str) -> pd.DataFrame:
    """Rows of ``paper`` (``A`` or ``B``), those of the figures or tables ``where`` if any are named.

    Raises:
        KeyError: nothing is recorded under such a name.
    """
    rows = pd.read_csv(NOTEBOOKS / "reported.csv", keep_default_na=True)
    rows = rows[rows["paper"] == paper]
    if unknown := set(where) - set(rows["where"]):
        raise KeyError(f"nothing reported for {paper} {unknown.pop()!r}: {sorted(set(rows['where']))}")
    return (rows[rows["where"].isin(where)] if where else rows).reset_index(drop=True)
