"""Laws of the execution strategies, on their decisions alone: a made-up exchange fills what they send at random."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents import check
from marsjax.agents.base import NO_LATENCY, AgentEvent, Latency, Observation, Resting
from marsjax.agents.immediate import Immediate
from marsjax.agents.participation import Participation
from marsjax.agents.twap import Twap
from marsjax.agents.vwap import Vwap, schedule
from marsjax.core import int64, times
from marsjax.core.records import EMPTY_PRICE, NO_ID, Kind, Order, Side, Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import book, exchange, orders
from marsjax.sim import event_queue

START_S, CASES, SLOTS = 36_000, 48, 6
MARKET = MarketSpec(capacity=SLOTS, levels=1, accounts=4)
VWAP = Vwap(0, START_S * SECOND_NS, (3, 1, 2), bucket_seconds=20, interval_seconds=5)
PART = Participation(0, START_S * SECOND_NS, 60, 0.25, interval_seconds=5)
NOW = Immediate(0, START_S * SECOND_NS, 60)
TWAP = Twap(0, START_S * SECOND_NS, 30)
SLOW = Latency(communication_ns=3 * SECOND_NS)


@dataclasses.dataclass
class Run:
    """What came of CASES executions, a row a wake-up."""

    targets: np.ndarray
    is_buy: np.ndarray
    traded: np.ndarray
    others: np.ndarray
    sent: np.ndarray
    prices: np.ndarray
    best: np.ndarray
    completed: np.ndarray
    working: np.ndarray
    resting: np.ndarray


class Exchange:
    """Fills what strategies send, wholly or at random, and refuses some; CASES of them at once."""

    def __init__(self, agent: Any, full: bool) -> None:
        self.rng, self.full = np.random.default_rng(0), full
        self.targets, self.is_buy = self.rng.integers(0, 30, CASES) * 100, self.rng.random(CASES) < 0.5
        self.side, self.case = np.where(self.is_buy, Side.BID, Side.ASK), np.arange(CASES)
        self.rest = np.zeros((CASES, SLOTS), np.int32)
        self.traded, self.others = np.zeros(CASES, int), np.zeros(CASES, int)
        self.seen, self.news = jax.tree.map(lambda x: np.zeros((CASES, *x.shape), x.dtype), check.shapes(MARKET))
        self.unheard: list[AgentEvent] = []

    def observation(self, time: Time, best: np.ndarray, rest: np.ndarray) -> Observation:
        """A book with one price on both sides and the given orders of the strategy's own."""
        view = dataclasses.replace(self.seen.view, ask_price=best[:, None], bid_price=best[:, None])
        columns = []
        number = np.tile(np.arange(SLOTS), (CASES, 1))
        for values, none in ((best[:, None] + 0 * rest, EMPTY_PRICE), (rest, 0), (number, NO_ID)):
            table = np.full((CASES, 2, SLOTS), none, np.int32)
            table[self.case, self.side] = np.where(rest > 0, values, none)
            columns.append(table)
        return self.seen._replace(time=time, view=view, resting=Resting(*columns),
                                  tick=np.full(CASES, MARKET.tick, np.int32))

    def tell(self, time: Time, kind: int, volume: Any, status: Any, is_own: Any, own: Any, market: Any) -> None:
        """AgentEvent of an order that traded `market` shares, `own` of them the strategy's."""
        order = dataclasses.replace(self.news.order, kind=np.full(CASES, kind, np.int32), volume=np.int32(volume))
        trades = dataclasses.replace(self.news.trades, kind=np.where(market > 0, Kind.BUY, Kind.NONE),
                                     volume=int64.from_numpy(market))
        self.unheard.append(self.news._replace(
            time=time, order=order, is_own=np.broadcast_to(is_own, CASES), trades=trades,
            status=np.broadcast_to(np.int32(status), CASES),
            shares=int64.from_numpy(np.where(self.is_buy, own, -own))))

    def take(self, time: Time, orders: Order, alive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """One wake-up's orders, [CASES, K]; shares of limit orders sent, and their limits."""
        sent, price, nothing = np.zeros(CASES, int), np.zeros(CASES, int), np.zeros(CASES, int)
        for k in range(orders.kind.shape[1]):
            kind, volume = np.where(alive, orders.kind[:, k], Kind.NONE), orders.volume[:, k]
            slot = np.clip(orders.cancel_id[:, k], 0, SLOTS - 1)
            cancels = kind == Kind.CANCEL
            fits = cancels & (self.rest[self.case, slot] >= volume) & (volume > 0)
            self.rest[self.case[fits], slot[fits]] -= volume[fits]
            status = np.where(fits, Status.ACCEPTED, Status.OVER_CANCEL)
            self.tell(time, Kind.CANCEL, volume, status, cancels, nothing, nothing)
            limits = (kind == Kind.BUY) | (kind == Kind.SELL)
            assert (kind[limits] == np.where(self.is_buy, Kind.BUY, Kind.SELL)[limits]).all()
            assert (volume[limits] > 0).all()
            refused = limits & (self.rng.random(CASES) < (0 if self.full else 0.1))
            fill = np.where(limits & ~refused, volume if self.full else self.rng.integers(0, volume + 1), 0)
            self.rest[self.case, np.argmin(self.rest > 0, axis=1)] += np.where(limits & ~refused, volume - fill, 0)
            self.tell(time, Kind.BUY, volume, np.where(refused, Status.SIDE_FULL, Status.ACCEPTED), limits, fill, fill)
            self.traded = self.traded + fill
            sent, price = sent + volume * limits, np.where(limits, orders.price[:, k], price)
        return sent, price

    def pass_time(self, time: Time) -> None:
        """One order of another that hits some of what rests, and others besides."""
        hit = self.rng.integers(0, self.rest + 1)
        self.rest = (self.rest - hit).astype(np.int32)
        own, extra = hit.sum(axis=1), self.rng.integers(0, 9, CASES) * 130
        self.tell(time, Kind.SELL, own + extra, Status.ACCEPTED, False, own, own + extra)
        self.traded, self.others = self.traded + own, self.others + extra


def drive(agent: Any, full: bool = False) -> Run:
    """A strategy from its start to its stop. With latency what it sees and hears is one wake-up old."""
    made = Exchange(agent, full)
    delayed, alive, rows = agent.latency != NO_LATENCY, np.ones(CASES, bool), []
    state, wake = jax.tree.map(np.asarray, agent.starts(made.targets, made.is_buy))
    act, heard = (jax.jit(jax.vmap(f)) for f in (agent.act, agent.on_event))
    keys, old = jax.random.split(jax.random.key(0), CASES), made.rest.copy()
    while alive.any():
        best = made.rng.integers(900, 1100, CASES).astype(np.int32) * 100
        seen = made.observation(wake, best, old if delayed else made.rest)
        action = jax.tree.map(np.asarray, act(state, seen, keys))
        state = jax.tree.map(lambda new, was, on=alive: np.where(on.reshape(-1, *[1] * (was.ndim - 1)), new, was),
                             action.state, jax.tree.map(np.asarray, state))
        assert not action.unsent.any()
        before = len(made.unheard)
        traded, others = made.traded, made.others
        sent, price = made.take(wake, action.orders, alive)
        traded, old = made.traded, made.rest.copy()
        made.pass_time(wake)
        for _ in range(before if delayed else len(made.unheard)):
            state = heard(state, made.unheard.pop(0))
        rows.append((traded, others, sent, price, best, state.progress.completed, state.progress.working,
                     made.rest.sum(axis=1)))
        alive &= ~action.stops
        assert not (alive & (times.to_ns(action.wake) <= times.to_ns(wake))).any()
        wake = action.wake
    for news in made.unheard:
        state = heard(state, news)
    np.testing.assert_array_equal(state.progress.completed, made.traded)
    np.testing.assert_array_equal(state.progress.working, made.rest.sum(axis=1))
    if isinstance(agent, Participation):
        np.testing.assert_array_equal(state.others, made.others)  # its own fills are not among them
    return Run(made.targets, made.is_buy, *(np.stack([np.asarray(x) for x in column])
                                            for column in zip(*rows, strict=True)))


@pytest.mark.parametrize("agent", [VWAP, PART, NOW], ids=["vwap", "participation", "immediate"])
def test_no_more_than_the_target_is_ever_sent_and_all_is_accounted_for(agent: Any) -> None:
    for latency in (NO_LATENCY, SLOW):
        run = drive(dataclasses.replace(agent, latency=latency, most_orders=1 + SLOTS))
        assert (run.completed + run.working <= run.targets).all()
        assert (run.completed >= 0).all() and (run.working >= 0).all()
        assert (run.sent[:, run.targets == 0] == 0).all()
        assert run.traded[-1].sum() > 0.3 * (0.2 if agent is PART else 1) * run.targets.sum()
        if latency == NO_LATENCY:
            np.testing.assert_array_equal(run.working, run.resting)
            # At its last wake-up, nothing is left in the book.
            assert (run.resting[-1] == 0).all()


def test_vwap_follows_its_schedule_to_the_share() -> None:
    run = drive(VWAP, full=True)
    due = schedule(VWAP, run.targets)
    assert (due % 100 == 0).all() and (np.diff(due, axis=-1) >= 0).all() and (due[:, -1] == run.targets).all()
    weight = np.cumsum(np.repeat([3, 1, 2], 4)) / 24
    assert (due <= run.targets[:, None] * weight + 1e-9).all() and (due > run.targets[:, None] * weight - 100).all()
    intervals = due.shape[1]
    np.testing.assert_array_equal(run.completed[:intervals], due.T)


def test_a_flat_profile_is_even_and_its_unit_does_not_matter() -> None:
    flat = dataclasses.replace(VWAP, profile=(1, 1, 1))
    np.testing.assert_array_equal(schedule(flat, np.array(1200)), np.arange(100, 1201, 100))
    large = dataclasses.replace(VWAP, profile=(3_000_000, 1_000_000, 2_000_000))
    targets = np.arange(0, 2**30, 2**25) // 100 * 100
    np.testing.assert_array_equal(schedule(large, targets), schedule(VWAP, targets))
    exact = [int(t) // 100 * (3 * 4 + 1) // 24 * 100 for t in targets]
    np.testing.assert_array_equal(schedule(VWAP, targets)[:, 4], exact)


def test_participation_is_its_part_of_what_others_traded() -> None:
    run = drive(PART, full=True)
    wakes = run.completed.shape[0] - 1
    for wake in range(wakes):
        expected = np.minimum(run.others[wake] * 25 // 100 // 100 * 100, run.targets)
        np.testing.assert_array_equal(run.traded[wake], expected)
    assert (run.traded[-1] > 0).sum() > CASES // 2


def test_immediate_sends_all_at_once_far_beyond_the_best_price() -> None:
    run = drive(NOW)
    has = run.targets > 0
    np.testing.assert_array_equal(run.sent[0], run.targets)
    expected = np.where(run.is_buy, run.best[0] + 5000, run.best[0] - 5000)
    np.testing.assert_array_equal(run.prices[0][has], expected[has])
    assert (run.sent[1:] == 0).all() and len(run.sent) == 2


@pytest.mark.parametrize("agent", [VWAP, PART, NOW, Twap(0, START_S * SECOND_NS, 30)], ids=lambda agent: agent.name)
def test_every_strategy_keeps_to_the_rules_of_agents(agent: Any) -> None:
    testing.check_functions(dataclasses.replace(agent, target=1000))


@pytest.mark.parametrize(("make", "message"), [
    (functools.partial(dataclasses.replace, VWAP, target=150), r"Vwap\.target: expected a multiple of 100 .* got 150"),
    (functools.partial(dataclasses.replace, VWAP, target=-100), r"Vwap\.target: expected a multiple of 100"),
    (functools.partial(dataclasses.replace, VWAP, direction="long"), r"Vwap\.direction: .* got 'long'"),
    (functools.partial(dataclasses.replace, VWAP, start_ns=-1), r"Vwap\.start_ns: expected at least 0 ns, got -1"),
    (functools.partial(dataclasses.replace, VWAP, profile=()), r"Vwap\.profile: expected a tuple of weights"),
    (functools.partial(dataclasses.replace, VWAP, profile=[1]), r"Vwap\.profile: expected a tuple of weights"),
    (functools.partial(dataclasses.replace, VWAP, profile=(1, 0)), r"Vwap\.profile: bucket 1: .* got 0"),
    (functools.partial(dataclasses.replace, VWAP, profile=(1.5,)), r"Vwap\.profile: bucket 0: .* got 1\.5"),
    (functools.partial(dataclasses.replace, VWAP, profile=(2**36,)), r"Vwap\.profile: expected a sum of at most"),
    (functools.partial(dataclasses.replace, VWAP, interval_seconds=3), r"Vwap\.bucket_seconds: .*multiple of .* = 3"),
    (functools.partial(dataclasses.replace, VWAP, interval_seconds=0), r"interval_seconds: expected at least 1"),
    (lambda: dataclasses.replace(VWAP, price_change=50).check_market(MarketSpec()),
     r"Vwap\.price_change: expected a multiple of the market's tick, 100 .* got 50"),
    (functools.partial(dataclasses.replace, VWAP, most_orders=1), r"Vwap\.most_orders: expected at least 2, got 1"),
    (functools.partial(dataclasses.replace, VWAP, profile=(1,) * 4000), r"Vwap\.profile: expected at most 65535 s"),
    (functools.partial(dataclasses.replace, PART, ratio=0.0), r"Participation\.ratio: expected 0\.0001 to 1 .* got 0"),
    (functools.partial(dataclasses.replace, PART, ratio=1.1), r"Participation\.ratio: .* got 1\.1"),
    (functools.partial(dataclasses.replace, PART, ratio=0.00015), r"Participation\.ratio: .* steps of 0\.0001"),
    (functools.partial(dataclasses.replace, PART, ratio=float("nan")), r"Participation\.ratio: .* got nan"),
    (functools.partial(dataclasses.replace, PART, total_seconds=7), r"total_seconds: .*multiple of .* = 5"),
    (functools.partial(PART.starts, 100, True, ratio=2.0), r"Participation\.ratio: .* got 2"),
    (functools.partial(dataclasses.replace, NOW, total_seconds=0), r"Immediate\.total_seconds"),
    (functools.partial(dataclasses.replace, NOW, price_change=-100), r"Immediate\.price_change: expected 0 to"),
    (functools.partial(NOW.starts, np.array([100, 130]), True), r"target: expected a multiple of 100 .* got 130"),
])
def test_wrong_settings_are_refused_by_name(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("tick", [1, 10, 1000])
@pytest.mark.parametrize("strategy", [VWAP, PART, NOW, TWAP], ids=lambda agent: agent.name)
def test_strategies_trade_in_any_tick(strategy: Any, tick: int) -> None:
    """On a book with one side an execution goes by a tick from the other: the exchange takes the price."""
    market = MarketSpec(tick=tick, capacity=SLOTS, levels=1, accounts=4)
    strategy.check_market(market)
    state, wake = strategy.starts(np.int32(1000), True)
    if isinstance(strategy, Participation):
        state = state._replace(others=np.int32(100_000))
    if isinstance(strategy, Twap):
        state = state._replace(passive_next=np.bool_(False))
    opened = exchange.open_market(market)
    time = times.add(jax.tree.map(jnp.asarray, wake), times.of_ns(20 * SECOND_NS))
    bid = orders.limit_order(Kind.BUY, 99_000, 500, account=0, time=time)
    opened, _ = exchange.submit(market, opened, bid)
    seen = event_queue.observe(strategy, tick, opened, book.view(market, opened.book), time, ())
    sent = strategy.act(jax.tree.map(jnp.asarray, state), seen, jax.random.key(0)).orders
    limit = jax.tree.map(lambda x: x[-1], sent)
    assert limit.kind == Kind.BUY and limit.volume > 0
    assert limit.price == 99_000 + tick + getattr(strategy, "price_change", 0)
    _, report = exchange.submit(market, opened, dataclasses.replace(limit, time=time))
    assert report.status == Status.ACCEPTED


def test_twap_that_has_done_exactly_its_target_stops_and_sends_nothing() -> None:
    market = MarketSpec(capacity=SLOTS, levels=1, accounts=4)
    opened = exchange.open_market(market)
    state, wake = TWAP.starts(np.int32(1000), True)
    time = times.add(jax.tree.map(jnp.asarray, wake), times.of_ns(10 * SECOND_NS))
    opened, _ = exchange.submit(market, opened, orders.limit_order(Kind.BUY, 99_000, 300, account=2, time=time))
    seen = event_queue.observe(TWAP, 100, opened, book.view(market, opened.book), time, ())
    for completed, stops in ((1000, True), (400, False)):
        for passive in (True, False):
            given = state._replace(completed=np.int32(completed), passive_next=np.bool_(passive))
            action = TWAP.act(jax.tree.map(jnp.asarray, given), seen, jax.random.key(0))
            assert bool(action.stops) == stops
            # What rests is left as it is: the reference cancels nothing once the target is done.
            assert (np.asarray(action.orders.kind) == Kind.NONE).all() == stops
