"""The one state that a simulation carries: markets, agents, the order model's context, and what comes next."""

import dataclasses
import enum
from typing import Any, NamedTuple

import jax

from marsjax.core.records import Array, BookView, Market, Order, Time, Token
from marsjax.model import kv_cache
from marsjax.model.ensemble import ReadBatch
from marsjax.tokens.encoding import TokenState

NOT_CARRIED: Any = None
"""Stands for contexts, and what they are told, that are kept apart."""
NO_NUMBER = -1
"""The event number of a place that holds no order in flight."""


class End(enum.IntEnum):
    """Why a trajectory goes on or has ended."""

    RUNNING = 0
    TIME = 1
    """The next order would come after the end."""
    NO_MID = 2
    """Nothing rests and nothing ever traded: there is no price to decide around."""
    NOT_FINITE = 3
    """The model gave a logit that is no number."""


LOST = (End.NO_MID, End.NOT_FINITE)
"""Ends of trajectories that did not get to the end of their time."""


class BackgroundPhase(enum.IntEnum):
    """What the background agent does next."""

    DECIDE = 0
    SEND = 1
    NOTHING = 2
    """Its planned order would come after the end, or its trajectory has ended."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class AgentState:
    """What the engine keeps of one agent of one trajectory; Q is `Agent.most_in_flight`."""

    state: Any
    """The agent's own."""
    wake: Time
    """When the exchange's clock shows it the agent sees it: its own wake-up less its communication delay."""
    wake_number: Array
    """int32, event number of the wake-up."""
    awake: Array
    """bool, False once it has stopped."""
    in_flight: Order
    """[Q], orders on their way, with their times of arrival."""
    in_flight_number: Array
    """int32 [Q], event numbers of these; NO_NUMBER where there is none."""
    wakes: Array
    """int32, wake-ups so far; they key its draws."""
    sent: Array
    """int32, orders that reached the exchange."""
    refused: Array
    """int32, of these, refused by it: cancels of orders that are not the agent's own among them."""
    unsent: Array
    """int32, orders beyond `most_orders`, as the agent says, and beyond `most_in_flight`."""
    late_wakes: Array
    """int32, wake-ups asked for that were not later than now: the agent was stopped."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class SimState:
    """The state of B trajectories; every array is batch-first. The fields are those of one trajectory below."""

    market: Market
    view: BookView
    """Of the market's book."""
    token_state: TokenState
    cache: kv_cache.State
    """The order model's contexts; NOT_CARRIED through the loop over events, which would copy them in every pass."""
    agent_states: tuple[AgentState, ...]
    """Of `SimulationSpec.agents`."""
    observed: tuple[Any, ...]
    """States of `SimulationSpec.observers`."""
    time: Time
    """Of the background agent's next decision, or of its planned order."""
    until: Time
    """No order is sent after it."""
    step: Array
    """int32, decisions so far; with the trajectory's number they key the draws."""
    trajectory: Array
    """int32, the number that the draws are keyed by."""
    end: Array
    """int32, an `End`."""
    number: Array
    """int32, events asked for so far, which orders those at equal times."""
    phase: Array
    """int32, a `BackgroundPhase`; like what follows, kept up only where other agents trade."""
    own_number: Array
    """int32, number of the background agent's next event."""
    planned: Order
    """By the background agent."""
    tie: Array
    """uint32, its random word; the last bit decides between two prices to cancel at."""
    guide: ReadBatch | None = None
    """What the order model is told of the orders to come, with `Simulator.ensemble`, else None; NOT_CARRIED, as the
    contexts are."""


class NewTokens(NamedTuple):
    """Tokens on their way to the context, N at most."""

    tokens: Token
    """[N]."""
    made: Array
    """int32 [], how many."""
    replaces: Array
    """bool [], the first of them rewrites the newest token of the context (a merged cancel)."""
