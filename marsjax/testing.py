"""For tests of one's own: tiny sizes, a model without training, random orders, and what every agent must keep to.

    from marsjax import testing

    def test_my_agent() -> None:
        testing.check_agent(MyAgent(...))
"""

import copy
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import check
from marsjax.agents.base import Agent, AgentEvent, Observation, Resting
from marsjax.checkpoint.load import LoadedModel
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, NO_ID, Kind, Order, Status
from marsjax.core.sessions import Phase
from marsjax.core.specs import MarketSpec, ModelSpec, TokenSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import book as books
from marsjax.market import exchange, orders
from marsjax.model import llama
from marsjax.observers.base import Observer
from marsjax.sim import initial
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import End, SimState
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter

HISTORY_S = 60
"""Seconds of random orders before a random start."""
_STEPS = 16
"""Decisions of a compiled call."""
_MOMENTS = 4
"""At which the functions of an agent are called."""
_NUMBERS, _COPIES = (3, 1, 7), (1, 1, 1)
"""Trajectory 1 among others, and among copies of itself."""


def tiny_market(accounts: int = 4) -> MarketSpec:
    """A market small enough to compile and run in seconds; agents may have the accounts 2 to accounts - 1.

    Examples:
      >>> tiny_market(accounts=3).accounts
      3
    """
    return MarketSpec(capacity=64, trade_width=8, accounts=accounts)


def tiny_model(seed: int = 0) -> LoadedModel:
    """An order model without training: one layer of width 4 and 384 classes, which draws about evenly from them.

    Its orders lie within four ticks of 100 around the mid, hold 100 to 1,000 shares and come 0.4 s apart in the mean.

    Examples:
      >>> tiny_model().spec.layers, tiny_model().spec.context_length
      (1, 32)
    """
    spec = ModelSpec(embed_dim=4, heads=1, context_length=32, tokens=TokenSpec(price_levels=8, volumes=4, intervals=4))
    converters = {
        "price-level": _bins(np.arange(-400, 400, 100), 50), "order-volume": _bins(np.array([100, 200, 500, 1000]), 10),
        "lob-volume": _bins(np.array([100, 500, 1000, 5000]), 10),
        "order-interval": _bins(np.array([0.05, 0.2, 0.4, 0.95]), 0.01)}
    converters["pred-order-volume"] = converters["order-volume"]
    return LoadedModel(llama.init(spec, jax.random.key(seed)), converters, {"source": "marsjax.testing"})


def _bins(values: np.ndarray, below: float) -> Converter:
    """A bin for each value, its upper edge."""
    chosen = values.astype(np.float64)
    return Converter(np.concatenate([[chosen[0] - below], chosen]), tuple(chosen[:, None]),
                     tuple(np.ones((len(chosen), 1))), "testing")


def random_orders(time_ns: int, count: int = 120, seed: int = 0, around: int = 100_000,
                  tick: int = 100) -> Order:
    """Limit orders of account 0 in the minute before `time_ns`, NumPy arrays [count]; 1 to 10 lots near `around`.

    Examples:
      >>> random_orders(36_000 * SECOND_NS, count=3).volume.tolist()
      [600, 700, 1000]
    """
    random = np.random.default_rng(seed)
    offsets = np.sort(random.integers(1, HISTORY_S * SECOND_NS, count))[::-1]
    kind = random.choice([Kind.SELL, Kind.BUY], count)
    away = random.integers(-1, 6, count) * tick
    none = np.full(count, -1)
    return orders.from_columns(time_ns - offsets, kind, around + np.where(kind == Kind.SELL, away, -away),
                               random.integers(1, 11, count) * 100, none, none, none, np.zeros(count, np.int64))


def random_start(market: MarketSpec, order_model: LoadedModel, time_ns: int = 36_000 * SECOND_NS, seed: int = 0
                 ) -> Start:
    """A state to start rollouts from: what `random_orders` lead to.

    Examples:
      >>> start = random_start(tiny_market(), tiny_model())
      >>> int(start.count), int(start.time.s)
      (32, 36000)
    """
    sent = random_orders(time_ns, seed=seed, around=1000 * market.tick, tick=market.tick)
    table = encoding.tables(order_model.spec.tokens, order_model.converters)
    return initial.after_orders(market, table, sent, time_ns, order_model.spec.context_length, chunk_orders=128)


def check_agent(agent: Agent, market: MarketSpec | None = None, seconds: int = 8, observers: Sequence[Observer] = ()
                ) -> dict[str, int]:
    """Puts an agent through what every agent must keep to, in a small market of its own.

    First `check_functions`; then, in a rollout beside an untrained model: no share and no cash is lost, every wake-up
    asked for is later than now, and a trajectory does not depend on those beside it.

    Args:
      agent: to be checked.
      market: that it trades in; `tiny_market` with accounts enough by default.
      seconds: of the rollout, which begins at the agent's first wake-up; it must wake up within them.
      observers: `SimulationSpec.observers`, whose states it sees.

    Returns:
      What the agent did in three trajectories: wakes, sent, refused, unsent, late_wakes (`sim.state.AgentState`).

    Raises:
      InputError: with the agent's name, what was expected and what was found.

    Examples:
      >>> from marsjax.agents import Twap
      >>> twap = Twap(target=1_000, start_ns=36_000 * SECOND_NS, total_seconds=45)
      >>> done = check_agent(twap)
      >>> done["wakes"] > 0, done["late_wakes"]
      (True, 0)
    """
    return check_agents([agent], market, seconds, observers)[agent.name]


