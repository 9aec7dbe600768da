"""Specs refuse what cannot work, naming the field and the value, and can be static arguments."""

import dataclasses
from typing import Any

import pytest

from marsjax.specs import (
    DAY_NS,
    SECOND_NS,
    MarketSpec,
    Period,
    Phase,
    Session,
    chinese_session,
    continuous_session,
)


@pytest.mark.parametrize(("field", "value"), [
    *((field, value) for field in ("tick", "capacity", "trade_width", "levels", "owners")
      for value in (0, -1, 2**31, 1.0, 16.5, "16", None, True)),
    ("tick", 10**6 + 1), ("capacity", 32769), ("trade_width", 32769), ("levels", 1025), ("owners", 1025),
    ("session", None), ("session", "chinese"),
])
def test_bad_market_specs_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"MarketSpec\.{field}: expected") as error:
        MarketSpec(**{field: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(("field", "values"), [
    ("tick", (1, 10**6)), ("capacity", (1, 32768)), ("trade_width", (1, 32768)), ("levels", (1, 1024)),
    ("owners", (1, 1024))])
def test_limits_themselves_are_allowed(field: str, values: tuple[int, int]) -> None:
    for value in values:
        spec = MarketSpec(**{"capacity": 32768, field: value})
        assert getattr(spec, field) == value


def test_trade_width_is_held_at_the_capacity() -> None:
    assert MarketSpec(capacity=8, trade_width=16) == MarketSpec(capacity=8, trade_width=8)


def test_equal_specs_hash_alike_and_cannot_change() -> None:
    spec = MarketSpec(session=chinese_session())
    assert hash(spec) == hash(MarketSpec(session=chinese_session()))
    assert spec != MarketSpec()
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.tick = 5


@pytest.mark.parametrize(("start_ns", "end_ns"), [(-1, 5), (5, 4), (0, DAY_NS), (DAY_NS, DAY_NS)])
def test_periods_outside_a_day_name_both_ends(start_ns: int, end_ns: int) -> None:
    with pytest.raises(ValueError, match=f"CONTINUOUS.*start_ns={start_ns}, end_ns={end_ns}"):
        Period(Phase.CONTINUOUS, start_ns, end_ns)


@pytest.mark.parametrize(("phase", "uncross_ns", "message"), [
    (Phase.CONTINUOUS, 20, "CONTINUOUS.*for call auctions only, got 20"),
    (Phase.OPEN_AUCTION, None, "OPEN_AUCTION.*got None"),
    (Phase.CLOSE_AUCTION, None, "CLOSE_AUCTION.*got None"),
    (Phase.OPEN_AUCTION, 19, "OPEN_AUCTION.*uncross_ns >= end_ns=20, got 19"),
    (Phase.CLOSE_AUCTION, DAY_NS, f"CLOSE_AUCTION.*got {DAY_NS}"),
])
def test_bad_auction_times_are_refused_with_their_value(phase: Phase, uncross_ns: int | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Period(phase, 10, 20, uncross_ns)


def test_sessions_without_periods_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one period"):
        Session(())


@pytest.mark.parametrize("second", [
    Period(Phase.CONTINUOUS, 20, 30),
    Period(Phase.CONTINUOUS, 15, 30),
    Period(Phase.CONTINUOUS, 0, 5),
])
def test_periods_that_overlap_are_refused(second: Period) -> None:
    with pytest.raises(ValueError, match=f"CONTINUOUS starts at {second.start_ns} ns.*at 20 ns"):
        Session((Period(Phase.CONTINUOUS, 10, 20), second))


def test_a_period_may_not_start_before_the_auction_ahead_of_it_is_matched() -> None:
    auction = Period(Phase.OPEN_AUCTION, 10, 20, uncross_ns=30)
    with pytest.raises(ValueError, match="starts at 29 ns, before OPEN_AUCTION is over at 30 ns"):
        Session((auction, Period(Phase.CONTINUOUS, 29, 40)))
    assert len(Session((auction, Period(Phase.CONTINUOUS, 30, 40))).periods) == 2


def test_named_sessions_hold_the_hours_of_the_exchange() -> None:
    day = chinese_session()
    assert [period.uncross_ns for period in day.periods] == [33_900 * SECOND_NS, None, None, 54_000 * SECOND_NS]
    with pytest.raises(ValueError, match="start_ns=5, end_ns=4"):
        continuous_session(5, 4)
