"""An order model taught by its own futures: from real states it should do in the mean what really came.

Cross-entropy makes each next order right where real orders came before it. A model's own orders lead elsewhere, and
small errors add up: spreads narrow, books grow, prices go on where they went. Here futures are rolled out from many
real states; what they have in the mean (`training.statistics`) is compared with what came, by market and by what was
there before; and the model is moved to close the gaps, by the likelihood-ratio gradient:

    gap[m, j, k] = mean over futures of market m of history[j] (statistic[k] - its real mean) / spread[m, k]
    loss = 1/2 sum of gap**2;  gradient = - mean of sum over orders t of G[t] grad log p(order t),
    G[t] = sum over u >= t of discount**(u - t) r[u],  r[u] = - sum over j, k of gap[m, j, k] history[j] statistic[k, u]
           / spread[m, k],  less the mean of the futures of the same start at the same order.

The gap is a running mean over rounds; there are two discounts, for quick and for slow statistics; G is divided by its
standard deviation in the first three rounds, and cut at 5 of them. Decisions that made no token are left out. An update
is of the last orders of windows whose ends are drawn evenly, so that the first and last orders of a future count less.
The ordinary loss on real orders is a part of each step. Only tokens with signals and structured models.

An update reads windows, with nothing before them. Of softmax attention of one layer that is the law that drew the
orders, but for rounding. A model with linear attention drew them with a memory of all orders since the start, those of
the start's window included: the law whose gradient is taken is then that of the window alone, near the law that drew,
not equal to it. No correction is made for that.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Time
from marsjax.model.layers import FLOAT32
from marsjax.model.llama import OrderModel
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import SimState
from marsjax.tokens import encoding
from marsjax.training import gaps, loop, statistics, structured
from marsjax.training.gaps import Targets
from marsjax.training.loss import Factored
from marsjax.training.structured import Structured

_DISCOUNT, _SLOW_DISCOUNT = 0.98, 0.997
"""An order later, of what an order does: of quick statistics and of slow ones."""
_KEPT_GAP = 0.7
"""Share of the running mean of the gaps that a round keeps."""
_MOST_ADVANTAGE = 5.0
"""Standard deviations; larger ones are cut."""
_ROWS = 16
"""Windows whose gradient is made at a time."""


@dataclasses.dataclass(frozen=True)
class FuturesTraining:
    """How far, and how many futures."""

    rounds: int = 200
    """Of rollouts, each with so many `updates`; 0: none."""
    starts: int = 48
    """Of a round, shared out evenly among the markets, at least one of each."""
    trajectories: int = 16
    """Of each start."""
    orders: int = 1024
    """Of each future; also of what really came."""
    updates: int = 3
    """Steps of a round, among which its futures are shared out."""
    scored: int = 256
    """Last orders of a window that an update's gradient is of; fewer where a window or a future is shorter."""
    weight: float = 3.0
    """Of the gradient of the gaps, of which the first rounds' advantages have a standard deviation of 1."""
    rate: float = 1e-3
    """Largest learning rate; it rises over 10 steps and falls to 0 along half a cosine."""
    windows: int = 16
    """Of real orders in an update."""
    average: float = 0.98
    """Share of the running average of the weights that an update keeps."""
    seed: int = 0

    def __post_init__(self) -> None:
        limits.check_whole("FuturesTraining.seed", self.seed, 0, limits.SEED)
        for name in ("rounds", "starts", "trajectories", "orders", "updates", "scored", "windows"):
            limits.check_whole(f"FuturesTraining.{name}", getattr(self, name), 0 if name == "rounds" else 1, 10**6)
        if self.trajectories < 2:
            raise InputError(f"FuturesTraining.trajectories: expected at least 2, got {self.trajectories}")
        if self.updates > self.starts * self.trajectories:
            raise InputError(f"FuturesTraining.updates: expected at most one a future, got {self.updates} for "
                             f"{self.starts} x {self.trajectories}")
        for name, low, high in (("rate", 0, 1), ("weight", 0, 1000), ("average", 0, 0.9999)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"FuturesTraining.{name}: expected {low} to {high}, got {getattr(self, name)}")