def check_agents(agents: Sequence[Agent], market: MarketSpec | None = None, seconds: int = 8,
                 observers: Sequence[Observer] = ()) -> dict[str, dict[str, int]]:
    """`check_agent` for several that trade in one market; what each did by its name."""
    for agent in agents:
        check_functions(agent, market, observers)
    market = market or _market_for(*agents)
    order_model = tiny_model()
    time_ns = _begins(agents, market)
    simulator = Simulator.of(order_model, market, agents=agents, observers=observers,
                             end_ns=time_ns + seconds * SECOND_NS)
    start = random_start(market, order_model, time_ns)
    last, copies = (_run(simulator, start, numbers) for numbers in (_NUMBERS, _COPIES))
    _check_conserved(agents, last)
    done = {}
    for agent, agent_state in zip(agents, last.agent_states, strict=True):
        done[agent.name] = {name: int(np.sum(np.asarray(getattr(agent_state, name))))
                            for name in ("wakes", "sent", "refused", "unsent", "late_wakes")}
        if not done[agent.name]["wakes"]:
            raise InputError(f"agent {agent.name!r}: expected a wake-up within {seconds} s of its first one asked for, "
                             "got none")
        if done[agent.name]["late_wakes"]:
            raise _late(agent, f"{done[agent.name]['late_wakes']} that were not")
    _check_company(agents, last, copies)
    return done


def check_functions(agent: Agent, market: MarketSpec | None = None, observers: Sequence[Observer] = ()) -> None:
    """The part of `check_agent` that takes no rollout, and a fraction of its time.

    The agent is a frozen, hashable record, equal to its copy; its functions give what the engine takes
    (`agents.check`), the same for the same inputs, mapped over trajectories as one by one; and the wake-up that it asks
    for at its first one is later than that.
    """
    _check_record(agent)
    market = market or _market_for(agent)
    name = f"agent {agent.name!r}"
    opened = exchange.open_market(market)
    observed = tuple(observer.begin(opened, books.view(market, opened.book), opened.time) for observer in observers)
    check.check(agent, market, jax.eval_shape(lambda: observed))
    _equal(f"{name}: init: expected the same each time", agent.init(), agent.init())
    state = jax.tree.map(jnp.asarray, agent.init()[0])
    act, on_event, keys = jax.jit(agent.act), jax.jit(agent.on_event), jax.random.split(jax.random.key(0), _MOMENTS)
    rows: list[tuple[Any, ...]] = []
    for moment in range(_MOMENTS):
        seen, event = _moment(agent, market, _begins([agent], market) + moment * SECOND_NS, moment)
        seen = seen._replace(observed=observed)
        action = act(state, seen, keys[moment])
        if not moment and not bool(action.stops) and not bool(times.before(seen.time, action.wake)):
            raise _late(agent, f"{times.to_ns(action.wake)} ns at {times.to_ns(seen.time)} ns")
        after = on_event(action.state, event)
        rows.append((state, seen, keys[moment], action, event, after))
        state = after
    every = jax.tree.map(lambda *x: jnp.stack(x), *rows)
    # Mapped functions are traced anew: one that draws its numbers outside of its key gives others.
    actions = jax.jit(jax.vmap(lambda *given: agent.act(*given)))(*every[:3])
    _equal(f"{name}: act: expected the same of the same inputs, mapped or alone", actions, every[3])
    states = jax.jit(jax.vmap(lambda *given: agent.on_event(*given)))(every[3].state, every[4])
    _equal(f"{name}: on_event: expected the same of the same inputs, mapped or alone", states, every[5])


def _late(agent: Agent, found: str) -> InputError:
    return InputError(f"agent {agent.name!r}: act: wake: expected a time later than now, or stops; got {found}")


def _market_for(*agents: Agent) -> MarketSpec:
    return tiny_market(accounts=1 + max(2, *(agent.account for agent in agents)))


