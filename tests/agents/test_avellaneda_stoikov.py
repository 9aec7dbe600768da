"""The market maker of Avellaneda and Stoikov: its formula, its quotes in a book, its estimate of the volatility."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.avellaneda_stoikov import AvellanedaStoikov, MakerState, Risk, quoted
from marsjax.agents.base import Action, Latency
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import Kind, Market, Side
from marsjax.core.times import SECOND_NS
from marsjax.market import book as books
from marsjax.market import exchange
from marsjax.sim import event_queue
from tests.rl.test_market_making import others_prices, own_orders, sent
from tests.rl.test_quotes import ME, SPEC, other

pytestmark = pytest.mark.quick

START_NS = 36_000 * SECOND_NS
AGENT = AvellanedaStoikov(START_NS, 40, risk_aversion=0.3, fill_decay=0.4, memory_seconds=8, most_lots=3, account=ME)


def formula(gamma: float, k: float, variance: float, mid: float, held: float, left: float) -> tuple[float, float]:
    """Bid and ask in ticks, as the paper has them."""
    reservation = mid - held * gamma * variance * left
    spread = gamma * variance * left + 2 / gamma * math.log(1 + gamma / k)
    return reservation - spread / 2, reservation + spread / 2


def test_the_quotes_are_those_of_the_formula_rounded_outwards() -> None:
    random = np.random.default_rng(0)
    for _ in range(200):
        gamma, k, variance = (float(x) for x in random.uniform(0.01, 1.0, 3))
        mid_twice, held, left = int(random.integers(2_000, 30_000)) * 100, int(random.integers(-5, 6)), random.random()
        bid, ask = formula(gamma, k, variance, mid_twice / 200, held, 60 * left)
        found = quoted(Risk(gamma, k, variance), jnp.int32(mid_twice), jnp.int32(100), float(held), 60 * left)
        assert 0 <= bid - int(found[0]) / 100 < 1 + 1e-3 and 0 <= int(found[1]) / 100 - ask + 1e-3 < 1 + 2e-3


def test_what_is_held_moves_both_quotes_to_the_side_that_gets_rid_of_it() -> None:
    prices = [quoted(Risk(0.2, 0.5, 1.0), jnp.int32(200_000), jnp.int32(100), held, 30.0) for held in (-2.0, 0.0, 2.0)]
    assert [int(x[0]) for x in prices] == sorted((int(x[0]) for x in prices), reverse=True)
    assert [int(x[1]) for x in prices] == sorted((int(x[1]) for x in prices), reverse=True)
    assert int(prices[0][0]) > int(prices[2][0])


@jax.jit
def act(state: MakerState, market: Market, now_ns: int) -> Action:
    now = times.add(times.of_ns(START_NS), times.Time(jnp.int32(now_ns), jnp.int32(0)))
    seen = event_queue.observe(AGENT, SPEC.tick, market, books.view(SPEC, market.book), now, ())
    return AGENT.act(state, seen, jax.random.key(0))


def test_it_quotes_by_the_formula_within_its_bounds_and_keeps_its_places() -> None:
    random, market, (state, _) = np.random.default_rng(4), exchange.open_market(SPEC), AGENT.init()
    for price in (99_300, 99_400, 100_600, 100_700):
        market = other(market, Kind.BUY if price < 100_000 else Kind.SELL, price, 3_000)
    mids, variance, stayed = [], 0.0, 0
    for second in range(AGENT.total_seconds):
        ask, bid = min(others_prices(market, Side.ASK)), max(others_prices(market, Side.BID))
        mids.append((ask + bid) / 200)
        if second:
            weight = max(1 - math.exp(-1 / 8), 1 / second)
            variance += weight * ((mids[-1] - mids[-2]) ** 2 - variance)
        held = int(int64.to_numpy(market.ledgers.holdings)[ME])
        before = [own_orders(market, 0), own_orders(market, 1)]
        action = act(state._replace(inventory=jnp.int32(held)), market, second)
        state = action.state
        assert float(state.variance) == pytest.approx(variance, rel=1e-4, abs=1e-6) and not action.stops
        market, fills = sent(market, action.orders)
        assert not (fills.refused | fills.bought | fills.sold).any()
        wanted = formula(0.3, 0.4, variance, mids[-1], held / 100, 40 - second)
        low = min(math.floor(wanted[0] + 1e-4) * 100, ask - 100)
        for side, price, room in ((Side.BID, low, 300 - held),
                                  (Side.ASK, max(math.ceil(wanted[1] - 1e-4) * 100, bid + 100), 300 + held)):
            mine = own_orders(market, side)
            assert [(at, shares) for at, shares, _ in mine] == ([(price, min(room, 100))] if room else [])
            stayed += bool(mine) and mine == before[side]
        assert abs(held) <= 300
        kind = int(random.choice([Kind.BUY, Kind.SELL]))
        cross = random.random() < 0.5
        at = (min(o for o in (ask, *(x[0] for x in own_orders(market, 0)))) if kind == Kind.BUY
              else max(o for o in (bid, *(x[0] for x in own_orders(market, 1))))) if cross else int(
                  random.integers(994, 1007)) * 100
        market = other(market, kind, at, 100)
    held = int(int64.to_numpy(market.ledgers.holdings)[ME])
    assert stayed > 5 and int64.to_numpy(market.ledgers.cash)[ME]
    action = act(state._replace(inventory=jnp.int32(held)), market, AGENT.total_seconds)
    market, _ = sent(market, action.orders)
    assert bool(action.stops) and own_orders(market, 0) == own_orders(market, 1) == []


def test_nothing_is_quoted_in_an_empty_market_and_fills_are_counted() -> None:
    state, _ = AGENT.init()
    assert (np.asarray(act(state, exchange.open_market(SPEC), 0).orders.kind) == Kind.NONE).all()
    testing.check_functions(AGENT)


@pytest.mark.slow
@pytest.mark.parametrize("latency", [Latency(), Latency(200_000_000, 100_000_000)])
def test_it_is_an_agent_of_the_engine(latency: Latency) -> None:
    testing.check_agent(AvellanedaStoikov(START_NS, 6, latency=latency))


@pytest.mark.parametrize(("fields", "message"), [
    ({"risk_aversion": 0.0}, "risk_aversion"), ({"fill_decay": math.inf}, "fill_decay"),
    ({"volatility": -1.0}, "volatility"), ({"total_seconds": 7, "interval_seconds": 2}, "multiple"),
    ({"lot": 0}, "lot"), ({"latency": Latency(600_000_000)}, "there and back"),
])
def test_what_it_cannot_go_by_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        dataclasses.replace(AGENT, **fields)