class Written(NamedTuple):
    """What B trajectories wrote, N orders at most; on the device."""

    features: Array
    """int32 [B, N, C], tokens, in sequence from the front."""
    drawn: Array
    """int32 [B, N], the classes that were drawn for them."""
    made: Array
    """int32 [B]; what comes behind so many has no meaning."""


@functools.partial(jax.jit, static_argnums=0)
def roll(orders: int, simulator: Simulator, starts: Start, trajectory: Array, seed: Array, until: Time) -> Written:
    """Futures of starts [B, ...], by a simulator whose last observer is `sim.last_token.LastToken`.

    So many decisions each, none after `until`, [B]. Of those that make no token of their own a refused order is left
    out, and the token of a merged cancel takes the place of the one before it, as in the contexts.
    """
    spec = simulator.model.spec.tokens
    state = sim_step.begin(simulator, starts, trajectory, (), until)
    simulator = simulator.prepared()

    def one(state: SimState, _: None) -> tuple[SimState, tuple[Array, ...]]:
        words = sim_step.draw(seed, state.trajectory, state.step)
        state, decision = sim_step.step(simulator, state, words)
        newest = state.observed[-1]
        return state, (encoding.to_array(spec, newest.token), decision.token, newest.made & decision.sent,
                       newest.replaces & decision.sent)

    _, parts = jax.lax.scan(one, state, None, length=orders)
    return _in_places(*(jnp.moveaxis(x, 0, 1) for x in parts))


def _in_places(features: jax.Array, drawn: jax.Array, made: jax.Array, replaces: jax.Array) -> Written:
    """The tokens [B, N, C] of decisions, the classes drawn [B, N], and whether each made one or replaced the last.

    A place has the features of the last decision for it and the class of the one that made it; what would replace a
    token from before the first decision is left out.
    """
    batch, orders = made.shape
    place = jnp.cumsum(made, axis=1, dtype=jnp.int32) - 1
    number = jnp.broadcast_to(jnp.arange(orders, dtype=jnp.int32), made.shape)

    def last(counts: jax.Array) -> jax.Array:
        """The last decision that counts at each place, [B, N]."""
        to = jnp.where(counts & (place >= 0), place, orders)
        return jnp.zeros_like(number).at[jnp.arange(batch)[:, None], to].max(number, mode="drop")

    return Written(jnp.take_along_axis(features, last(made | replaces)[..., None], axis=1),
                   jnp.take_along_axis(drawn, last(made), axis=1), jnp.sum(made, axis=1, dtype=jnp.int32))


@jax.jit
def returns(values: Array, count: Array, pull: Array) -> jax.Array:
    """G above, before the mean is taken off, float32 [B, N].

    Args:
      values: statistics, float32 [B, N, K].
      count: [B], orders of each.
      pull: [B, K], by which each is to be made less.
    """
    values = jnp.asarray(values)
    used = jnp.arange(values.shape[1]) < jnp.asarray(count)[:, None]
    parts = -values * jnp.asarray(pull)[:, None]
    is_slow = jnp.array(statistics.SLOW)
    quick, slow = (jnp.where(used, jnp.sum(parts * chosen, axis=-1), 0) for chosen in (~is_slow, is_slow))

    def back(carry: tuple[jax.Array, jax.Array], x: tuple[jax.Array, jax.Array]) -> tuple[Any, jax.Array]:
        carry = x[0] + _DISCOUNT * carry[0], x[1] + _SLOW_DISCOUNT * carry[1]
        return carry, carry[0] + carry[1]

    zero = jnp.zeros(values.shape[0])
    _, found = jax.lax.scan(back, (zero, zero), (quick.T, slow.T), reverse=True)
    return jnp.asarray(found.T)


def advantages(found: np.ndarray, count: np.ndarray, trajectories: int) -> np.ndarray:
    """`returns` [B, N] less the mean of the futures of the same start at the same order; 0 behind a future's end."""
    used = (np.arange(found.shape[1]) < count[:, None]).reshape(-1, trajectories, found.shape[1])
    own = found.reshape(used.shape)
    mean = (own * used).sum(axis=1, keepdims=True) / np.maximum(used.sum(axis=1, keepdims=True), 1)
    return np.asarray(((own - mean) * used).reshape(found.shape))


