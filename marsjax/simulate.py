"""The step and the rollout: model, sample, planned order, exchange, token, all in one jitted call.

One step is one decision of the background agent in every trajectory: predict from the tokens so far, sample the next
order, send it at its time, make its token. Clocks differ between trajectories; one whose next order would come after
the end has ended and is masked. Every draw is keyed by (seed, trajectory, step), so that a trajectory comes out the
same alone, in any batch and in any chunks.
"""

import dataclasses
import enum
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax import book as books
from marsjax import clock, decode, exchange, sampling, tokens
from marsjax.agents import background, cancels
from marsjax.model import Params
from marsjax.specs import CacheSpec, MarketSpec, ModelSpec
from marsjax.start import Start
from marsjax.tokens import DrawTables, TokenState, TokenTables
from marsjax.types import NO_ID, Array, BookView, Kind, Market, Order, Report, Time, Trades

NO_TOKEN = -1
"""Stands for a token that is yet to be sampled."""


class End(enum.IntEnum):
    """Why a trajectory goes on or has ended."""

    RUNNING = 0
    TIME = 1
    """The next order would come after the end."""
    NO_MID = 2
    """Nothing rests and nothing ever traded: there is no price to decide around."""
    NOT_FINITE = 3
    """The model gave a logit that is no number."""


@dataclasses.dataclass(frozen=True)
class SimulationSpec:
    """What a rollout is made of; hashable, the static argument of its compiled calls."""

    market: MarketSpec
    model: ModelSpec
    cache: CacheSpec
    end_ns: int
    """No order is sent after it, nanoseconds since midnight."""
    owner: int = 1
    """The background agent's account."""
    owns_below: int = 2
    """Resting orders of accounts 0 to owns_below - 1 are the background agent's to cancel (its own, the noise's)."""
    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not 0 <= self.owner < self.market.owners:
            raise ValueError(f"SimulationSpec.owner: expected 0 to {self.market.owners - 1} (MarketSpec.owners), "
                             f"got {self.owner}")
        if not self.temperature > 0:
            raise ValueError(f"SimulationSpec.temperature: expected a number above 0, got {self.temperature}")
        if self.end_ns < 0:
            raise ValueError(f"SimulationSpec.end_ns: expected at least 0, got {self.end_ns}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Simulation:
    """The state of B trajectories."""

    market: Market
    token_state: TokenState
    cache: decode.State
    time: Time
    """[B], of the next decision."""
    step: Array
    """[], decisions so far, the same for all."""
    trajectory: Array
    """[B], numbers that the draws are keyed by."""
    end: Array
    """[B], an `End`."""


class Draws(NamedTuple):
    """The random words of one decision, uint32; [B, ...]."""

    token: Array
    """[B, 2]."""
    values: Array
    """[B, 3], price, volume and interval within their bins."""
    tie: Array
    """[B], the last bit decides between two prices to cancel at."""
    given_token: Array
    """int32 [B], a token that is not to be sampled, else NO_TOKEN."""


class Decision(NamedTuple):
    """What one step did, [B, ...]: for traces and tests."""

    active: Array
    """bool, the trajectory decided; the rest has no meaning where it did not."""
    time: Time
    mid_price: Array
    token: Array
    planned: Order
    """With the time of its submission."""
    sent: Array
    """bool, it was not after the end."""
    order: Report
    """Of a limit order."""
    cancelled: Report
    """Of a cancel, [B, 2, ...]: the cancels of each side."""
    view: BookView
    """After it."""
    encoded: tokens.Encoded
    """The token that it made."""


def begin(params: Params, spec: SimulationSpec, start: Start, trajectory: Array) -> Simulation:
    """B trajectories from starts [B, ...]; `trajectory`, int32 [B], keys their draws.

    ValueError if the window is longer than the model's.
    """
    cache = decode.start(params, spec.model, spec.cache, start.window, start.count)
    return Simulation(start.market, start.token_state, cache, start.time, jnp.zeros((), jnp.int32),
                      jnp.asarray(trajectory, jnp.int32), jnp.full(start.count.shape, End.RUNNING, jnp.int32))


def draw(seed: Array, trajectory: Array, step: Array) -> Draws:
    """The draws of one decision of trajectories [B]: six words from fold_in(fold_in(key(seed), trajectory), step)."""
    def words(number: Array) -> jax.Array:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number)
        return jax.random.bits(jax.random.fold_in(key, step), (6,), jnp.uint32)

    bits = jax.vmap(words)(trajectory)
    return Draws(bits[:, :2], bits[:, 2:5], bits[:, 5], jnp.full(trajectory.shape, NO_TOKEN, jnp.int32))


