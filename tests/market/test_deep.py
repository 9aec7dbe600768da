"""A deep market in two parts gives, order by order, what the whole market gives: to the bit."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.records import Condition, Kind, Market, Order
from marsjax.core.specs import MarketSpec
from marsjax.market import book, deep, exchange
from marsjax.market.process import NOT_MADE, Event, MarketState, process
from tests.twin import Message
from tests.twin_exchange import SECOND, SHORT_DAY, FlowParameters, FlowSource, Timed, TwinExchange, stream_of

SPEC = MarketSpec(capacity=48, trade_width=2, levels=2, accounts=3, session=SHORT_DAY, conditions=True)
LENGTH = 256


@pytest.fixture
def few_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Parts so small that every way is taken; nothing else is compiled with these sizes."""
    monkeypatch.setattr(deep, "SLOTS", (12,))
    monkeypatch.setattr(deep, "_ROOM", 24)


def state_of(market: Market) -> MarketState:
    return MarketState(market, book.view(SPEC, market.book), NOT_MADE)


@jax.jit
def run_whole(state: MarketState, stream: Order) -> tuple[MarketState, Event]:
    return jax.lax.scan(lambda state, order: process(SPEC, None, state, order), state, stream)


@jax.jit
def run_deep(state: MarketState, stream: Order) -> tuple[MarketState, Any]:
    def one(parts: deep.Deep, order: Order) -> tuple[deep.Deep, Any]:
        near, event, took = deep.process_near(SPEC, None, parts, order)
        state, whole = process(SPEC, None, deep.join(SPEC, parts), order)
        choose = functools.partial(jax.tree.map, lambda a, b: jnp.where(took, a, b))
        return choose(near, deep.split(SPEC, state)), (choose(event, whole), parts.far.resting, took)

    parts, seen = jax.lax.scan(one, deep.split(SPEC, state), stream)
    return deep.join(SPEC, parts), seen


def assert_bitwise_equal(a: Any, b: Any) -> None:
    for (path, x), (_, y) in zip(*(jax.tree_util.tree_leaves_with_path(t) for t in (a, b)), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype, path
        np.testing.assert_array_equal(x, y, err_msg=str(path))


class DeepFlow(FlowSource):
    """Order flow with many orders far from the touch, ids given or not."""

    def limit(self) -> Message:
        message = super().limit()
        if message.condition == Condition.REST and self.rng.random() < 0.6:
            away = 100 * self.integer(1, 12)
            message = dataclasses.replace(message, price=100_000 + (away if message.kind == Kind.SELL else -away))
        given = self.twin.next_id + self.integer(0, 2)
        return dataclasses.replace(message, order_id=given) if self.rng.random() < 0.3 else message


def flow(seed: int, odd: float, volumes: str = "lots") -> list[Timed]:
    twin = TwinExchange(SPEC)
    source = DeepFlow(twin, FlowParameters(seed, odd=odd, conditions=0.2, reach=3, volumes=volumes,
                                           start_ns=30 * SECOND, mean_step_ns=SECOND // 20))
    sent = []
    for _ in range(LENGTH):
        sent.append(source.draw())
        twin.submit(sent[-1])
    return sent


@pytest.mark.usefixtures("few_slots")
@pytest.mark.parametrize(("odd", "volumes"), [(0.0, "lots"), (0.3, "lots"), (0.2, "huge")])
def test_two_parts_give_what_the_whole_market_gives(odd: float, volumes: str) -> None:
    most, alone, passed = np.zeros(2, int), 0, np.zeros(2, int)
    for seed in range(12):
        market = exchange.open_market(SPEC)
        market, _ = exchange.uncross(SPEC, market)
        state, stream = state_of(market), stream_of(flow(seed, odd, volumes))
        expected, events = run_whole(state, stream)
        got, (deep_events, far, took) = run_deep(state, stream)
        assert_bitwise_equal(got, expected)
        assert_bitwise_equal(deep_events, events)
        most = np.maximum(most, np.asarray(far).max(axis=0))
        alone += int(np.sum(far == 0))
        passed += np.bincount(took, minlength=2)
    # Both parts are used, the far one is empty at times, and the whole book is seldom needed.
    assert most.min() > 15 and alone > 100
    assert 0 < passed[0] < passed[1] / 2


def test_a_market_of_few_slots_is_not_worth_it() -> None:
    assert not deep.is_worth(MarketSpec(capacity=4095)) and deep.is_worth(MarketSpec(capacity=4096))
    assert deep.is_worth(MarketSpec(capacity=65_536, trade_width=128))
    assert [deep.slots(MarketSpec(capacity=4096, trade_width=width)) for width in (128, 129, 1024)] == [256, 1024, 0]
    assert not deep.is_worth(MarketSpec(capacity=65_536, trade_width=1024))
