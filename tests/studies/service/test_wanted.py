"""Requests for futures: what fits becomes a record, every other one is an error that names its key."""

from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.core.errors import InputError
from marsjax.studies.service.wanted import MostWanted, TooLargeError, of_record

ORDERS: dict[str, Any] = {"time": ["09:30:00", "09:30:01"], "side": ["sell", "buy"], "price": [10.01, 10.0],
                          "size": [300, 100]}
AFTER: dict[str, Any] = {"orders": ORDERS, "time": "10:00:00", "minutes": 1}
MOST = MostWanted(trajectories=8, minutes=5, orders=3)


def test_what_is_left_out_has_defaults_and_no_default_is_above_the_most() -> None:
    wanted = of_record({"day": "quiet", "minutes": 2}, MOST)
    assert (wanted.day, wanted.minutes, wanted.trajectories, wanted.seed, wanted.rows) == ("quiet", 2, 8, 0, "labels")
    assert (wanted.temperature, wanted.threshold, wanted.orders, wanted.book) == (1.0, 0.0, None, None)
    after = of_record(AFTER | {"tick": "0.05", "seed": 2**31 - 1, "book": {"side": ["buy"], "price": [9], "size": [1]}})
    assert after.time_ns == 36_000 * 10**9 and after.orders is not None and after.book is not None
    pd.testing.assert_frame_equal(after.orders, pd.DataFrame(ORDERS))


@pytest.mark.parametrize(("changes", "part"), [
    ({"days": "quiet"}, "unknown key 'days'; known are day, orders"),
    ({"day": "quiet"}, "expected `day` or `orders`, one of both"),
    ({"orders": None}, "orders: expected columns by their names, got None"),
    ({"orders": {}}, "orders: expected columns"),
    ({"orders": [1]}, "orders: expected columns"),
    ({"orders": ORDERS | {"colour": ["red", "red"]}}, "orders: unknown column 'colour'"),
    ({"orders": ORDERS | {"price": [10.0]}}, "lists of one length"),
    ({"orders": ORDERS | {"price": 10}}, "lists of one length"),
    ({"orders": {name: [] for name in ORDERS}}, "at least one row"),
    ({"orders": ORDERS | {"price": [10.0, [1]]}}, "row 1, column price: expected a number or a short text, got a list"),
    ({"orders": ORDERS | {"price": [True, 10.0]}}, "row 0, column price"),
    ({"orders": ORDERS | {"price": [10**400, 10.0]}}, "row 0, column price"),
    ({"orders": ORDERS | {"price": [float("inf"), 10.0]}}, "row 0, column price"),
    ({"orders": ORDERS | {"side": ["x" * 65, "buy"]}}, "row 0, column side"),
    ({"book": {"price": [1, 2], "colour": [1, 2]}}, "book: unknown column 'colour'"),
    ({"time": "25:00:00"}, "expected HH:MM:SS"),
    ({"time": 36000}, "time: expected text"),
    ({"tick": 0.01}, "tick: expected text"),
    ({"tick": "1e999999"}, "tick: expected a number as text"),
    ({"minutes": 0}, "minutes: expected a whole number of 1 to 5, got 0"),
    ({"minutes": 1.0}, "minutes: expected a whole number"),
    ({"minutes": True}, "minutes: expected a whole number"),
    ({"minutes": "1"}, "minutes: expected a whole number"),
    ({"seed": -1}, "seed: expected a whole number of 0 to"),
    ({"seed": 2**31}, "seed: expected a whole number of 0 to"),
    ({"temperature": 0}, "temperature: expected a number above 0"),
    ({"temperature": float("nan")}, "temperature: expected a number"),
    ({"temperature": 10**400}, "temperature: expected a number"),
    ({"threshold": 1}, "threshold: expected"),
    ({"rows": "all"}, "rows: expected labels, minutes, orders, got 'all'"),
])
def test_what_does_not_fit_is_named(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as error:
        of_record(AFTER | changes, MOST)
    assert part in str(error.value) and not isinstance(error.value, TooLargeError)


@pytest.mark.parametrize(("record", "part"), [
    ({"orders": ORDERS, "minutes": 1}, "expected `time` with `orders`"),
    ({"day": "quiet"}, "expected `minutes`"),
    ({"day": "quiet", "minutes": 1, "tick": "0.01"}, "`tick` has no effect with `day`"),
    ({}, "one of both"),
])
def test_what_is_missing_is_named(record: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError, match=part):
        of_record(record, MOST)


@pytest.mark.parametrize(("changes", "part"), [
    ({"minutes": 6}, "minutes: expected at most 5, got 6"),
    ({"minutes": 10**400}, "minutes: expected at most 5, got an integer of"),
    ({"trajectories": 9}, "trajectories: expected at most 8"),
    ({"orders": {name: column * 2 for name, column in ORDERS.items()}}, "orders: expected at most 3 rows, got 4"),
    ({"book": pd.DataFrame({"price": np.zeros(4)})}, "book: expected at most 3 rows, got 4"),
])
def test_what_is_too_large_is_another_error(changes: dict[str, Any], part: str) -> None:
    with pytest.raises(TooLargeError) as error:
        of_record(AFTER | changes, MOST)
    assert part in str(error.value)
