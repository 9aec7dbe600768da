"""The noise agent as a background: random orders around the last price, which answer to nothing but that price."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents import noise as noise_agent
from marsjax.agents.noise import NoiseSpec
from marsjax.core import times
from marsjax.core.records import Array, Kind, Market, Order, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import orders as make
from marsjax.market.process import NOT_MADE, ByPrice, MarketState, process
from marsjax.rl import passing
from marsjax.rl.base import Begun, Stepped, key_of, start_and_words, where
from marsjax.rl.passing import Flow, Passing, Stride
from marsjax.rl.quotes import MOST_ORDERS
from marsjax.sim import initial
from marsjax.sim.initial import Warmup


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class NoiseStarts:
    """Books to start from, in which the noise agent has traded alone: what `Noise` reads."""

    starts: Market
    """[S]."""
    time: Time
    """[S], of the starts."""

    @property
    def start_count(self) -> int:
        """S."""
        return int(self.time.s.shape[-1])


class NoiseState(NamedTuple):
    """One noise market in an episode."""

    market: Market
    wake: Time
    """Of the noise agent's next order."""
    number: Array
    """int32, wake-ups so far, which key its draws."""
    time: Time
    """The clock."""
    words: jax.Array
    """Of the episode, uint32 [2]: all draws are folded from it."""


@dataclasses.dataclass(frozen=True)
class Noise:
    """A market of the noise agent, which trades for account 0."""

    market: MarketSpec
    accounts: tuple[int, ...]
    """Of the traders, 1 and later."""
    agent: NoiseSpec
    stride: Stride
    most_orders: int = MOST_ORDERS

    def __post_init__(self) -> None:
        passing.check_accounts("Noise", self.market, self.accounts, 1)

    def starts(self, count: int, seed: int = 0, warmup: Warmup | None = None) -> NoiseStarts:
        """So many books after a warm-up, by default of half an hour; InputError as of `initial.noise`."""
        warmup = warmup or Warmup()
        market, _ = initial.noise(self.market, self.agent, warmup, seed, count)
        time = times.of_ns(warmup.start_ns + warmup.duration_ns)
        return NoiseStarts(market, jax.tree.map(lambda x: jnp.full(count, x), time))

    def begin(self, data: NoiseStarts, key: jax.Array) -> Begun:
        """One of the starts, each as likely as the others; what comes after it is drawn anew."""
        number, own = start_and_words(key, data.start_count)
        market, time = jax.tree.map(lambda x: x[number], (data.starts, data.time))
        seen, resting = passing.seen_of(self.market, self.accounts, market, time)
        first = times.add(time, times.draw_uniform(own[0], 0, self.agent.interval_ns))
        return Begun(NoiseState(market, first, jnp.zeros((), jnp.int32), time, own), seen, resting)

    def renew(self, data: NoiseStarts, key: jax.Array, done: Array, old: Begun) -> Begun:
        """Where `done`, a new start."""
        return where(done, self.begin(data, key), old)

    def step(self, data: NoiseStarts, state: NoiseState, sent: Order) -> Stepped:
        """Sends the traders' orders at the clock's time, then the noise agent goes on."""
        del data
        flow = Flow(state.market, (state.wake, state.number), passing.no_fills(len(self.accounts)))
        flow = passing.send_own(self.market, self.accounts, flow, sent, state.time)
        span = self.stride.span_ns
        until = times.add(state.time, times.of_ns(span)) if span else state.time

        flow = passing.go_on(self.market, self.stride, Passing(self._pass_one, _is_due), (), (until, state.words), flow)
        time = until if span else times.select(times.before(state.time, flow.market.time), flow.market.time, state.time)
        after = state._replace(market=flow.market, wake=flow.cursor[0], number=flow.cursor[1], time=time)
        return passing.stepped(self.market, self.accounts, state.market, flow, (after, time, jnp.zeros((), bool)))

    def _pass_one(self, shared: tuple[()], own: tuple[Time, jax.Array], flow: Flow, happens: Array) -> Flow:
        del shared
        wake, number = flow.cursor
        key = jax.random.fold_in(key_of(own[1]), number)
        plan = noise_agent.act(self.agent, key, flow.market.book.last_price)
        order = make.limit_order(plan.kind, plan.price, plan.volume, account=0, time=wake)
        by_price = ByPrice(plan.kind == Kind.CANCEL, (0, 0), plan.upper_wins)
        after, _ = process(self.market, None, MarketState(flow.market, NOT_MADE, NOT_MADE), order, happens=happens,
                           by_price=by_price)
        fills = passing.counted(self.accounts, flow.market, after.market, flow.fills)
        following = times.select(happens, times.add(wake, plan.sleep), wake)
        return Flow(after.market, (following, number + jnp.asarray(happens).astype(jnp.int32)), fills)


def _is_due(shared: tuple[()], own: tuple[Time, jax.Array], flow: Flow) -> Array:
    """Whether the agent wakes up by the end of the step."""
    del shared
    return ~times.before(own[0], flow.cursor[0])
