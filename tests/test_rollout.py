"""Laws of rollouts: a trajectory is the same alone, in any batch and in any chunks; nothing is lost or made."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import bins, book, clock, exchange, model, rollout, simulate, start, tokens
from marsjax.agents.noise import NoiseSpec
from marsjax.data.feed import AUCTION, FeedChunk, Fills
from marsjax.model import Params
from marsjax.simulate import SimulationSpec
from marsjax.specs import SECOND_NS, CacheSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.start import Start
from marsjax.types import Order
from marsjax.watchers.trace import Trace
from tests.helpers import fixture_folder

MARKET = MarketSpec(capacity=128, trade_width=32, owners=2)
MODEL = ModelSpec(width=8, heads=2, max_orders=64)
WARM_NS = 34_200 * SECOND_NS
START_NS = WARM_NS + 300 * SECOND_NS
SPEC = SimulationSpec(MARKET, MODEL, CacheSpec(mode="rolling", append=1), end_ns=START_NS + 10 * SECOND_NS)


@functools.cache
def tables() -> tuple[tokens.TokenTables, tokens.DrawTables]:
    converters = bins.read_folder(fixture_folder() / "converters")
    return tokens.tables(TokenSpec(), converters), tokens.draw_tables(TokenSpec(), converters)


@functools.cache
def noise_orders() -> Order:
    warmup = start.Warmup(start_ns=WARM_NS, duration_ns=START_NS - WARM_NS)
    return start.noise(MARKET, NoiseSpec(), warmup, seed=0)[1][0]


def feed(*parts: Order) -> Any:
    none = np.zeros(0, np.int32)
    fills = Fills(none.astype(np.int64), none, none, none, none, none + AUCTION, none.astype(np.int64))
    return iter([FeedChunk(part, fills, np.arange(len(part.kind))) for part in parts])


@functools.cache
def begin() -> Start:
    return start.from_feed(MARKET, tables()[0], feed(noise_orders()), START_NS, MODEL.max_orders, chunk_orders=256)


@functools.cache
def params() -> Params:
    return model.init(MODEL, jax.random.key(0))


def run(**changes: Any) -> rollout.Rollout:
    options = {"trajectories": 8, "minutes": 1, "seed": 3, "chunk_steps": 32} | changes
    return rollout.rollout(params(), SPEC, *tables(), begin(), **options)


def states(result: rollout.Rollout) -> list[np.ndarray]:
    simulation = result.simulation
    kept = (result.bars, simulation.market, simulation.token_state, simulation.time, simulation.end)
    return [np.asarray(x) for x in jax.tree.leaves(kept)]


@functools.cache
def whole() -> rollout.Rollout:
    return run()


def test_a_trajectory_alone_and_in_other_chunks_equals_itself_in_a_batch() -> None:
    for number in (0, 5):
        alone = run(trajectories=1, first=number, chunk_steps=7)
        jax.tree.map(np.testing.assert_array_equal, states(alone), [x[number : number + 1] for x in states(whole())])


def test_trajectories_and_seeds_differ() -> None:
    books = np.asarray(whole().simulation.market.book.volume)
    assert len({x.tobytes() for x in books}) == 8
    assert not np.array_equal(np.asarray(run(seed=4).simulation.market.book.volume), books)


def test_shares_and_cash_are_conserved_and_every_trajectory_ends() -> None:
    result = whole()
    lost = jax.tree.leaves(jax.vmap(exchange.conservation)(result.simulation.market))
    assert not any(np.asarray(x).any() for x in lost)
    assert result.ended == {"TIME": 8}
    assert (np.asarray(clock.time_to_ns(result.simulation.time)) <= SPEC.end_ns).all()


def test_bars_are_those_of_the_decisions() -> None:
    """The minute's sums against a trace of single steps."""
    result, now = whole(), None
    every = jax.tree.map(lambda x: jnp.broadcast_to(x, (8, *jnp.shape(x))), begin())
    spec = dataclasses.replace(SPEC, watchers=(Trace(MARKET, 1),))
    now = simulate.begin(params(), spec, every, jnp.arange(8))
    step = jax.jit(lambda s: simulate.step(params(), spec, *tables(), s, simulate.draw(3, s.trajectory, s.step)))
    orders, mids, volume = np.zeros(8, int), np.zeros(8, int), np.zeros(8, int)
    mid = np.asarray(jax.vmap(lambda m: book.view(MARKET, m.book).mid_price_twice)(every.market))
    while (np.asarray(now.end) == simulate.End.RUNNING).any():
        now, _ = step(now)
        log = jax.tree.map(np.asarray, now.watched[0])
        now = dataclasses.replace(now, watched=(spec.watchers[0].emptied(now.watched[0]),))
        made = jax.tree.map(lambda x: x[:, 0], log.events)
        cancels = made.cancelled.trades.count.sum(axis=1)
        # An order at the very start is not part of the first minute.
        later = (clock.time_to_ns(made.order.time) > START_NS) & (log.count > 0)
        count = np.where(later, cancels + (made.report.status == 0), 0)
        orders += count
        mids += np.where(count > 0, (count - 1) * mid + made.view.mid_price_twice, 0)
        volume += np.where(later & (made.report.status == 0), clock.wide_to_numpy(made.report.trades.volume), 0)
        mid = np.where(log.count > 0, made.view.mid_price_twice, mid)
    assert orders.sum() > 100
    np.testing.assert_array_equal(result.bars.orders[:, 0], orders)
    np.testing.assert_array_equal(clock.wide_to_numpy(result.bars.mid_twice_sum)[:, 0], mids)
    np.testing.assert_array_equal(clock.wide_to_numpy(result.bars.volume)[:, 0], volume)
    np.testing.assert_array_equal(result.bars.mid_twice_last[:, 0], mid)