class _Learner(NamedTuple):
    weights: Structured
    average: Structured
    optimizer: optax.OptState


class _Round(NamedTuple):
    """Futures of starts, and what they are worth."""

    chosen: np.ndarray
    """int [B], their starts."""
    whole: jax.Array
    """int32 [B, W + N, C], with the tokens before."""
    drawn: jax.Array
    """int32 [B, N]."""
    orders: np.ndarray
    """int [B], of each that count."""
    values: jax.Array
    """[B, N, K], statistics."""


def train(training: FuturesTraining, simulator: Simulator, objective: Factored, weights: Structured, of: Targets,
          days: Sequence[np.ndarray]) -> Iterator[tuple[Structured, dict[str, float]]]:
    """Round after round: the averaged weights, whose arrays are given away at the next, and what the round had.

    Args:
      training: how much.
      simulator: market, bins and the observer `LastToken` as the last; its model is exchanged for the one that learns.
      objective: of real orders.
      weights: to start from; they say how gradients are computed. Futures are rolled out in float32.
      of: real states, and what came.
      days: int32 [M, C] each, real tokens.

    A row has the round, the mean squares of the running mean of the gaps under the first column of the history (`gap`)
    and of all that are compared (`gaps`), `loss` (nats of real orders, with what the objective adds) and `orders` (of
    the round). InputError at a loss or at weights that are no numbers.
    """
    training = dataclasses.replace(training, scored=min(training.scored, training.orders, of.windows.shape[1]))
    rng, key = np.random.default_rng(training.seed), jax.random.key(training.seed)
    real = jnp.asarray(np.concatenate(days)), jnp.asarray(
        loop.first_tokens(of.windows.shape[1], days), jnp.int32)
    own_copy = functools.partial(jax.tree.map, jnp.copy, weights)  # an update gives its arrays away
    learner = _Learner(own_copy(), own_copy(), _optimizer(training).init(weights))
    smooth: np.ndarray | None = None
    sizes: list[float] = []
    for number in range(training.rounds):
        chosen = np.repeat(_some(rng, of.market, training.starts), training.trajectories)
        made = _rolled(training, simulator, learner.weights, of, chosen, number)
        found = gaps.gaps(of, chosen, statistics.means(made.values, made.orders), made.orders)
        smooth = found if smooth is None else _KEPT_GAP * smooth + (1 - _KEPT_GAP) * found
        gained = _gained(training, of, made, smooth)
        sizes = [*sizes, float(gained.std()) + 1e-9][:3]
        losses = []
        for place, part in enumerate(np.array_split(rng.permutation(len(chosen)), training.updates)):
            own = jax.random.fold_in(jax.random.fold_in(key, number), place)
            last = rng.integers(training.scored, training.orders + 1, len(part))
            batch = _batch(training, made, gained / np.mean(sizes), part, last)
            learner, loss = _update(training, objective, learner, real, batch, own)
            losses.append(float(loss))
        if not np.isfinite([*losses, float(optax.global_norm(learner.weights))]).all():
            raise InputError(f"own futures: round {number + 1} made numbers that are not finite; lower the rate "
                             f"({training.rate}) or the weight ({training.weight})")
        yield learner.average, {"round": number + 1, "gap": float((smooth[:, 0]**2).mean()),
                                "gaps": float((smooth[:, statistics.matters()]**2).mean()),
                                "loss": float(np.mean(losses)), "orders": int(made.orders.sum())}


