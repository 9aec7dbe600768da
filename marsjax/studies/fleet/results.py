"""The results of a fleet: all states as one table that is read when it is needed, or state after state."""

import os
from collections.abc import Iterator
from typing import Any

import pandas as pd

from marsjax.core.errors import InputError
from marsjax.studies.fleet import ledger
from marsjax.studies.fleet.ledger import Ledger


def read(folder: str | os.PathLike[str]) -> Any:
    """All states of a fleet's folder as a `pyarrow.dataset.Dataset`.

    Nothing is read before it is asked for: `read(folder).to_table(columns=["market", "label"]).to_pandas()`, with a
    `filter`, or `to_batches` for what does not fit in memory. A file that was cut off is left out. InputError where the
    folder is no fleet's, or no state of it is done.
    """
    import pyarrow.dataset

    found = ledger.known_ledger(folder)
    paths = [str(found.path(number)) for number in found.numbers() if found.is_done(number)]
    if not paths:
        raise InputError(f"{folder}: no state is done yet")
    return pyarrow.dataset.dataset(paths, format="parquet")


def each(found: Ledger) -> Iterator[pd.DataFrame]:
    """The tables of the states that are done, one after the other, in order of their numbers."""
    import pyarrow.parquet

    for number in found.numbers():
        if found.is_done(number):
            yield pyarrow.parquet.read_table(found.path(number)).to_pandas()
