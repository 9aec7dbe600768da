"""Order models of several sizes trained on several amounts of orders: what each does on orders that none has seen.

Orders are those that an order model writes, as many as wanted, or those of real days. Of orders that were written the
writer's own loss is known: no model can do better in the mean.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.core.specs import ComputeSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.data.made_days import MadeDay
from marsjax.model import row_head
from marsjax.model.llama import OrderModel
from marsjax.sim.initial import Start, resize
from marsjax.sim.last_token import LastToken
from marsjax.studies import own_futures, places, starts
from marsjax.studies.checks import check_numbers
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.order_model import PreparedModel
from marsjax.tokens import encoding
from marsjax.training import loop, split, structured
from marsjax.training import own_futures as rolls
from marsjax.training.loop import TrainSpec
from marsjax.training.split import Span
from marsjax.training.structured import Structured

_TOGETHER = 32
"""Windows of one compiled evaluation."""
_ROOM = 640
"""Best orders of a side that a made book begins with (`own_futures.best_orders`)."""
_STEP = 128
"""Sizes of books are multiples of it."""
MOST_VALIDATING = 32
"""Futures that decide when a training stops, at most."""
_EARLY = 5
"""Looks up to `ScalingSpec.every`."""


class MadeOrders(NamedTuple):
    """Futures that an order model wrote, F of them, each of T orders; NumPy arrays."""

    rows: np.ndarray
    """int32 [F, W + T, C + 1]: the W tokens that the writer had read, and the T that it wrote. The last column is the
    class that the writer drew for the token; of the first W, which it did not draw here, it is the token's own."""
    given: int
    """W."""
    left_out: int
    """Futures with fewer than T tokens."""
    decisions: int
    """Of all futures, also those that made no token: cancels that found nothing, orders that were refused."""
    tokens: int
    """That these decisions made."""

    def written(self) -> np.ndarray:
        """What was written, int32 [F, T, C + 1], without the tokens before."""
        return self.rows[:, self.given:]


@dataclasses.dataclass(frozen=True)
class MadeOrdersSpec:
    """How many futures are written."""

    futures: int
    orders: int = 1536
    """Tokens that are kept of each, T."""
    more: int = 128
    """Decisions beyond them, since not every decision makes a token of its own."""
    together: int = 2048
    """Futures of one compiled call, at most."""
    first: int = 0
    """Number of the first future: other numbers are other futures of the same states."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, futures=(1, limits.TRAJECTORIES), orders=(1, 10**6), more=(0, 10**6),
                      together=(1, limits.TRAJECTORIES), first=(0, 2**30), seed=(0, limits.SEED))


def made_orders(prepared: PreparedModel, made: Sequence[MadeDay], spec: MadeOrdersSpec) -> MadeOrders:
    """Futures that an order model writes from the starts of days that it has made, in turns.

    Args:
      prepared: the model.
      made: days with one tick, such as those that come with the default model.
      spec: how many.

    InputError where not one future has enough tokens.
    """
    market, states, until_ns = _states(prepared, made, spec)
    simulator = prepared.simulator(market).replace(observers=(LastToken(),), account=ACCOUNT)
    together = math.ceil(spec.futures / math.ceil(spec.futures / spec.together))
    kept: list[np.ndarray] = []
    counts = np.zeros(2, np.int64)
    for at in range(0, spec.futures, together):
        # The last call has as many as the others, so that there is one program; what is too many is left out.
        chosen = (np.arange(together) + at) % len(made)
        number = jnp.arange(together, dtype=jnp.int32) + (spec.first + at)
        futures = rolls.roll(spec.orders + spec.more, simulator, jax.tree.map(lambda x, rows=chosen: x[rows], states),
                             number, jnp.uint32(spec.seed), times.from_ns(until_ns[chosen]))
        given = np.asarray(encoding.to_array(prepared.model.spec.tokens, states.window))[chosen]
        rows, made_tokens = _rows(given, futures, spec.orders, min(together, spec.futures - at))
        kept.append(rows)
        counts += [len(made_tokens) * (spec.orders + spec.more), int(made_tokens.sum())]
    found = np.concatenate(kept)
    if not len(found):
        raise InputError(f"made orders: of {spec.futures} futures none has {spec.orders} tokens: raise "
                         f"MadeOrdersSpec.more above {spec.more}")
    return MadeOrders(found, prepared.model.spec.context_length, spec.futures - len(found), *counts.tolist())


def _states(prepared: PreparedModel, made: Sequence[MadeDay], spec: MadeOrdersSpec
            ) -> tuple[MarketSpec, Start, np.ndarray]:
    """The market of all days, their states [S, ...], and the ends of their sessions, int64 [S] nanoseconds."""
    ticks = {day.feed.venue.tick for day in made}
    if len(ticks) != 1:
        raise InputError(f"made orders: expected days with one tick, got ticks {sorted(ticks)}")
    capacity = math.ceil((_ROOM + spec.orders + spec.more) / _STEP) * _STEP
    found, ends = [], []
    for day in made:
        place = places.in_made_day(prepared, day, places.warm_up_of(day), ACCOUNT + 1)
        (state,) = starts.states_of_feed(place.market, prepared, day.feed, [place.time_ns], on_host=True).starts
        found.append(resize(own_futures.best_orders(state), capacity))
        ends.append(day.feed.venue.session.periods[-1].end_ns)
    market = dataclasses.replace(place.market, capacity=capacity)
    return market, jax.tree.map(lambda *x: np.stack([np.asarray(each) for each in x]), *found), np.array(ends)


def _rows(given: np.ndarray, futures: rolls.Written, orders: int, wanted: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows of `MadeOrders` of the first `wanted` futures that are long enough, and the tokens that each made."""
    made = np.asarray(futures.made)[:wanted]
    whole = made >= orders
    features, drawn = (np.asarray(x[:wanted, :orders])[whole] for x in (futures.features, futures.drawn))
    before = given[:wanted][whole]
    return np.concatenate([np.concatenate([before, before[..., :1]], axis=-1),
                           np.concatenate([features, drawn[..., None]], axis=-1)], axis=1), made


