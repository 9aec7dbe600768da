"""Finds the feeds that there are of a source: the one list of the readers.

To add a source, write a reader with a `days`, and put it on the list.
"""

import importlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from marsjax.core.errors import InputError
from marsjax.data.feed import DayFeed

_READERS = {"coinbase": "coinbase", "csv": "neutral", "databento": "databento", "lobster": "lobster", "sse": "sse",
            "szse": "szse"}


def names() -> list[str]:
    """The sources that can be opened, sorted.

    Examples:
      >>> names()
      ['coinbase', 'csv', 'databento', 'lobster', 'sse', 'szse']
    """
    return sorted(_READERS)


def options(source: str) -> list[str]:
    """What the reader of a source takes beside path, symbols and date."""
    return list(inspect.signature(_reader(source).days).parameters)[3:]


def open_days(source: str, path: str | Path, symbols: Sequence[str] = (), date: str = "", **options: Any
              ) -> list[DayFeed]:
    """The days of a source, sorted by name.

    Args:
      source: one of `names()`.
      path: a folder of files named as the source names them; of csv the file, of databento one or the other.
      symbols: those wanted; none: all that are there.
      date: the one wanted, as in the file names; empty: all.
      **options: of the reader's `days`.

    Raises InputError for an unknown source, FileNotFoundError where there is nothing to read.

    Examples:
      >>> import pathlib
      >>> import tempfile
      >>> import pandas as pd
      >>> path = pathlib.Path(tempfile.mkdtemp()) / "mine.csv"
      >>> columns = ["time_ns", "type", "price", "volume", "order_id", "cancel_type", "cancel_id", "agent_id"]
      >>> row = [34_200 * 10**9, "S", 100_100, 300, 1, "None", -1, 0]
      >>> pd.DataFrame([row], columns=columns).to_csv(path, index=False)
      >>> (day,) = open_days("csv", path)
      >>> day.name, day.venue.tick, [len(chunk.orders.kind) for chunk in day.read()]
      ('mine', 100, [1])
    """
    found: list[DayFeed] = _reader(source).days(Path(path), symbols, date, **options)
    return found


def _reader(source: str) -> ModuleType:
    if source not in _READERS:
        raise InputError(f"source: expected {', '.join(names())}, got {source!r}")
    return importlib.import_module(f"marsjax.data.{_READERS[source]}")
