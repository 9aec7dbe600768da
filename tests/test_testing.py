"""The conformance suite passes an agent that keeps to the rules and names the rule that another one breaks.

The part of it that takes a rollout is in tests/test_env.py, where one of that agent is made anyway.
"""

import dataclasses
import functools
import types
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.twap import Twap
from marsjax.core import times
from marsjax.core.records import Kind, Time
from marsjax.core.times import SECOND_NS
from marsjax.market import orders as make
from marsjax.observers.bars import MinuteBarObserver
from marsjax.sim import rollout
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec


@dataclasses.dataclass(frozen=True)
class Polite:
    """Keeps to the rules; the tests break them one at a time."""

    account: Any = 2
    name: Any = "polite"
    most_orders: Any = 2
    most_in_flight: Any = 2
    latency: Any = NO_LATENCY

    def init(self) -> tuple[Any, Time]:
        return {"heard": jnp.int32(0)}, times.of_ns(0)

    def on_event(self, state: Any, news: AgentEvent) -> Any:
        return {"heard": state["heard"] + 1}

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        orders = make.limit_order(jnp.full(2, Kind.BUY), seen.view.bid_price[0], 100)
        return Action(state, orders, times.add(seen.time, times.of_ns(SECOND_NS)),
                      stops=jnp.bool_(False), unsent=jnp.int32(0))


def changed(**parts: Any) -> Callable[[Polite, Any, Observation, jax.Array], Action]:
    """`act` with parts of its answer changed, orders' fields among them."""
    def act(self: Polite, state: Any, seen: Observation, key: jax.Array) -> Action:
        action = Polite.act(self, state, seen, key)
        orders = {name: parts[name](action) for name in parts if hasattr(action.orders, name)}
        others = {name: parts[name](action) for name in parts if name in Action._fields}
        return action._replace(orders=dataclasses.replace(action.orders, **orders), **others)

    return act


def breaking(**members: Any) -> Polite:
    return dataclasses.dataclass(frozen=True)(type("Impolite", (Polite,), members))()


def outside_draw(action: Action) -> jax.Array:
    return jnp.full(2, int(RANDOM.integers(1, 1000)) * 100, jnp.int32)


RANDOM = np.random.default_rng(0)
NAN = changed(price=lambda a: jnp.full(2, jnp.nan))
SHAPES = {
    "floats": (breaking(act=NAN), r"agent 'polite': act: orders\.price .*expected int32\[2\], got float32\[2\]"),
    "rows": (Polite(most_orders=3, most_in_flight=3), r"orders\.kind \(most_orders=3\): expected int32\[3\]"),
    "state dtype": (breaking(act=changed(state=lambda a: {"heard": a.state["heard"] * 1.5})),
                    r"act: state\['heard'\]: expected int32\[\], got float32\[\]"),
    "state shape": (breaking(on_event=lambda self, state, news: {"heard": jnp.zeros(3, jnp.int32)}),
                    r"on_event: state\['heard'\]: expected int32\[\], got int32\[3\]"),
    "state structure": (breaking(on_event=lambda self, state, news: ()), "on_event: state: expected the structure"),
    "wake": (breaking(act=changed(wake=lambda a: Time(jnp.float32(1), jnp.int32(0)))),
             r"act: wake\.s: expected int32\[\], got float32\[\]"),
    "no action": (breaking(act=lambda self, state, seen, key: state), "act: expected an Action, got dict"),
    "init": (breaking(init=lambda self: jnp.zeros(3)), "init: expected its state and its first wake-up"),
}
OTHERS = {
    "hashable": (Polite(name="list", latency=Latency(), most_orders=[2]), "agent 'list': expected a hashable record"),
    "name": (Polite(name=""), "name: expected some text, got ''"),
    "account": (Polite(account=-1), "agent 'polite': account: expected a whole number of at least 0, got -1"),
    "most orders": (Polite(most_orders=0), "most_orders: expected a whole number of at least 1, got 0"),
    "in flight": (Polite(most_in_flight=1), "most_in_flight: expected at least most_orders=2, got 1"),
    "latency": (Polite(latency=0.5), r"latency: expected a Latency, got 0\.5"),
    "frozen": (types.SimpleNamespace(**vars(Polite())), "expected a hashable record"),
    "equal": (dataclasses.dataclass(frozen=True, eq=False)(type("Alone", (Polite,), {"__eq__": object.__eq__,
                                                                                  "__hash__": object.__hash__}))(),
              "expected a record that equals its copy"),
    "late": (breaking(act=changed(wake=lambda a: times.of_ns(0))), "wake: expected a time later than now"),
    "impure": (breaking(act=changed(volume=outside_draw)), "act: expected the same of the same inputs"),
    "impure init": (breaking(init=lambda self: ({"heard": jnp.int32(int(RANDOM.integers(2**31 - 1)))},
                                                times.of_ns(0))), "init: expected the same each time"),
}


@pytest.mark.parametrize("name", [*SHAPES, *OTHERS])
def test_what_breaks_a_rule_is_refused_by_name(name: str) -> None:
    agent, message = (SHAPES | OTHERS)[name]
    with pytest.raises(ValueError, match=message):
        testing.check_agent(agent)


def test_a_record_that_can_be_changed_is_refused() -> None:
    class Loose(Polite):
        __setattr__ = object.__setattr__

    with pytest.raises(ValueError, match="expected a frozen record, got one whose name can be set"):
        testing.check_functions(Loose())


def test_an_agent_that_keeps_to_the_rules_passes() -> None:
    testing.check_functions(Polite(), observers=(MinuteBarObserver(2),))


@functools.cache
def door() -> Any:
    model, market = testing.tiny_model(), testing.tiny_market()
    return model, testing.random_start(market, model)


def enter(agent: Any, **options: Any) -> None:
    model, start = door()
    simulator = Simulator.of(model, testing.tiny_market(), agents=(agent,))
    rollout.rollout(simulator, start, RolloutSpec(trajectories=2, minutes=1), **options)


@pytest.mark.parametrize("name", list(SHAPES))
def test_the_door_of_a_rollout_refuses_them_before_anything_is_compiled(name: str) -> None:
    agent, message = SHAPES[name]
    with pytest.raises(ValueError, match=message):
        enter(agent)


def test_starts_of_agents_are_checked_at_the_door() -> None:
    twap = Twap(target=100, start_ns=0, total_seconds=30)
    state, wake = twap.starts(np.zeros(2, int), True)
    with pytest.raises(ValueError, match=r"agent 'twap': first wake-up\.s: expected int32\[\], got float32\[\]"):
        enter(twap, agent_starts=[(state, Time(wake.s.astype(np.float32), wake.ns))])
    with pytest.raises(ValueError, match=r"agent_starts of agent 'twap': expected 2 of each, .* shape \(3,\)"):
        enter(twap, agent_starts=[twap.starts(np.zeros(3, int), True)])


def test_random_starts_differ_by_seed_and_hold_what_they_promise() -> None:
    model, start = door()
    other = testing.random_start(testing.tiny_market(), model, seed=1)
    assert not np.array_equal(start.market.book.price, other.market.book.price)
    assert int(start.count) == model.spec.context_length
    assert (np.asarray(start.market.book.volume) > 0).any(axis=1).all()
