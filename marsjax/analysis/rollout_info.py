"""The published archive of minute bars (`rollout_info_25_minutes.zstd`), read as data.

It is a zstd pickle of a list of records RolloutInfo(symbol, start_time, simulation_minutes, replay_minutes), whose
minutes are lists of MinuteInfo(time, price_last, price_mean, price_mid, price_mid_last, volume, num_orders), as the
reference's report of stylized facts declares them. The archive itself is not public: what is known is the declaration.
No pickle is run; a pickled DataFrame cannot be read so, and is refused by name.
"""

import math
import os
import pathlib
from typing import Any

import numpy as np

from marsjax.analysis.bars import COLUMNS, HISTORICAL, LONGEST_NAME, MOST_NUMBER, NUMBERS, SIMULATED, MinuteBars
from marsjax.checkpoint import pickle as safe_pickle
from marsjax.checkpoint.pickle import Record, UnsafePickleError
from marsjax.core.errors import InputError, brief

_MODULES = ("market_simulation.examples.report_stylized_facts", "__main__")
_RECORDS = ("RolloutInfo", "MinuteInfo")
_TIMESTAMPS = "pandas._libs.tslibs.timestamps"
_UNITS = {7: "s", 8: "ms", 9: "us", 10: "ns"}
"""pandas' numbers for the resolution of a time."""
_MOST_BYTES, _MOST_STEPS = 2**31, 2**28
_MINUTE_FIELDS = 7
_A_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_MOST_SECONDS = 270 * 365 * 86_400


def read(path: str | os.PathLike[str], module: str = "") -> tuple[MinuteBars, int]:
    """The bars of an archive, rollouts numbered in its order by symbol, and how many of its entries are empty.

    Args:
      path: of the `.zstd` file.
      module: another module that the archive's classes may be named by.

    Raises FileNotFoundError; UnsafePickleError (a InputError) where the pickle names anything else; InputError with the
    file, the entry and the value where it is no such list.
    """
    path = pathlib.Path(path)
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such archive of rollouts")
    modules = (*_MODULES, module) if module else _MODULES
    allowed = {(each, name) for each in modules for name in _RECORDS}
    allowed |= {(_TIMESTAMPS, name) for name in ("_unpickle_timestamp", "Timestamp")}
    try:
        record = safe_pickle.load_zstd(path, allowed, max_bytes=_MOST_BYTES, max_steps=_MOST_STEPS)
    except UnsafePickleError as error:
        raise UnsafePickleError(
            f"{str(error).partition(';')[0]}; read are lists of RolloutInfo and MinuteInfo alone. Turn anything else "
            f"into a CSV of bars where you trust it: {', '.join(COLUMNS)}"
        ) from None
    if not isinstance(record, list | tuple):
        raise InputError(f"{path}: expected a list of RolloutInfo, got a {type(record).__name__}")
    columns: dict[str, list[Any]] = {name: [] for name in COLUMNS}
    seen: dict[str, int] = {}
    empty = 0
    for i, entry in enumerate(record):
        if entry is None or entry == []:
            empty += 1
            continue
        where = f"{path}: entry {i}"
        symbol, _, simulated, replayed = _fields(where, entry, "RolloutInfo", 4)
        if not isinstance(symbol, str) or len(symbol) > LONGEST_NAME:
            raise InputError(f"{where}: expected a symbol, got {brief(symbol)}")
        for source, minutes in ((SIMULATED, simulated), (HISTORICAL, replayed)):
            _add(f"{where}, {source}", columns, minutes)
            count = len(minutes)
            for name, value in (("symbol", symbol), ("rollout", seen.get(symbol, 0)), ("source", source)):
                columns[name] += [value] * count
        seen[symbol] = seen.get(symbol, 0) + 1
    return _bars(columns), empty


def _add(where: str, columns: dict[str, list[Any]], minutes: Any) -> None:
    if not isinstance(minutes, list | tuple):
        raise InputError(f"{where}: expected a list of MinuteInfo, got a {type(minutes).__name__}")
    for k, minute in enumerate(minutes):
        at = f"{where}, minute {k}"
        time, *values = _fields(at, minute, "MinuteInfo", _MINUTE_FIELDS)[: 1 + len(NUMBERS)]
        columns["time"].append(_time(at, time))
        for name, value in zip(NUMBERS, values, strict=True):
            columns[name].append(_number(f"{at}, {name}", value))


def _number(where: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | np.integer | np.floating):
        raise InputError(f"{where}: expected a number, got {brief(value)}")
    found = MOST_NUMBER if isinstance(value, int) and abs(value) >= MOST_NUMBER else float(value)
    if MOST_NUMBER <= abs(found) < math.inf:
        raise InputError(f"{where}: expected a number below 2**53, got {brief(value)}")
    return found


def _fields(where: str, value: Any, name: str, count: int) -> tuple[Any, ...]:
    if not isinstance(value, Record) or value.name != name or len(value.args) != count:
        got = f"{value.name} of {len(value.args)}" if isinstance(value, Record) else f"a {type(value).__name__}"
        raise InputError(f"{where}: expected {name} of {count} fields, got {got}")
    return value.args


def _time(where: str, value: Any) -> np.datetime64:
    """Of a pandas Timestamp: nanoseconds, nothing, no time zone; in newer ones, what the count is in."""
    if not isinstance(value, Record) or value.module != _TIMESTAMPS:
        raise InputError(f"{where}: expected a time, got a {getattr(value, 'name', type(value).__name__)}")
    count, _, zone, unit = (*value.args, 10, 10, 10, 10)[:4]
    found = _UNITS.get(unit) if type(unit) is int else None
    if type(count) is not int or len(value.args) < 3 or zone is not None or found is None:
        raise InputError(f"{where}: expected a time without a zone, got {', '.join(map(brief, value.args[:4]))}")
    seconds = count // _A_SECOND[found]
    if abs(seconds) > _MOST_SECONDS:
        raise InputError(f"{where}: expected a time from 1700 to 2240, got {brief(count)} {found} since 1970")
    return np.datetime64(seconds, "s")


def _bars(columns: dict[str, list[Any]]) -> MinuteBars:
    kinds: dict[str, Any] = {"symbol": str, "rollout": np.int64, "source": str, "time": "datetime64[s]"}
    return MinuteBars(**{name: np.array(values, kinds.get(name, np.float64)) for name, values in columns.items()})
