"""Starting states of the noise agent: reproducible whatever the batch, replayable, and as the reference describes."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest

from marsjax.agents.noise import NoiseSpec
from marsjax.core import int64, times
from marsjax.core.records import NO_ID, Kind, Market, Order, Status
from marsjax.core.sessions import chinese_session, continuous_session
from marsjax.core.specs import MarketSpec
from marsjax.market import exchange, orders
from marsjax.sim import initial
from tests.twin_exchange import named, row

SPEC = MarketSpec(capacity=256, trade_width=32)
MINUTE = 60 * 10**9
HALF_HOUR = initial.Warmup()
SHORT = initial.Warmup(duration_ns=4 * MINUTE, account=1)
NARROW = MarketSpec(capacity=24, trade_width=2, accounts=2)
RARELY_CANCELS = NoiseSpec(init_price=500_000, kinds=(Kind.BUY, Kind.SELL, Kind.CANCEL), kind_weights=(40, 40, 1))
"""Of its cancels in four minutes one of seed 0 hits more orders than are listed, and none of seed 7."""


def assert_bitwise_equal(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.fixture(scope="module")
def half_hours() -> tuple[Market, list[Order]]:
    """Eight trajectories of the reference's warm-up."""
    return initial.noise(SPEC, NoiseSpec(), HALF_HOUR, seed=0, trajectories=8)


@functools.partial(jax.jit, static_argnums=0)
def replayed(spec: MarketSpec, sent: Order) -> Market:
    """The market that given orders [N] make of an empty one."""
    return jax.lax.scan(lambda market, order: (exchange.submit(spec, market, order)[0], None),
                        exchange.open_market(spec), sent)[0]


def test_half_an_hour_looks_as_in_the_reference(half_hours: tuple[Market, list[Order]]) -> None:
    """About 1,900 orders, at most about 100 resting a side, at most 10 fills an order."""
    markets, sent = half_hours
    counters = named(markets.counters)
    for number, orders_sent in enumerate(sent):
        assert 1750 < len(orders_sent.kind) < 2050
        kinds = np.bincount(orders_sent.kind, minlength=3) / len(orders_sent.kind)
        assert abs(kinds[Kind.SELL] - kinds[Kind.BUY]) < 0.06 and 0.15 < kinds[Kind.CANCEL] < 0.35
        assert counters["status"][number, Status.ACCEPTED] == len(orders_sent.kind)
        # A cancel that hits nothing is counted, and not sent.
        of_nothing = counters["status"][number, Status.NOTHING_TO_CANCEL]
        assert counters["status"][number].sum() - of_nothing == len(orders_sent.kind)
        assert 15 < counters["most_resting"][number].min() and counters["most_resting"][number].max() < 130
        assert 300 < counters["fills"][number] < 1200
        assert 90_000 < int(markets.book.last_price[number]) < 110_000
        times_ns = times.to_ns(orders_sent.time)
        assert HALF_HOUR.start_ns <= times_ns[0] and times_ns[-1] < HALF_HOUR.start_ns + HALF_HOUR.duration_ns
        gaps = np.diff(np.unique(times_ns))
        assert gaps.min() >= 5 * 10**8
        assert 0.98e9 < gaps.mean() < 1.1e9
    # The first wake-up of some comes to nothing, as there is nothing to cancel; no two lie closer than half a second.
    assert any(times.to_ns(stream.time)[0] == HALF_HOUR.start_ns for stream in sent)
    assert not np.any(counters["truncated_lists"])


def test_nothing_is_lost(half_hours: tuple[Market, list[Order]]) -> None:
    for lost in jax.tree.leaves(jax.jit(jax.vmap(exchange.conservation))(half_hours[0])):
        assert not np.any(lost)


def test_trajectories_differ(half_hours: tuple[Market, list[Order]]) -> None:
    cash = int64.to_numpy(half_hours[0].counters.value)
    assert len(set(cash.tolist())) == 8


