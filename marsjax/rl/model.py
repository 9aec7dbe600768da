"""An order model as a background: its orders answer to what the traders do, as it has learnt.

Under `vmap` all markets go on together in the one loop of `sim.env.Environment`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents.base import NO_LATENCY, Observation
from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Order
from marsjax.core.specs import MarketSpec
from marsjax.rl.base import (
    Begun,
    MarketSeen,
    Stepped,
    StepTrades,
    TraderFills,
    key_of,
    resting_of,
    see,
    start_and_words,
    where,
)
from marsjax.rl.batches import by_whole_batches
from marsjax.sim.env import Environment, OutsideFills
from marsjax.sim.initial import Start
from marsjax.sim.state import SimState


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class ModelStarts:
    """An order model and its states at the starts: what `Model` reads."""

    environment: Environment
    """Weights, bins and the market's spec."""
    begun: SimState
    """[S], with contexts made."""

    @property
    def start_count(self) -> int:
        """S."""
        return int(self.begun.step.shape[-1])


class ModelState(NamedTuple):
    """One market of an order model in an episode."""

    simulation: SimState
    words: jax.Array
    """Of the episode, uint32 [2]: all draws are folded from it."""


@dataclasses.dataclass(frozen=True)
class Model:
    """A market of an order model."""

    market: MarketSpec
    accounts: tuple[int, ...]
    """Of the A traders, in the sequence in which their orders reach the exchange."""
    most_orders: int
    """K, of a trader, as of the environment."""

    @classmethod
    def of(cls, environment: Environment) -> "Model":
        """The static part of an environment; InputError where its trader has a latency.

        With one, orders meet another book than the trader saw, and a task could trade more than it is to.
        """
        outsides = environment.outsides
        if outsides[0].latency != NO_LATENCY:
            raise InputError(f"rl: expected a trader from outside without latency, got {outsides[0].latency}")
        return cls(environment.simulator.spec.market, tuple(each.account for each in outsides),
                   outsides[0].most_orders)

    def starts(self, environment: Environment, start: Start) -> ModelStarts:
        """Contexts made of starts [S]."""
        return ModelStarts(environment, jax.jit(Environment.begin)(environment, start))

    def begin(self, data: ModelStarts, key: jax.Array) -> Begun:
        """One of the starts, each as likely as the others, and what the model draws from there on."""
        seen, simulation = _first(data, *(drawn := start_and_words(key, data.start_count)))
        return self._begun(seen, simulation, drawn[1])

    def renew(self, data: ModelStarts, key: jax.Array, done: Array, old: Begun) -> Begun:
        """Where `done`, a new start; where no market of a batch is done, nothing is computed."""
        return _renewed(data, *start_and_words(key, data.start_count), done, old)

    def step(self, data: ModelStarts, state: ModelState, sent: Order) -> Stepped:
        """Sends the traders' orders, and goes on to their next wake-up."""
        count = len(self.accounts)
        given = sent if count > 1 else jax.tree.map(lambda x: jnp.asarray(x)[0], sent)
        seen, simulation, fills, is_over = _step(data.environment, state.words, state.simulation, given)
        begun = self._begun(seen, simulation, state.words)
        after, before = simulation.market.counters, state.simulation.market.counters
        trades = StepTrades(int64.subtract(after.traded, before.traded), int64.subtract(after.value, before.value))
        every = TraderFills(fills.bought, fills.sold, fills.cash, fills.value, fills.accepted, fills.refused)
        each = (every,) if count == 1 else tuple(jax.tree.map(lambda x, i=i: x[i], every) for i in range(count))
        return Stepped(begun.state, begun.seen, begun.resting, each, trades, is_over)

    def _begun(self, seen: Observation, simulation: SimState, words: jax.Array) -> Begun:
        book = simulation.market.book
        view: MarketSeen = see(self.market, book, seen.view, seen.time)
        return Begun(ModelState(simulation, words), view, tuple(resting_of(book, account) for account in self.accounts))


def _first_of_all(data: ModelStarts, number: jax.Array, words: jax.Array) -> tuple[Observation, SimState]:
    return data.environment.first(key_of(words), jax.tree.map(lambda x: x[number], data.begun))


_first = by_whole_batches(_first_of_all)


@by_whole_batches
def _step(environment: Environment, words: jax.Array, state: SimState, orders: Order
          ) -> tuple[Observation, SimState, OutsideFills, jax.Array]:
    return environment.step(key_of(words), state, orders)


@by_whole_batches
def _renewed(data: ModelStarts, number: jax.Array, words: jax.Array, done: jax.Array, old: Begun) -> Begun:
    background = Model.of(data.environment)

    def fresh() -> Begun:
        begun: Begun = jax.vmap(background._begun)(*_first_of_all(data, number, words), words)
        return jax.vmap(where)(done, begun, old)

    return jax.lax.cond(jnp.any(done), fresh, lambda: old)  # type: ignore[no-any-return]
