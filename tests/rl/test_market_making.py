"""A market maker: whatever it does, its account adds up, its inventory stays within bounds and its quotes wait."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.agents.quotes import others_best
from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.core.records import Kind, Market, Order, Side
from marsjax.market import book as books
from marsjax.market import exchange
from marsjax.rl import passing
from marsjax.rl.base import resting_of, see
from marsjax.rl.env import EpisodeState
from marsjax.rl.market_making import FEATURES, TABLE, MarketMaking, Quote
from marsjax.rl.named import make
from tests.rl.markets import MAKERS, MAKING, STEPS
from tests.rl.test_laws import Driven, at, driven_in, keys, market_of
from tests.rl.test_quotes import ME, NOW, SPEC, other

pytestmark = pytest.mark.quick

KINDS = ["replay", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("noise", "model"))]
MOST = MAKING.lot * MAKING.most_lots


def run_of(kind: str) -> Driven:
    return driven_in(MAKERS[kind]())


def account_of(kind: str) -> int:
    return MAKERS[kind]().core.background.accounts[0]


@pytest.mark.parametrize("kind", KINDS)
def test_its_inventory_is_what_its_account_holds_and_stays_within_bounds_whatever_trades(kind: str) -> None:
    run, account = run_of(kind), account_of(kind)
    market, held = market_of(run.states), run.states.tasks[0].inventory
    for name, of in vars(jax.vmap(jax.vmap(exchange.conservation))(market)).items():
        assert not int64.to_numpy(of).any(), name
    np.testing.assert_array_equal(int64.to_numpy(market.ledgers.holdings)[..., account], held)
    own = (market.book.account == account) & (market.book.volume > 0)
    rests = np.where(own, market.book.volume, 0).sum(axis=-1)
    assert (held + rests[..., Side.BID] <= MOST).all() and (held - rests[..., Side.ASK] >= -MOST).all()
    assert (own.sum(axis=-1) <= 2).all() and own.any() and not run.infos["refused"].any()
    # Episodes in the small order model are too short for trades with its quotes.
    assert kind == "model" or (held.min() < 0 < held.max() and run.infos["traded"].any())


@pytest.mark.parametrize("kind", KINDS)
def test_the_reward_is_what_its_account_earned(kind: str) -> None:
    run, account, tick = run_of(kind), account_of(kind), MAKERS[kind]().core.background.market.tick
    charged = 0
    for number in range(run.actions.shape[1]):
        # Twice the worth of what it has, in whole numbers of 1e-4 of the currency x shares.
        for step in range(len(run.actions)):
            before, after = at(run, step, number), at(run, step + 1, number)
            if run.over[step, number]:
                continue
            change, worth = _worth(after, account) - _worth(before, account), {}
            worth["profit"] = change / 2 / tick
            held = abs(int(after.tasks[0].inventory))
            worth["penalty"] = MAKING.inventory_penalty * held * held / MAKING.lot
            for name, value in worth.items():
                assert float(run.infos[name][step, number]) == pytest.approx(value, rel=1e-5, abs=1e-4), name
            cash = _cash(after, account) - _cash(before, account)
            bought, sold = int(after.tasks[0].bought), int(after.tasks[0].sold)
            if not (bought and sold):
                fee = abs(cash) * MAKING.fee_bp * 1e-4 / tick
                charged += bool(fee)
                assert float(run.infos["fee"][step, number]) == pytest.approx(fee, rel=1e-5)
    assert kind == "model" or charged > 3
    parts = run.infos["profit"] - run.infos["fee"] - run.infos["penalty"] - run.infos["close"]
    np.testing.assert_allclose(run.rewards, parts, rtol=1e-5, atol=1e-3)
    close = np.where(run.over, np.abs(run.infos["inventory"]) * MAKING.close_ticks, 0)
    np.testing.assert_array_equal(run.infos["close"], close)


def _cash(state: EpisodeState, account: int) -> int:
    return int(int64.to_numpy(market_of(state).ledgers.cash)[account])


def _worth(state: EpisodeState, account: int) -> int:
    book = market_of(state).book
    best = [int(book.price[side][book.volume[side] > 0][0]) if (book.volume[side] > 0).any() else None
            for side in (0, 1)]
    mid_twice = sum(best) if None not in best else int(state.tasks[0].mid_twice)
    return 2 * _cash(state, account) + int(int64.to_numpy(market_of(state).ledgers.holdings)[account]) * mid_twice


@pytest.mark.parametrize("kind", KINDS)
def test_one_alone_is_one_of_many_bit_for_bit_and_its_features_stay_in_their_box(kind: str) -> None:
    env, run = MAKERS[kind](), run_of(kind)
    alone = at(run, 0, 1)
    for step in range(len(run.actions)):
        seen, alone, reward, *_ = env.step(keys(0, step)[1], alone, run.actions[step, 1], env.default_params)
        chex.assert_trees_all_equal(jax.tree.map(np.asarray, alone), at(run, step + 1, 1))
        np.testing.assert_array_equal(seen, run.observations[step, 1])
        np.testing.assert_array_equal(reward, run.rewards[step, 1])
    assert run.observations.shape[-1] == len(FEATURES) and (np.abs(run.observations) <= MAKING.most).all()
    named = dict(zip(FEATURES, np.moveaxis(run.observations, -1, 0), strict=True))
    after = jax.tree.map(lambda x: x[1:], run.states)
    np.testing.assert_allclose(named["inventory"], after.tasks[0].inventory / MOST, rtol=1e-6)
    np.testing.assert_allclose(named["time_left"], 1 - after.time / env.default_params.max_steps_in_episode, atol=1e-6)
    assert (named["volatility"] > 0).any() and (np.abs(named["imbalance"]) <= 1).all() and named["imbalance"].any()


@jax.jit
def decided(task_state: Any, market: Market, action: jax.Array) -> Order:
    seen = see(SPEC, market.book, books.view(SPEC, market.book), NOW)
    return MAKING.orders(MAKING.default_params(), task_state, seen, resting_of(market.book, ME), action)


@jax.jit
def sent(market: Market, orders: Order) -> tuple[Market, passing.Flow]:
    flow = passing.Flow(market, None, passing.no_fills(1))
    flow = passing.send_own(SPEC, (ME,), flow, jax.tree.map(lambda x: x[None], orders), NOW)
    return flow.market, flow.fills


def begun(market: Market, inventory: int = 0) -> Any:
    seen = see(SPEC, market.book, books.view(SPEC, market.book), NOW)
    state = MAKING.begin(MAKING.default_params(), jax.random.key(0), seen)
    return state._replace(inventory=jnp.int32(inventory))


def made_book(random: np.random.Generator) -> Market:
    market = exchange.open_market(SPEC)
    for side, kind in ((1, Kind.SELL), (-1, Kind.BUY)):
        for _ in range(5):
            market = other(market, kind, int(100_000 + side * 100 * random.integers(1, 6)), 300)
    return market


def own_orders(market: Market, side: int) -> list[tuple[int, int, int]]:
    book = jax.tree.map(np.asarray, market.book)
    rows = np.flatnonzero((book.account[side] == ME) & (book.volume[side] > 0))
    return [(int(book.price[side, i]), int(book.volume[side, i]), int(book.order_id[side, i])) for i in rows]


def others_prices(market: Market, side: int) -> list[int]:
    book = jax.tree.map(np.asarray, market.book)
    return book.price[side][(book.account[side] != ME) & (book.volume[side] > 0)].tolist()


def test_quotes_rest_where_the_table_says_and_wait_there() -> None:
    random = np.random.default_rng(1)
    for _ in range(4):
        market = made_book(random)
        for action in random.permutation(len(TABLE)).tolist():
            row, inventory = TABLE[action], int(random.integers(-4, 5)) * 100
            ask, bid = min(others_prices(market, Side.ASK)), max(others_prices(market, Side.BID))
            market, fills = sent(market, decided(begun(market, inventory), market, jnp.int32(action)))
            assert not (fills.bought | fills.sold | fills.refused).any()
            wanted = {Side.BID: (min(bid - 100 * row.bid_away, ask - 100), min(100 * row.bid_lots, MOST - inventory)),
                      Side.ASK: (max(ask + 100 * row.ask_away, bid + 100), min(100 * row.ask_lots, MOST + inventory))}
            if wanted[Side.BID][0] >= wanted[Side.ASK][0]:
                wanted[Side.ASK] = (wanted[Side.BID][0] + 100, wanted[Side.ASK][1])
            for side, (price, volume) in wanted.items():
                mine = own_orders(market, side)
                assert sum(shares for _, shares, _ in mine) == volume and all(at == price for at, _, _ in mine)
            before = own_orders(market, 0), own_orders(market, 1)
            again = decided(begun(market, inventory), market, jnp.int32(action))
            assert (np.asarray(again.kind) == Kind.NONE).all(), "an order that stays keeps its place"
            market, _ = sent(market, again)
            assert before == (own_orders(market, 0), own_orders(market, 1))


def test_the_last_action_trades_the_inventory_away_and_takes_the_quotes_back() -> None:
    market = made_book(np.random.default_rng(2))
    market, _ = sent(market, decided(begun(market), market, jnp.int32(2)))
    for inventory in (200, -200):
        _, fills = sent(market, decided(begun(market, inventory), market, jnp.int32(len(TABLE))))
        assert (int(fills.bought[0]), int(fills.sold[0])) == (max(-inventory, 0), max(inventory, 0))
    after, fills = sent(market, decided(begun(market, 0), market, jnp.int32(len(TABLE))))
    assert own_orders(after, 0) == own_orders(after, 1) == [] and not fills.sold.any()


def test_nothing_is_quoted_before_a_price_is_known() -> None:
    market = exchange.open_market(SPEC)
    for action in range(len(TABLE) + 1):
        assert (np.asarray(decided(begun(market), market, jnp.int32(action)).kind) == Kind.NONE).all()


def test_the_best_prices_of_the_others_leave_out_one_s_own() -> None:
    random = np.random.default_rng(3)
    best = jax.jit(lambda market: others_best(books.view(SPEC, market.book), resting_of(market.book, ME), 100, 70_000))
    for _ in range(6):
        market = made_book(random)
        market, _ = sent(market, decided(begun(market), market, jnp.int32(int(random.choice([1, 4, 5])))))
        assert own_orders(market, 0) and own_orders(market, 1)
        assert [int(x) for x in best(market)] == [min(others_prices(market, 0)), max(others_prices(market, 1))]
    alone = exchange.open_market(SPEC)
    assert [int(x) for x in best(alone)] == [70_100, 70_000]
    assert [int(x) for x in best(other(alone, Kind.BUY, 99_000, 100))] == [99_100, 99_000]
    assert [int(x) for x in best(other(alone, Kind.SELL, 99_000, 100))] == [99_000, 98_900]


def test_numbers_of_the_task_are_arguments_and_its_name_is_enough() -> None:
    env = MAKERS["replay"]()
    assert env.num_actions == len(TABLE) + 1 and env.name == "market_making-replay"
    run = run_of("replay")
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    none = env.default_params.replace(tasks=(dataclasses.replace(
        env.default_params.tasks[0], fee=jnp.float32(0), inventory_penalty=jnp.float32(0),
        close_ticks=jnp.int32(0)),))
    state = jax.tree.map(lambda x: x[0], run.states)
    for number in range(STEPS):
        _, state, reward, *_ = step(keys(0, number), state, jnp.asarray(run.actions[number]), none)
        np.testing.assert_allclose(reward, run.infos["profit"][number], rtol=1e-6)


@pytest.mark.parametrize(("fields", "message"), [
    ({"lot": 0}, "MarketMaking.lot"), ({"most_lots": 0}, "MarketMaking.most_lots"),
    ({"inventory_penalty": -1.0}, "inventory_penalty"), ({"fee_bp": 1e5}, "fee_bp"), ({"reward_unit": 0.0}, "unit"),
    ({"close_ticks": -1}, "close_ticks"), ({"table": ()}, "table"),
    ({"table": (Quote(0, 11, 0, 1),)}, "row 0: bid_lots"),
])
def test_what_cannot_be_done_is_refused(fields: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        MarketMaking(**fields)


def test_a_background_with_too_few_orders_a_step_is_refused() -> None:
    from marsjax.rl.env import Core
    background = dataclasses.replace(MAKERS["replay"]().core.background, most_orders=4)
    with pytest.raises(InputError, match="most_orders"):
        Core(background, (MAKING,))
    assert callable(make)
