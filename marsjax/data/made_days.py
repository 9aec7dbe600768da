"""Days that an order model has written, kept beside it: a book to begin with, the orders after it, and when to start.

No order of an exchange is in them, so they can be published. Three files each, in a folder `days` of the checkpoint:
`NAME.csv` and `NAME_book.csv` (gzip), a feed as `neutral` reads it, and `NAME.json`, what its market is.
"""

import dataclasses
import functools
import gzip
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from marsjax.core import files, limits, times
from marsjax.core.errors import InputError, brief
from marsjax.core.sessions import continuous_session
from marsjax.data import neutral
from marsjax.data.feed import DayFeed, Venue, check_tick

FOLDER = "days"
"""In a checkpoint's folder."""
NAMES = ("default", "quiet", "busy")
"""Of the days that come with the default order model."""
_FORMAT = "marsjax day 1"
_TRADE_WIDTH = 128
_KEYS = {"format", "tick", "session", "start", "capacity", "about"}


@dataclasses.dataclass(frozen=True)
class MadeDay:
    """A day and the time at which futures are to start from it: its last orders come just before."""

    feed: DayFeed
    start_ns: int
    """Nanoseconds since midnight."""
    about: Mapping[str, Any]
    """How it was made, and what its market looks like at the start."""


def open_day(folder: str | Path, name: str) -> MadeDay:
    """A day of a checkpoint's folder, by its name.

    Raises FileNotFoundError, which says what is there, where it has none of that name; InputError with the file and the
    key where it is damaged.

    Examples:
      >>> from marsjax.checkpoint import load
      >>> day = open_day(load.folder_of("default"), "quiet")
      >>> day.feed.name, str(times.clock(day.start_ns, digits=0))
      ('quiet', '10:21:00')
    """
    place = Path(folder) / FOLDER
    path = place / f"{name}.json"
    if not path.is_file():
        there = sorted(each.stem for each in place.glob("*.json")) if place.is_dir() else []
        raise FileNotFoundError(f"{place}: no day {name!r}; found: {', '.join(there) or 'none'}")
    record = files.read_json(path)
    if record.get("format") != _FORMAT or set(record) != _KEYS or not isinstance(record["about"], dict):
        raise InputError(f"{path}: expected format {_FORMAT!r} and the keys {', '.join(sorted(_KEYS))}, got "
                         f"{brief(record)}")
    try:
        begin_ns, end_ns = (times.of_clock(each) for each in record["session"])
        start_ns = times.of_clock(record["start"])
        check_tick(record["tick"])
        capacity = record["capacity"]
        limits.check_whole("capacity", capacity, 1, 2**17)
        venue = Venue(continuous_session(begin_ns, end_ns), record["tick"], capacity=capacity,
                      trade_width=min(capacity, _TRADE_WIDTH))
    except (InputError, TypeError, ValueError) as error:
        raise InputError(f"{path}: expected two times of day as session, one in it as start, a tick and a capacity: "
                         f"{str(error)[:200]}") from None
    if not begin_ns <= start_ns <= end_ns:
        raise InputError(f"{path}: start: expected a time in the session, {record['session']}, got {record['start']!r}")
    orders, book = (place / f"{name}{part}.csv.gz" for part in ("", "_book"))
    for each in (orders, book):
        files.check_regular(each)
    return MadeDay(DayFeed(name, "", functools.partial(neutral.read, orders, book=book), venue), start_ns,
                   record["about"])


def write(folder: str | Path, name: str, venue: Venue, start_ns: int, tables: tuple[pd.DataFrame, pd.DataFrame],
          about: Mapping[str, Any]) -> None:
    """Writes a day; the same tables give the same bytes.

    Args:
      folder: of the checkpoint.
      name: of the day.
      venue: tick, capacity, and a session of one period of continuous trading.
      start_ns: when futures start, nanoseconds since midnight.
      tables: the book (side, price, volume, order_id, best first) and the orders after it (`neutral.COLUMNS`).
      about: plain numbers and names.
    """
    place = Path(folder) / FOLDER
    place.mkdir(parents=True, exist_ok=True)
    (period,) = venue.session.periods
    record = {"format": _FORMAT, "tick": venue.tick, "capacity": venue.capacity,
              "session": [_spell(each) for each in (period.start_ns, period.end_ns)], "start": _spell(start_ns),
              "about": dict(about)}
    for part, table in zip(("_book", ""), tables, strict=True):
        text = io.StringIO()
        table.to_csv(text, index=False)
        data = gzip.compress(text.getvalue().encode(), mtime=0)
        (place / f"{name}{part}.csv.gz").write_bytes(data)
    (place / f"{name}.json").write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def _spell(time_ns: int) -> str:
    return str(times.clock(np.array([time_ns]), 0)[0])
