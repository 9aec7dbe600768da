"""What agents see, and what becomes of what they do, by hand; the tokens of one burst against a plain list."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.base import Action, Latency
from marsjax.core import times
from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID, Kind, Order
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import exchange
from marsjax.market import orders as make
from marsjax.sim import event_loop, event_queue
from marsjax.sim.state import NO_NUMBER, AgentState
from marsjax.tokens import encoding

MARKET = MarketSpec(capacity=4, trade_width=2, accounts=4)
NOW_NS = 100 * SECOND_NS
FAR = Latency(communication_ns=2 * SECOND_NS, computation_ns=SECOND_NS)


@dataclasses.dataclass(frozen=True)
class Trader:
    """As much of an agent as the queue looks at."""

    account: int = 2
    latency: Latency = FAR
    most_in_flight: int = 3


def test_an_agent_sees_its_own_resting_orders_alone() -> None:
    market = exchange.open_market(MARKET)
    account = jnp.array([[2, 3, 2, NO_ACCOUNT], [1, NO_ACCOUNT, NO_ACCOUNT, NO_ACCOUNT]])
    volume = jnp.array([[1, 200, 300, 0], [100, 0, 0, 0]])
    price = jnp.array([[101, 102, 103, EMPTY_PRICE], [99, EMPTY_PRICE, EMPTY_PRICE, EMPTY_PRICE]])
    number = jnp.array([[7, 8, 9, NO_ID], [5, NO_ID, NO_ID, NO_ID]])
    market = dataclasses.replace(market, book=dataclasses.replace(
        market.book, price=price, volume=volume, order_id=number, account=account))
    seen: Any = event_queue.observe(Trader(), 100, market, None, times.of_ns(NOW_NS), ())
    assert np.asarray(seen.resting.price).tolist() == [[101, EMPTY_PRICE, 103, EMPTY_PRICE], [EMPTY_PRICE] * 4]
    assert np.asarray(seen.resting.volume).tolist() == [[1, 0, 300, 0], [0] * 4]
    assert np.asarray(seen.resting.order_id).tolist() == [[7, NO_ID, 9, NO_ID], [NO_ID] * 4]
    assert times.to_ns(seen.time) == NOW_NS + FAR.communication_ns and seen.tick == 100


def first(first_wake_ns: int) -> AgentState:
    return event_queue.first_state(Trader(), jnp.int32(0), times.of_ns(first_wake_ns), times.of_ns(NOW_NS), 5)


def test_an_agent_is_first_woken_when_it_asks_but_not_before_it_can_have_seen_the_start() -> None:
    """By the exchange's clock, which is two seconds behind its own news."""
    for asked_s, woken_s in ((0, 100), (101, 100), (102, 100), (103, 101), (200, 198)):
        state = first(asked_s * SECOND_NS)
        assert int(times.to_ns(state.wake)) == woken_s * SECOND_NS
        assert state.awake and state.wake_number == 5


def acted(orders: list[Order], wake_ns: int, stops: bool = False, before: AgentState | None = None,
          unsent: int = 0) -> tuple[AgentState, int]:
    """After it acted at NOW_NS, with number 20 to be given next."""
    action = Action(jnp.int32(1), jax.tree.map(lambda *x: jnp.stack([jnp.asarray(y, jnp.int32) for y in x]), *orders),
                    times.of_ns(wake_ns), stops=jnp.bool_(stops), unsent=jnp.int32(unsent))
    state, number = event_queue.after_action(Trader(), before or first(0), action, times.of_ns(NOW_NS), jnp.int32(20))
    return state, int(number)


def buy() -> Order:
    return make.limit_order(Kind.BUY, 100, 300, order_id=77, account=3)


def sell() -> Order:
    return make.limit_order(Kind.SELL, 200, 100)


def test_orders_are_numbered_in_sequence_and_arrive_under_the_agents_account_after_its_delays() -> None:
    state, number = acted([make.no_order(), buy(), sell()], NOW_NS + 5 * SECOND_NS, unsent=2)
    assert np.asarray(state.in_flight_number).tolist() == [20, 21, NO_NUMBER]
    assert np.asarray(state.in_flight.kind).tolist()[:2] == [Kind.BUY, Kind.SELL]
    # Its id is the exchange's to give.
    assert np.asarray(state.in_flight.order_id).tolist()[:2] == [NO_ID] * 2
    assert np.asarray(state.in_flight.account).tolist()[:2] == [2, 2]
    assert times.to_ns(state.in_flight.time).tolist()[:2] == [NOW_NS + 5 * SECOND_NS] * 2
    # The wake-up is numbered after them; no other event has its number.
    assert state.wake_number == 22 and number == 23
    assert times.to_ns(state.wake) == NOW_NS + 3 * SECOND_NS
    assert (state.wakes, state.unsent, state.late_wakes, bool(state.awake)) == (1, 2, 0, True)
    # Two more when one place is left: the first of them is sent.
    state, number = acted([sell(), buy(), make.no_order()], NOW_NS + 5 * SECOND_NS, before=state)
    assert np.asarray(state.in_flight_number).tolist() == [20, 21, 20]
    assert state.in_flight.kind[2] == Kind.SELL and state.unsent == 3


def test_an_agent_that_stops_is_not_late_and_one_that_asks_for_the_past_is() -> None:
    now_ns = NOW_NS + FAR.communication_ns
    for wake_ns, stops, late in ((now_ns + 1, False, 0), (now_ns, False, 1), (now_ns - 1, False, 1),
                                 (now_ns, True, 0), (now_ns + 1, True, 0)):
        state, _ = acted([sell()], wake_ns, stops=stops)
        assert (int(state.late_wakes), bool(state.awake)) == (late, not stops and not late), (wake_ns, stops)


def test_tokens_of_a_burst_are_those_of_a_list() -> None:
    """New ones follow; a merged cancel rewrites the last one, or the newest of the context if there is none."""
    rng = np.random.default_rng(0)
    add = jax.jit(event_loop._with_token)
    seen = set()
    for _ in range(40):
        made = jax.tree.map(lambda x: x[0], event_loop.no_tokens(1, 4))
        rows: list[int] = []
        rewrites = False
        for number in range(1, 9):
            what = str(rng.choice(["new", "replaces", "none"], p=[0.6, 0.2, 0.2]))
            if len(rows) == 4 and what == "new":
                break  # the loop stops before
            token = jax.tree.map(lambda x, number=number: jnp.full_like(x, number), encoding.no_tokens(()))
            made = add(made, encoding.Encoded(token, jnp.bool_(what == "new"), jnp.bool_(what == "replaces")))
            if what == "new" or (what == "replaces" and not rows):
                rewrites |= what == "replaces"
                rows.append(number)
            elif what == "replaces":
                rows[-1] = number
            seen.add((what, len(rows)))
        assert int(made.made) == len(rows) and bool(made.replaces) == rewrites
        for column in jax.tree.leaves(made.tokens):
            flat = np.asarray(column).reshape(4, -1)
            assert flat[: len(rows), 0].tolist() == rows and (flat[: len(rows)] == flat[: len(rows), :1]).all()
    assert {("replaces", 1), ("replaces", 4), ("new", 4), ("none", 0)} <= seen