class Amount(NamedTuple):
    """Some orders to train on."""

    training: list[np.ndarray]
    """int32 [M, C + 1] each, stretches that windows never cross."""
    validation: list[Span]
    """Orders that decide when to stop; they are in no stretch to train on."""

    @property
    def orders(self) -> int:
        """To train on."""
        return sum(map(len, self.training))


class Orders(NamedTuple):
    """What is trained on, by its amount, and what is held out of all of it."""

    tokens: TokenSpec
    amounts: list[Amount]
    """The orders to train on of each hold those of the one before it."""
    held_out: list[Span]


def of_made(tokens: TokenSpec, made: MadeOrders, amounts: Sequence[int], held_out: int) -> Orders:
    """Futures as amounts of orders: so many to train on, others that validate, and others that are held out.

    Args:
      tokens: their bins.
      made: the futures.
      amounts: futures to train on, rising; an eighth as many, 32 at most, validate.
      held_out: futures, the last ones.

    InputError where there are too few.
    """
    known, written = len(made.rows) - held_out, made.written()
    found = []
    for count in amounts:
        validating = max(min(count // 8, MOST_VALIDATING), 1)
        if count < 1 or count + validating > known:
            raise InputError(f"scaling: expected amounts of 1 to some {known} futures with those that validate, got "
                             f"{count} with {validating}")
        # From the front to train on, from the back to validate, so that each amount holds those before it.
        found.append(Amount(list(written[:count]), _spans(made, range(known - validating, known))))
    return Orders(tokens, found, _spans(made, range(known, len(made.rows))))


def of_two(tokens: TokenSpec, training: MadeOrders, apart: MadeOrders, amounts: Sequence[int],
           held_out: int) -> Orders:
    """As `of_made`, with futures that are held out and that validate whatever the amounts are.

    Of those `apart` the first ones are held out; MOST_VALIDATING after them validate, from the last one on. InputError
    where there are too few of either.
    """
    kept = held_out + MOST_VALIDATING
    for what, made, least in (("are held out or validate", apart, kept), ("are trained on", training, max(amounts))):
        if len(made.rows) < least:
            raise InputError(f"scaling: expected {least} futures that {what}, got {len(made.rows)}")
    rows = np.concatenate([training.rows, apart.rows[held_out:kept], apart.rows[:held_out]])
    return of_made(tokens, training._replace(rows=rows), amounts, held_out)


def _spans(made: MadeOrders, which: range) -> list[Span]:
    """All that was written in some futures."""
    return [Span(f"future {number}", made.rows[number], made.given, made.rows.shape[1]) for number in which]


@dataclasses.dataclass(frozen=True)
class Labelled:
    """Objective of a structured model on rows of C + 1 columns, int32 [B, T + 1, C + 1]: nats of their last column.

    Nothing is drawn in a step.
    """

    chunk: int = 128
    """Positions whose scores are made at a time, at most."""

    def __call__(self, model: Structured, rows: Array, key: jax.Array | None = None) -> jax.Array:
        """Nats of each next label, float32 [B, T]."""
        rows = jnp.asarray(rows)
        return structured.last_tokens(model, rows[:, :-1, :-1], rows[:, 1:, -1], self.chunk)


@dataclasses.dataclass(frozen=True)
class Size:
    """Sizes of an order model."""

    embed_dim: int
    layers: int
    heads: int
    pair_width: int
    """Coordinates that the rows of pairs see."""

    def spec(self, tokens: TokenSpec, length: int) -> ModelSpec:
        """As sizes of a model, without its head."""
        return ModelSpec(self.embed_dim, self.layers, self.heads, length, tokens)


SIZES = {
    "9k": Size(8, 1, 2, 1),
    "20k": Size(16, 1, 2, 2),
    "50k": Size(32, 1, 4, 4),
    "170k": Size(64, 2, 4, 4),
    "860k": Size(128, 3, 4, 4),
    "3.3M": Size(256, 3, 8, 4),
    "17M": Size(512, 4, 8, 4),
}
"""By about how many numbers they learn. The default model is as `50k`."""


@dataclasses.dataclass(frozen=True)
class ScalingSpec:
    """How every size is trained on every amount."""

    steps: int = 1200
    """At most."""
    batch: int = 64
    """Windows a step."""
    length: int = 256
    """Orders that a window predicts, and that the model sees at most."""
    every: int = 25
    """Steps between two looks at the orders that decide when to stop; up to the first of these there are five."""
    patience: int = 6
    """Looks without a new best after which a training ends."""
    dtype: str = "bfloat16"
    """Of matrix products, in training and when losses are measured: float32 or bfloat16."""
    seed: int = 0

    def __post_init__(self) -> None:
        check_numbers(self, steps=(1, 10**7), batch=(1, 2**16), length=(2, 2**16), every=(1, 10**6),
                      patience=(1, 10**6), seed=(0, limits.SEED))
        ComputeSpec(self.dtype)

    def train(self, size: Size) -> TrainSpec:
        """The rule for all sizes: a learning rate of 5e-3 (32 / width) ** 0.75, 5e-3 at most; everything else alike.

        It rises over a twelfth of the steps; the running average of the weights is what is measured.
        """
        rate = 5e-3 * min(32 / size.embed_dim, 1.0) ** 0.75
        return TrainSpec(self.steps, self.batch, self.length, rate, max(self.steps // 12, 1), 0.1,
                         structured.UNDECAYED, average=0.98)


class Trained(NamedTuple):
    """A size trained on an amount."""

    weights: Structured
    """At the best look."""
    numbers: int
    """That the order model has and that are learnt."""
    step: int
    """Of the best look."""
    steps: int
    """That were taken."""
    validation: float
    """Nats at the best look."""
    seconds: float


def numbers(size: Size, tokens: TokenSpec) -> int:
    """Numbers that an order model of a size learns.

    Those of `structured.expand`, but one row alone of the two tables whose rows are all alike.
    """
    bare = jax.eval_shape(lambda key: structured.init(size.spec(tokens, 2), key, None, size.pair_width),
                          jax.random.key(0))
    head = row_head.shapes(dataclasses.replace(size.spec(tokens, 2), pair_width=size.pair_width))
    return sum(x.size for x in jax.tree.leaves(bare.body)) + sum(map(math.prod, head.values()))


def train(spec: ScalingSpec, size: Size, tokens: TokenSpec, amount: Amount, repeated: int = 1) -> Trained:
    """Trains a size on an amount until the orders that validate are predicted no better.

    Args:
      spec: how.
      size: what.
      tokens: bins.
      amount: the orders.
      repeated: how often they are laid one after the other. No draw is likelier by that; amounts of one length in all
        share a compiled program.

    InputError as of `training.loop.run`.
    """
    began, key = time.perf_counter(), jax.random.key(spec.seed)
    days = [day for day in amount.training if len(day) > spec.length]
    if not days:
        raise InputError(f"scaling: expected stretches of more than {spec.length} orders to train on, got at most "
                         f"{max(map(len, amount.training), default=0)}")
    frequencies = sum((np.bincount(day[:, -1], minlength=tokens.classes) for day in days), np.zeros(tokens.classes))
    fresh = structured.init(size.spec(tokens, spec.length), jax.random.fold_in(key, 0), frequencies, size.pair_width,
                            ComputeSpec(spec.dtype))
    fresh = jax.tree.map(lambda x: x.astype(x.dtype), fresh)  # weak types would have the step compiled twice
    how, objective = spec.train(size), Labelled(math.gcd(128, spec.length))
    measured = _Measured(objective, amount.validation, spec.length)
    best, step, lowest, taken = fresh, 0, math.inf, 0
    part = max(spec.every // _EARLY, 1)
    for progress, _ in loop.run(how, objective, loop.begin(how, fresh), days * repeated, jax.random.fold_in(key, 1),
                                part):
        taken = int(progress.step)
        if spec.every < taken < spec.steps and taken % spec.every >= part:
            continue
        now = measured(progress.average)
        if now < lowest:
            best, step, lowest = jax.tree.map(jnp.copy, progress.average), taken, now
        elif taken - step >= spec.patience * spec.every:
            break
    return Trained(best, numbers(size, tokens), step, taken, lowest, time.perf_counter() - began)


def held_out(spec: ScalingSpec, weights: Structured, orders: Orders) -> np.ndarray:
    """Mean nats of each stretch held out, float64 [S]; contexts are half a window and more."""
    return _Measured(Labelled(math.gcd(128, spec.length)), orders.held_out, spec.length).of_spans(weights)


def floor(model: OrderModel, orders: Orders, length: int, dtype: str = "float32") -> np.ndarray:
    """Mean nats of each stretch held out by the model that wrote them, float64 [S], in contexts of up to `length`.

    With its own `ModelSpec.context_length` it is the least that any model can have in the mean, but for the decisions
    that made no token and for contexts of half of it and more where the model had all of it.
    """
    own = structured.of_model(model.replace(compute=ComputeSpec(dtype)))
    return _Measured(Labelled(math.gcd(128, length)), orders.held_out, length).of_spans(own)


class _Measured:
    """Nats of the orders of spans, window by window."""

    def __init__(self, objective: Labelled, spans: Sequence[Span], length: int) -> None:
        stride = max(length // 2, 1)
        chosen = split.windows(spans, length, stride)
        self._objective, self._count = objective, np.array([span.count for span in spans])
        self._owner = np.repeat(np.arange(len(spans)), -(-self._count // stride))
        pad = -len(chosen.scored) % _TOGETHER
        self._parts = [(jnp.asarray(features), jnp.asarray(scored)) for features, scored in zip(
            *(np.split(np.pad(x, ((0, pad), *[(0, 0)] * (x.ndim - 1))), (len(x) + pad) // _TOGETHER)
              for x in (np.asarray(chosen.features), chosen.scored)), strict=True)]

    def of_spans(self, weights: Structured) -> np.ndarray:
        """Mean nats of each span, float64 [S]."""
        sums = np.concatenate([_window_sums(self._objective, weights, *part) for part in self._parts])
        return np.bincount(self._owner, sums[: len(self._owner)].astype(np.float64)) / self._count

    def __call__(self, weights: Structured) -> float:
        """Mean nats of all orders."""
        return float(np.average(self.of_spans(weights), weights=self._count))


@functools.partial(jax.jit, static_argnums=0)
def _window_sums(objective: Labelled, weights: Structured, rows: jax.Array, scored: jax.Array) -> jax.Array:
    """Nats of the scored predictions of each window, float32 [B]."""
    return jnp.sum(jnp.where(scored, objective(weights, rows, None), 0.0), axis=1)
