"""Specs refuse what cannot work, naming the field and the value, and can be static arguments."""

import dataclasses
from typing import Any

import jax
import pytest

from marsjax.core import kernels
from marsjax.core.errors import InputError
from marsjax.core.kernels import ACCELERATOR, CPU, Kernels
from marsjax.core.sessions import Period, Phase, Session, chinese_session, continuous_session
from marsjax.core.specs import MarketSpec, ModelSpec
from marsjax.core.times import DAY_NS, SECOND_NS


@pytest.mark.parametrize(("field", "value"), [
    *((field, value) for field in ("tick", "capacity", "trade_width", "levels", "accounts")
      for value in (0, -1, 2**31, 1.0, 16.5, "16", None, True) if (field, value) != ("trade_width", None)),
    ("tick", 10**6 + 1), ("capacity", 2**17 + 1), ("trade_width", 32769), ("levels", 1025), ("accounts", 1025),
    ("session", None), ("session", "chinese"), ("kernels", "cpu"), ("kernels", 0),
])
def test_bad_market_specs_name_the_field_and_the_value(field: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"MarketSpec\.{field}: expected") as error:
        MarketSpec(**{field: value})
    assert str(value) in str(error.value)


@pytest.mark.parametrize(("field", "values"), [
    ("tick", (1, 10**6)), ("capacity", (1, 2**17)), ("trade_width", (1, 32768)), ("levels", (1, 1024)),
    ("accounts", (1, 1024))])
def test_limits_themselves_are_allowed(field: str, values: tuple[int, int]) -> None:
    for value in values:
        spec = MarketSpec(**{"capacity": 32768, field: value})
        assert getattr(spec, field) == value


@pytest.mark.parametrize(("capacity", "width"), [(1, 1), (15, 15), (16, 16), (17, 16), (4096, 16)])
def test_the_default_trade_width_fits_the_capacity(capacity: int, width: int) -> None:
    spec = MarketSpec(capacity=capacity)
    assert type(spec.trade_width) is int
    assert spec == MarketSpec(capacity=capacity, trade_width=width)


def test_a_trade_width_above_the_capacity_is_refused_with_both() -> None:
    assert MarketSpec(capacity=8, trade_width=8).trade_width == 8
    for width in (9, 32):
        with pytest.raises(InputError, match=rf"MarketSpec\.trade_width: .*capacity=8, got {width}"):
            MarketSpec(capacity=8, trade_width=width)
    with pytest.raises(InputError, match=r"capacity=4, got 16"):
        dataclasses.replace(MarketSpec(), capacity=4)


@pytest.mark.parametrize("name", ["ratio_embeddings", "whole_cancels"])
@pytest.mark.parametrize("value", [1, None, "yes"])
def test_switches_of_a_model_are_bools(name: str, value: Any) -> None:
    assert not getattr(ModelSpec(), name) and getattr(ModelSpec(**{name: True}), name)
    with pytest.raises(InputError, match=rf"ModelSpec\.{name}: expected a bool, got {value!r}"):
        ModelSpec(**{name: value})


@pytest.mark.parametrize(("name", "value"), [
    ("prefix_sum", "windowed"), ("pack", "scatter"), ("first_shares", 1), ("attention", None), ("encode", "flash"),
    ("loops", None), ("contexts", 0), ("contexts", None), ("logits", 2.0), ("rows", 0), ("rows", True),
    ("further_turns", -1)])
def test_bad_kernels_name_the_field_and_the_value(name: str, value: Any) -> None:
    with pytest.raises(InputError, match=rf"Kernels\.{name}: expected .*, got {value!r}"):
        Kernels(**{name: value})


def test_the_kernels_given_are_taken_and_else_those_of_the_device() -> None:
    assert kernels.chosen(None) == CPU == Kernels() == kernels.for_platform("cpu")
    assert kernels.chosen(ACCELERATOR) == ACCELERATOR == kernels.for_platform("tpu")
    assert Kernels(rows=None, further_turns=None) == Kernels(rows=None, further_turns=None)
    assert hash(MarketSpec(kernels=CPU)) == hash(MarketSpec(kernels=Kernels()))


def test_a_default_device_counts_beside_the_default_backend(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a host whose backend is a GPU, `jax.default_device` of a CPU asks for a CPU's ways."""
    asked: list[str] = []
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(kernels, "for_platform", lambda platform: asked.append(platform) or Kernels())
    with jax.default_device(jax.devices("cpu")[0]):
        kernels.chosen(None)
    kernels.chosen(None)
    assert asked == ["cpu", "gpu"]


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
