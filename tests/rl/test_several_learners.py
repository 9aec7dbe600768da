"""Several learners in one market: one that idles is not there, and all accounts add up."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.base import Resting
from marsjax.agents.requoting import less_what_was_met
from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, Kind, Market, Order, Side, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import exchange, orders
from marsjax.rl import passing
from marsjax.rl.base import Task
from marsjax.rl.execution import Execution
from marsjax.rl.marl import MarlEnv
from marsjax.rl.named import make, make_marl
from marsjax.rl.passing import Stride
from tests.rl.markets import BEGIN_NS, END_NS, MAKING, SPEC, STEPS, WARMUP, feed
from tests.rl.test_laws import BATCH, driven_in, keys

pytestmark = pytest.mark.quick

BUYER = Execution(target=15_000, lot=100, side="buy", drift_weight=0.5)
"""It is never done before its time is over, so that episodes end by the clock alone."""
TASKS: dict[str, Task] = {"execution": BUYER, "market_making": MAKING}
KINDS = ["noise", pytest.param("replay", marks=pytest.mark.slow)]


def options(kind: str, count: int) -> dict[str, Any]:
    if kind == "replay":
        return {"background": "replay", "steps": STEPS, "feed": feed(), "between_ns": (BEGIN_NS, END_NS), "starts": 4,
                "stride": Stride(5)}
    if kind == "model":
        model, spec = testing.tiny_model(), testing.tiny_market(accounts=2 + count)
        starts = [testing.random_start(spec, model, BEGIN_NS, seed) for seed in range(3)]
        return {"background": "model", "steps": STEPS, "model": model, "market": spec, "starts": starts}
    market = MarketSpec(capacity=64, trade_width=16, accounts=1 + count, session=SPEC.session)
    return {"background": "noise", "steps": STEPS, "starts": 3, "stride": Stride(5), "market": market,
            "warmup": WARMUP}


@functools.cache
def both(kind: str) -> MarlEnv:
    return make_marl((BUYER, MAKING), **options(kind, 2))[0]


class Told(NamedTuple):
    """What B markets of two learners told in T steps: dictionaries of NumPy arrays [T, B, ...]."""

    observations: dict[str, np.ndarray]
    rewards: dict[str, np.ndarray]
    dones: dict[str, np.ndarray]
    infos: dict[str, Any]
    states: Any


@functools.cache
def played(kind: str, idle: str = "") -> Told:
    """The same actions as `driven_in` takes in a market of one learner; those of `idle` are 0."""
    env = both(kind)
    step = jax.jit(jax.vmap(env.step, (0, 0, 0, None)))
    steps = 2 * STEPS + 1
    actions = {name: np.random.default_rng(0).integers(0, task.actions, (steps, BATCH))
               for name, task in TASKS.items()}
    _, state = jax.vmap(env.reset, (0, None))(keys(0, 2**31 - 1), env.default_params)
    rows = []
    for number in range(steps):
        chosen = {name: jnp.asarray(of[number] * (name != idle)) for name, of in actions.items()}
        seen, state, *rest = step(keys(0, number), state, chosen, env.default_params)
        inner = state.market.state
        rows.append(Told(seen, *rest, inner.simulation.market if kind == "model" else inner.market))
    return jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *rows)


@pytest.mark.parametrize(("kind", "name"), [
    ("noise", "market_making"), *(pytest.param(kind, name, marks=pytest.mark.slow) for kind, name in (
        ("noise", "execution"), ("replay", "execution"), ("replay", "market_making")))])
def test_beside_one_who_idles_an_episode_is_that_of_one_alone_bit_for_bit(kind: str, name: str) -> None:
    other = next(x for x in TASKS if x != name)
    alone = driven_in(make(TASKS[name], **options(kind, 1))[0])
    told = played(kind, idle=other)
    np.testing.assert_array_equal(told.observations[name], alone.observations)
    np.testing.assert_array_equal(told.rewards[name], alone.rewards)
    np.testing.assert_array_equal(told.dones["__all__"], alone.over)
    np.testing.assert_array_equal(told.dones[name], alone.over)
    for key in set(alone.infos) & set(told.infos[name]):
        np.testing.assert_array_equal(told.infos[name][key], alone.infos[key], err_msg=key)
    assert alone.over.sum() == 2 * BATCH and alone.rewards.any() and "final_observation" in told.infos[name]
    book = told.states.book
    np.testing.assert_array_equal(np.where(book.volume > 0, book.price, 0),
                                  np.where((of := alone.states.market.state.market.book).volume > 0, of.price, 0)[1:])


@pytest.mark.parametrize("kind", [*KINDS, pytest.param("model", marks=pytest.mark.slow)])
def test_two_who_trade_see_one_another_and_no_share_and_no_cash_is_lost(kind: str) -> None:
    told, env = played(kind), both(kind)
    for name, of in vars(jax.vmap(jax.vmap(exchange.conservation))(told.states)).items():
        assert not int64.to_numpy(of).any(), name
    holdings = int64.to_numpy(told.states.ledgers.holdings)
    for key, name, account in (("filled", "execution", 0), ("inventory", "market_making", 1)):
        over, place = told.dones["__all__"], env.core.background.accounts[account]
        np.testing.assert_array_equal(holdings[..., place][~over], told.infos[name][key][~over])
        assert told.infos[name][key].any()
    # The first one's are all taken; one of the second may have met the first one's before it is taken back.
    assert not told.infos["execution"]["refused"].any()
    for name in TASKS:
        other = next(x for x in TASKS if x != name)
        assert (told.rewards[name] != played(kind, idle=other).rewards[name]).any()


def test_what_met_another_trader_is_not_sent_again() -> None:
    """The second rests 300 to sell; the first buys 200 of them before they are moved: 100 rest at the new price."""
    env = both("noise")
    background, market = env.core.background, exchange.open_market(env.core.background.market)
    time, k = Time(jnp.int32(36_000), jnp.int32(0)), background.most_orders

    def sent(*of: Order) -> Order:
        return jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y, jnp.int32).reshape(()) for y in x]),
                            *of, *[orders.no_order()] * (2 * k - len(of)))

    def step(market: Market, mine: list[Order], theirs: list[Order]) -> passing.Flow:
        rows = jax.tree.map(lambda x, y: jnp.stack([x[:k], y[:k]]), sent(*mine), sent(*theirs))
        flow = passing.Flow(market, jnp.int32(0), passing.no_fills(2))
        return passing.send_own(background.market, background.accounts, flow, rows, time)

    rests = step(market, [], [orders.limit_order(Kind.SELL, 100_000, 300)]).market
    number = jnp.max(jnp.asarray(rests.book.order_id))
    moved = step(rests, [orders.limit_order(Kind.BUY, 100_000, 200)],
                 [orders.cancel_order(jnp.int32(Side.ASK), number, 300), orders.limit_order(Kind.SELL, 100_100, 300)])
    asks = np.asarray(moved.market.book.volume)[int(Side.ASK)]
    assert asks.sum() == 100 and moved.fills.sold.tolist() == [0, 200] and not moved.fills.refused.any()


class Logged:
    """A wrapper as those of JaxMARL are: it knows `agents`, `num_agents`, `reset(key)` and `step(key, state, actions)`.

    Returns of episodes are arrays [A], put into `info`.
    """

    def __init__(self, env: MarlEnv) -> None:
        self._env = env

    def __getattr__(self, name: str) -> Any:
        return getattr(self._env, name)

    @functools.partial(jax.jit, static_argnums=0)
    def reset(self, key: jax.Array) -> Any:
        seen, state = self._env.reset(key)
        return seen, (state, jnp.zeros(self.num_agents))

    @functools.partial(jax.jit, static_argnums=0)
    def step(self, key: jax.Array, state: Any, actions: dict[str, jax.Array]) -> Any:
        inner, total = state
        seen, inner, reward, done, info = self._env.step(key, inner, actions)
        total = total + jnp.stack([reward[name] for name in self._env.agents])
        info["returned_episode_returns"] = total
        info["returned_episode"] = jnp.full((self.num_agents,), done["__all__"])
        return seen, (inner, total * (1 - done["__all__"])), reward, done, info


@pytest.mark.slow
def test_a_wrapper_that_knows_jaxmarl_s_interface_alone_works() -> None:
    pytest.importorskip("gymnax", reason="extra rl")
    env, told = Logged(both("noise")), played("noise")
    assert env.agents == ["execution", "market_making"] and env.agent_classes == {name: [name] for name in env.agents}
    assert {name: space.n for name, space in env.action_spaces.items()} == {"execution": 13, "market_making": 13}
    assert {name: space.shape for name, space in env.observation_spaces.items()} == {
        "execution": (12,), "market_making": (11,)}
    state = jax.vmap(env.reset)(keys(0, 2**31 - 1))[1]
    assert {name: of.tolist() for name, of in env.get_avail_actions(state).items()} == {
        name: [True] * space.n for name, space in env.action_spaces.items()}
    for number in range(STEPS):
        chosen = {name: jnp.asarray(np.random.default_rng(0).integers(0, task.actions, (2 * STEPS + 1, BATCH))[number])
                  for name, task in TASKS.items()}
        _, state, _, done, info = jax.vmap(env.step)(keys(0, number), state, chosen)
    assert np.asarray(done["__all__"]).all() and np.asarray(info["returned_episode"]).all()
    for place, name in enumerate(TASKS):
        np.testing.assert_allclose(info["returned_episode_returns"][:, place], told.rewards[name][:STEPS].sum(axis=0),
                                   rtol=1e-4, atol=0.1)


def test_what_met_another_since_is_not_taken_back_and_not_sent_again() -> None:
    volume, number = np.zeros((2, 3), np.int32), np.full((2, 3), NO_ID, np.int32)
    volume[Side.ASK, :2], number[Side.ASK, :2] = (100, 400), (7, 8)
    resting = Resting(np.zeros((2, 3), np.int32), volume, number)
    sent = [orders.cancel_order(Side.ASK, 7, 300), orders.cancel_order(Side.ASK, 8, 400),
            orders.cancel_order(Side.ASK, 9, 100), orders.limit_order(Kind.BUY, 100, 500),
            orders.limit_order(Kind.SELL, 100, 200), orders.limit_order(Kind.SELL, 100, 300), orders.no_order()]
    rows = jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y, jnp.int32) for y in x]), *sent)
    found = less_what_was_met(rows, resting)
    # 200 of number 7 are missing, and all of number 9, whose cancel is refused.
    assert np.asarray(found.volume).tolist()[:6] == [100, 400, 100, 500, 0, 200]
    assert np.asarray(found.kind).tolist() == [Kind.CANCEL, Kind.CANCEL, Kind.CANCEL, Kind.BUY, Kind.NONE, Kind.SELL,
                                               Kind.NONE]


def test_names_of_backgrounds_are_checked() -> None:
    with pytest.raises(InputError, match="expected one of replay, noise, model"):
        make_marl(("execution",), background="real")