def test_a_start_does_not_depend_on_how_its_orders_come() -> None:
    sent = noise_orders()
    parts = [jax.tree.map(lambda x, part=part: x[part], sent) for part in (slice(70), slice(70, None))]
    other = start.from_feed(MARKET, tables()[0], feed(*parts), START_NS, MODEL.max_orders, chunk_orders=100)
    jax.tree.map(np.testing.assert_array_equal, other, begin())


def test_a_start_reads_no_order_after_its_time() -> None:
    sent = noise_orders()
    half_ns = WARM_NS + 150 * SECOND_NS
    early = jax.tree.map(lambda x: x[clock.time_to_ns(sent.time) <= half_ns], sent)
    got = start.from_feed(MARKET, tables()[0], feed(sent), half_ns, MODEL.max_orders, chunk_orders=256)
    expected = start.from_feed(MARKET, tables()[0], feed(early), half_ns, MODEL.max_orders, chunk_orders=256)
    jax.tree.map(np.testing.assert_array_equal, got, expected)


def test_weights_that_are_no_numbers_are_refused_by_name() -> None:
    broken = dataclasses.replace(params(), norm=params().norm.at[2].set(jnp.nan))
    with pytest.raises(ValueError, match=r"weights\.norm: expected finite numbers"):
        rollout.rollout(broken, SPEC, *tables(), begin(), trajectories=1, minutes=1, seed=0)


@pytest.mark.parametrize(("name", "value"), [("trajectories", 0), ("minutes", 0), ("seed", -1), ("chunk_steps", 0)])
def test_numbers_out_of_range_are_refused_by_name(name: str, value: int) -> None:
    with pytest.raises(ValueError, match=f"expected {name} of"):
        run(**{name: value})


def test_a_start_without_tokens_is_refused() -> None:
    one = jax.tree.map(lambda x: x[:1], noise_orders())
    with pytest.raises(ValueError, match="make no token"):
        start.from_feed(MARKET, tables()[0], feed(one), START_NS, MODEL.max_orders, chunk_orders=256)