def test_the_orders_sent_make_the_same_market(half_hours: tuple[Market, list[Order]]) -> None:
    markets, sent = half_hours
    for number in (0, 7):
        assert_bitwise_equal(replayed(SPEC, orders.pad(sent[number], 2304)), row(markets, number))
        assert np.array_equal(sent[number].order_id, np.arange(len(sent[number].order_id)))


def test_a_trajectory_is_the_same_alone_whatever_the_wake_ups_a_call(half_hours: tuple[Market, list[Order]]) -> None:
    """Even where the session ends with the warm-up, past whose end the last call goes on."""
    session = continuous_session(HALF_HOUR.start_ns, HALF_HOUR.start_ns + HALF_HOUR.duration_ns - 1)
    alone, others = (initial.noise(dataclasses.replace(SPEC, session=session), NoiseSpec(),
                                 dataclasses.replace(HALF_HOUR, steps_per_call=1000), seed) for seed in (0, 1))
    assert_bitwise_equal((row(alone[0], 0), alone[1][0]), (row(half_hours[0], 0), half_hours[1][0]))
    assert not np.array_equal(others[1][0].price[:99], alone[1][0].price[:99])


def test_sweeps_past_their_lists_and_orders_refused_for_want_of_room_replay_alike() -> None:
    """A sweep is one order, and sent whole; a refused order keeps no id."""
    markets, (sent,) = initial.noise(NARROW, RARELY_CANCELS, SHORT, seed=7)
    market = row(markets, 0)
    refused = sent.order_id == NO_ID
    assert refused.any() and int(market.counters.status[Status.SIDE_FULL]) == refused.sum()
    assert int(market.counters.truncated_lists) > 0 and np.sum(sent.kind == Kind.CANCEL) > 2
    assert_bitwise_equal(replayed(NARROW, sent), market)

    assert abs(int(sent.price[0]) - 500_000) <= 500 and 480_000 < int(market.book.last_price) < 520_000
    assert set(sent.account.tolist()) == {1}
    assert set(np.asarray(market.book.account)[np.asarray(market.book.volume) > 0].tolist()) == {1}


@pytest.mark.parametrize(("session", "warmup"), [
    (continuous_session(), initial.Warmup(start_ns=34_199 * 10**9)),
    (continuous_session(), initial.Warmup(start_ns=57_000 * 10**9)),
    (chinese_session(), initial.Warmup(start_ns=40_000 * 10**9)),
    (chinese_session(), initial.Warmup(start_ns=33_400 * 10**9, duration_ns=MINUTE)),
])
def test_a_session_that_is_not_open_all_the_time_is_refused(session: Any, warmup: initial.Warmup) -> None:
    with pytest.raises(ValueError, match=f"noise start: expected continuous trading from {warmup.start_ns} to"):
        initial.noise(dataclasses.replace(SPEC, session=session), NoiseSpec(), warmup, seed=0)


def test_a_session_whose_auction_would_have_to_be_held_first_is_refused() -> None:
    with pytest.raises(ValueError, match=r"without a call auction before 34200000000000 ns.* got one at 33900"):
        initial.noise(dataclasses.replace(SPEC, session=chinese_session()), NoiseSpec(), initial.Warmup(), seed=0)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"seed": -1}, "seed of 0 to 2147483647, got -1"), ({"seed": 2**31}, "seed .*got 2147483648"),
    ({"seed": 0, "trajectories": 0}, "trajectories of 1 to .* got 0"),
])
def test_bad_seeds_are_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initial.noise(SPEC, NoiseSpec(), HALF_HOUR, **arguments)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"start_ns": -1}, "start_ns >= 0 and duration_ns > 0, got -1"), ({"duration_ns": 0}, "got 34200000000000, 0"),
    ({"steps_per_call": 0}, r"Warmup\.steps_per_call: expected at least 1, got 0")])
def test_a_bad_warm_up_is_refused(arguments: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        initial.Warmup(**arguments)


def test_a_cancel_of_more_orders_than_are_listed_is_refused() -> None:
    """Its orders would be incomplete."""
    with pytest.raises(ValueError, match=r"trajectory 0: .* trade_width=2 orders; raise MarketSpec\.trade_width"):
        initial.noise(NARROW, RARELY_CANCELS, SHORT, seed=0)
