"""Order models of several sizes trained on several amounts of orders: what each does on orders that none was trained on.

Orders are those that an order model writes, as many as wanted, or those of real days. Of orders that were written the
writer's own loss is known: no model can do better in the mean.
"""

import dataclasses
import functools
import math
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.core.specs import ComputeSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.data.feed import DayFeed
from marsjax.data.made_days import MadeDay
from marsjax.model.layers import FLOAT32
from marsjax.model.llama import OrderModel
from marsjax.sim.initial import Start, resize
from marsjax.sim.last_token import LastToken
from marsjax.studies import own_futures, places, starts
from marsjax.studies.checks import check_numbers
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.order_model import PreparedModel
from marsjax.tokens import encoding
from marsjax.training import days as training_days
from marsjax.training import loop, split, structured
from marsjax.training import own_futures as rolls
from marsjax.training.loop import TrainSpec
from marsjax.training.prepare import Prepared
from marsjax.training.split import Span
from marsjax.training.structured import Structured

_TOGETHER = 32
"""Windows of one compiled evaluation."""
_ROOM = 640
"""Best orders of a side that a made book begins with."""


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
class MakingSpec:
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


def made_orders(prepared: PreparedModel, made: Sequence[MadeDay], spec: MakingSpec) -> MadeOrders:
    """Futures that an order model writes from the starts of days that it has made, in turns.

    Args:
      prepared: the model.
      made: days with one tick, such as those that come with the default model.
      spec: how many.

    InputError where not one future has enough tokens.
    """
    market, states, until_ns = _states(prepared, made, spec)
    simulator = prepared.simulator(market).replace(observers=(LastToken(),), account=ACCOUNT)
    together = min(spec.together, spec.futures)
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
        raise InputError(f"made orders: of {spec.futures} futures none has {spec.orders} tokens: raise MakingSpec.more "
                         f"above {spec.more}")
    return MadeOrders(found, prepared.model.spec.context_length, spec.futures - len(found), *counts.tolist())


def _states(prepared: PreparedModel, made: Sequence[MadeDay], spec: MakingSpec) -> tuple[MarketSpec, Start, np.ndarray]:
    """The market of all days, their states [S, ...], and the ends of their sessions, int64 [S] nanoseconds."""
    ticks = {day.feed.venue.tick for day in made}
    if len(ticks) != 1:
        raise InputError(f"made orders: expected days with one tick, got ticks {sorted(ticks)}")
    capacity = _ROOM + spec.orders + spec.more
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