def _some(rng: np.random.Generator, market: np.ndarray, starts: int) -> np.ndarray:
    """Starts drawn anew, as many of each market."""
    each = [np.flatnonzero(market == name) for name in np.unique(market)]
    share = max(starts // len(each), 1)
    return np.concatenate([rng.choice(own, share, replace=len(own) < share) for own in each])


def _rolled(training: FuturesTraining, simulator: Simulator, weights: Structured, of: Targets, chosen: np.ndarray,
            number: int) -> _Round:
    """The futures of a round; trajectories are numbered through all rounds."""
    spec, batch = simulator.model.spec.tokens, len(chosen)
    own = dataclasses.replace(simulator, model=_expanded(weights))
    starts = jax.tree.map(lambda x: x[chosen], of.starts)
    futures = roll(training.orders, own, starts, jnp.arange(batch, dtype=jnp.int32) + number * batch,
                   np.uint32(training.seed), times.from_ns(of.until_ns[chosen]))
    whole = jnp.concatenate([jnp.asarray(of.windows[chosen]), futures.features], axis=1)
    return _Round(chosen, whole, jnp.asarray(futures.drawn), np.minimum(np.asarray(futures.made), of.came[chosen]),
                  _values(spec, of.windows.shape[1], whole))


@jax.jit
def _expanded(weights: Structured) -> OrderModel:
    return structured.expand(dataclasses.replace(weights, body=weights.body.replace(compute=FLOAT32)))


_values = jax.jit(lambda spec, given, features: statistics.of_tokens(spec, features, given), static_argnums=(0, 1))


def _gained(training: FuturesTraining, of: Targets, made: _Round, gap: np.ndarray) -> np.ndarray:
    """Advantages [B, N] of the orders of a round, without the largest."""
    market = of.market[made.chosen]
    pull = np.einsum("bj,bjk->bk", of.history[made.chosen], gap[market]) / of.spread[market]
    found = np.asarray(returns(made.values, made.orders, jnp.asarray(pull, jnp.float32)))
    found = advantages(found, made.orders, training.trajectories)
    most = _MOST_ADVANTAGE * float(found.std())
    return np.clip(found, -most, most)


def _batch(training: FuturesTraining, made: _Round, gained: np.ndarray, part: np.ndarray, last: np.ndarray
           ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Windows of futures `part`, whose scored orders end before order `last` [b]: what an update's gradient is of.

    Tokens [b, W, C], the last one of order `last` - 2, and of the orders after the last so many of them, [b, scored],
    the classes drawn and the advantages.
    """
    length = made.whole.shape[1] - training.orders
    scored = last[:, None] - training.scored + np.arange(training.scored)
    given = made.whole[part[:, None], last[:, None] - 1 + np.arange(length)]
    worth = np.take_along_axis(gained[part], scored, axis=1)
    return given, made.drawn[part[:, None], scored], jnp.asarray(worth, jnp.float32)


def _optimizer(training: FuturesTraining) -> optax.GradientTransformation:
    steps = training.rounds * training.updates
    rate = optax.warmup_cosine_decay_schedule(0.0, training.rate, min(10, steps), steps + 1)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate, b2=0.99))


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=2)
def _update(training: FuturesTraining, objective: Factored, learner: _Learner, real: tuple[jax.Array, jax.Array],
            batch: tuple[jax.Array, ...], key: jax.Array) -> tuple[_Learner, jax.Array]:
    """One step on real windows and on windows of futures."""
    flat, firsts = real
    drawing, dropping = jax.random.split(key)
    length = batch[0].shape[1]
    first = jax.random.choice(drawing, firsts, (training.windows, 1))
    windows = flat[first + jnp.arange(length + 1)]

    def of_real(weights: Structured) -> jax.Array:
        return jnp.mean(objective(weights, windows, dropping))

    def of_futures(weights: Structured) -> jax.Array:
        def some(x: tuple[jax.Array, ...]) -> jax.Array:
            given, drawn, worth = x
            return jnp.sum(structured.last_tokens(weights, given, drawn) * worth)

        rows = math.gcd(_ROWS, batch[0].shape[0])
        parts = jax.tree.map(lambda x: x.reshape(-1, rows, *x.shape[1:]), batch)
        return jnp.sum(jax.lax.map(jax.checkpoint(some), parts)) / batch[1].size

    loss, gradient = jax.value_and_grad(of_real)(learner.weights)
    toward = jax.grad(of_futures)(learner.weights)
    gradient = jax.tree.map(lambda a, b: a + training.weight * b, gradient, toward)
    updates, state = _optimizer(training).update(gradient, learner.optimizer, learner.weights)
    weights = optax.apply_updates(learner.weights, updates)
    average = optax.incremental_update(weights, learner.average, 1 - training.average)
    return _Learner(weights, average, state), loss