def step(params: Params, spec: SimulationSpec, table: TokenTables, draws: DrawTables, state: Simulation,
         words: Draws) -> tuple[Simulation, Decision]:
    """One decision of every trajectory.

    Args:
      params: of the order model.
      spec: sizes.
      table: bins to encode with.
      draws: bins to draw with.
      state: before.
      words: random words of this step, or given tokens.
    """
    hidden = decode.predict(params, spec.model, spec.cache, state.cache)
    logits = decode.logits(params, spec.cache, hidden)
    finite = jnp.all(jnp.isfinite(logits), axis=-1)
    sampled = sampling.sample(jnp.where(finite[:, None], logits, 0.0), words.token,
                              jnp.full(finite.shape, spec.temperature, jnp.float32))
    token = jnp.where(words.given_token == NO_TOKEN, sampled, words.given_token)

    running = state.end == End.RUNNING
    end = jnp.where(running & ~finite, jnp.int32(End.NOT_FINITE), state.end)
    handle = functools.partial(_handle, spec, table, draws)
    outcome, decision = jax.vmap(handle)(state.market, state.token_state, state.time, end, token, words)
    cache = decode.append_all(
        params, spec.model, spec.cache, state.cache, jax.tree.map(lambda x: x[:, None], outcome.encoded.token),
        (outcome.encoded.is_new | outcome.encoded.replaces).astype(jnp.int32), outcome.encoded.replaces,
        state.step + 1)
    return Simulation(outcome.market, outcome.token_state, cache, outcome.time, state.step + 1, state.trajectory,
                      outcome.end), decision


class _Outcome(NamedTuple):
    market: Market
    token_state: TokenState
    time: Time
    end: Array
    encoded: tokens.Encoded


def _handle(spec: SimulationSpec, table: TokenTables, draws: DrawTables, market: Market, token_state: TokenState,
            now: Time, end: Array, token: Array, words: Draws) -> tuple[_Outcome, Decision]:
    """Plans, sends and encodes one trajectory's order."""
    before = books.view(spec.market, market.book)
    plan = tokens.draw_plan(spec.model.tokens, draws, token, words.values)
    planned = background.planned_order(plan, before.mid_price, now, spec.owner)
    end = jnp.where((end == End.RUNNING) & ~before.has_mid, jnp.int32(End.NO_MID), end)
    active = end == End.RUNNING
    late = clock.before(clock.static_time(spec.end_ns), planned.time)
    sent = active & ~late
    end = jnp.where(active & late, jnp.int32(End.TIME), end)

    takes_back = sent & background.is_cancel(planned)
    limit = dataclasses.replace(planned, kind=jnp.where(sent & ~takes_back, planned.kind, jnp.int32(Kind.NONE)))
    after, report = exchange.submit(spec.market, market, limit)
    own = (market.book.owner >= 0) & (market.book.owner < spec.owns_below)
    take = cancels.nearest(market.book, own, planned.price, planned.volume, (words.tie & 1) == 1)
    after, cancelled = exchange.cancel_many(spec.market, after, jnp.where(takes_back, take, 0), planned.time)
    view = books.view(spec.market, after.book)

    order, trades, counts = _as_one_order(planned, takes_back, report, cancelled)
    token_state, encoded = tokens.encode(spec.market, table, token_state, order, trades, before, view, sent & counts)
    time = clock.select_time(sent, planned.time, now)
    decision = Decision(active, now, before.mid_price, token, planned, sent, report, cancelled, view,
                        encoded)
    return _Outcome(after, token_state, time, end, encoded), decision


def _as_one_order(planned: Order, takes_back: Array, report: Report, cancelled: Report) -> tuple[Order, Trades, Array]:
    """What the tokens are made of: the limit order, or all cancels of one decision, which they merge into one."""
    side = jnp.argmax(cancelled.trades.count).astype(jnp.int32)
    taken = jax.tree.map(lambda x: x[side], cancelled.trades)
    trades = jax.tree.map(lambda c, o: jnp.where(takes_back, c, o), taken, report.trades)
    order = dataclasses.replace(
        planned, volume=jnp.where(takes_back, clock.to_int32(taken.volume), planned.volume),
        order_id=jnp.full_like(planned.kind, NO_ID))
    accepted = jnp.where(takes_back, taken.count > 0, report.status == 0)
    return order, trades, accepted