def _moment(agent: Agent, market: MarketSpec, time_ns: int, seed: int) -> tuple[Observation, AgentEvent]:
    """What the agent may see and hear of: a book of random orders, and an order that traded 100 of its 200 shares."""
    random = np.random.default_rng(seed)
    shaped, heard = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), check.shapes(market))
    tick = market.tick
    levels, ticks = np.arange(market.levels), tick * int(random.integers(995, 1005))
    volume = int64.from_numpy(random.integers(1, 50, (2, market.levels)) * 100)
    view = dataclasses.replace(
        shaped.view, ask_price=ticks + tick * levels, bid_price=ticks - tick - tick * levels, last_price=ticks,
        ask_volume=jax.tree.map(lambda x: x[0], volume), bid_volume=jax.tree.map(lambda x: x[1], volume), spread=tick,
        mid_price=ticks - tick, mid_price_twice=2 * ticks - tick, has_mid=True)
    rests = np.zeros((2, market.capacity), np.int32)
    rests[:, 0] = random.integers(0, 3, 2) * 100
    own = Resting(*map(jnp.asarray, (np.where(rests > 0, ticks + np.array([[0], [-tick]]), EMPTY_PRICE), rests,
                                     np.where(rests > 0, np.array([[1], [2]]), NO_ID))))
    seen = shaped._replace(time=times.from_ns(time_ns), view=view, resting=own, tick=tick)
    is_own = bool(seed % 2)
    hundred = int64.from_numpy(100)
    order = dataclasses.replace(heard.order, kind=Kind.BUY, price=ticks, volume=200,
                                account=agent.account if is_own else 0)
    trades = dataclasses.replace(heard.trades, kind=Kind.BUY, volume=hundred, count=1)
    event = heard._replace(time=times.from_ns(time_ns), order=order, trades=trades, is_own=is_own, order_id=1,
                         shares=hundred if is_own else heard.shares, status=Status.ACCEPTED)
    return jax.tree.map(lambda new, old: jnp.asarray(new, old.dtype), (seen, event), (shaped, heard))


def _check_record(agent: Agent) -> None:
    check.check_record(agent)
    for field in ("name", "account"):
        try:
            setattr(agent, field, getattr(agent, field))
        except AttributeError:
            continue
        raise InputError(f"agent {agent.name!r}: expected a frozen record, got one whose {field} can be set")
    twin = copy.copy(agent)
    if twin != agent or hash(twin) != hash(agent):
        raise InputError(f"agent {agent.name!r}: expected a record that equals its copy, with the same hash (compiled "
                         "calls are told apart by it)")


def _begins(agents: Sequence[Agent], market: MarketSpec) -> int:
    """When the last of the agents asks to be woken first, and not before a minute of continuous trading is over."""
    opens_ns = min(period.start_ns for period in market.session.periods if period.phase == Phase.CONTINUOUS)
    asked = [int(times.to_ns(agent.init()[1])) for agent in agents]
    return max(opens_ns + HISTORY_S * SECOND_NS, *asked)


def _run(simulator: Simulator, start: Start, numbers: tuple[int, ...]) -> SimState:
    """Trajectories of these numbers at their end."""
    starts = jax.tree.map(lambda x: jnp.broadcast_to(x, (len(numbers), *jnp.shape(x))), start)
    state = _begin(simulator, starts, jnp.array(numbers, jnp.int32))
    while bool(jnp.any(state.end == End.RUNNING)):
        state = _steps(simulator, state)
    return state


_begin = jax.jit(sim_step.begin)


@jax.jit
def _steps(simulator: Simulator, state: SimState) -> SimState:
    simulator = simulator.prepared()

    def one(state: SimState, _: None) -> tuple[SimState, None]:
        words = sim_step.draw(np.zeros((), np.uint32), state.trajectory, state.step)
        return sim_step.step(simulator, state, words)[0], None

    return jax.lax.scan(one, state, length=_STEPS)[0]


def _check_conserved(agents: Sequence[Agent], state: SimState) -> None:
    found = jax.jit(jax.vmap(exchange.conservation))(state.market)
    for field in dataclasses.fields(found):
        lost = int64.to_numpy(getattr(found, field.name))
        if lost.any():
            raise InputError(f"agents {[agent.name for agent in agents]}: {field.name}: expected that nothing is lost "
                             f"or made, got {lost.tolist()}")


def _check_company(agents: Sequence[Agent], among_others: SimState, among_copies: SimState) -> None:
    place = _NUMBERS.index(_COPIES[0])
    names = [agent.name for agent in agents]
    for b in range(len(_COPIES)):
        parts = ((x.market, [agent_state.state for agent_state in x.agent_states]) for x in (among_others,
                                                                                             among_copies))
        expected, got = (jax.tree.map(lambda x, row=row: x[row], part)
                         for row, part in zip((place, b), parts, strict=True))
        _equal(f"agents {names}: expected a trajectory that does not depend on those beside it", got, expected)


def _equal(what: str, got: Any, expected: Any) -> None:
    """InputError unless both are equal; floating-point numbers to five digits, as compilers order their sums."""
    structures = [str(jax.tree.structure(x)) for x in (got, expected)]
    if structures[0] != structures[1]:
        raise InputError(f"{what}; got {structures[0]} and {structures[1]}")
    for (path, one), other in zip(jax.tree_util.tree_leaves_with_path(got), jax.tree.leaves(expected), strict=True):
        a, b = _numbers(one), _numbers(other)
        close = a.dtype.kind == "f" and a.shape == b.shape and np.allclose(a, b, rtol=1e-5, equal_nan=True)
        if not close and not np.array_equal(a, b):
            raise InputError(f"{what}; {jax.tree_util.keystr(path)}: got {a.tolist()} and {b.tolist()}")


def _numbers(x: Any) -> np.ndarray:
    is_key = isinstance(x, jax.Array) and jnp.issubdtype(x.dtype, jax.dtypes.prng_key)
    return np.asarray(jax.random.key_data(x) if is_key else x)
