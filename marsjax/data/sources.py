"""Finds the feeds that there are of a source: the one list of the readers.

To add a source, write a reader with a `days`, and put it on the list.
"""

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from marsjax.core.errors import InputError
from marsjax.data.feed import DayFeed

_READERS = {"csv": "neutral", "lobster": "lobster", "sse": "sse"}


def names() -> list[str]:
    """The sources that can be opened, sorted."""
    return sorted(_READERS)


def open_days(source: str, path: str | Path, symbols: Sequence[str] = (), date: str = "", **options: Any
              ) -> list[DayFeed]:
    """The days of a source, sorted by name.

    Args:
      source: one of `names()`.
      path: a folder of files named as the source names them; of csv the file.
      symbols: those wanted; none: all that are there.
      date: the one wanted, as in the file names; empty: all.
      **options: of the reader's `days`.

    Raises InputError for an unknown source, FileNotFoundError where there is nothing to read.
    """
    if source not in _READERS:
        raise InputError(f"source: expected {', '.join(names())}, got {source!r}")
    reader = importlib.import_module(f"marsjax.data.{_READERS[source]}")
    found: list[DayFeed] = reader.days(Path(path), symbols, date, **options)
    return found
