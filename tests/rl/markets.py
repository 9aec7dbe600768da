"""Small markets for the tests of environments, made once for all of them."""

import functools

import numpy as np

from marsjax import testing
from marsjax.core.records import Order
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed, FeedChunk, Venue
from marsjax.market import orders
from marsjax.rl.env import MarketEnv
from marsjax.rl.execution import Execution
from marsjax.rl.market_making import MarketMaking
from marsjax.rl.named import make
from marsjax.rl.passing import Stride
from marsjax.sim.initial import Warmup

BEGIN_NS, END_NS = 36_000 * SECOND_NS, 36_300 * SECOND_NS
"""Of the first start, and of the last message."""
STEPS = 8
TASK = Execution(target=1_500, lot=100, drift_weight=0.5)
SPEC = MarketSpec(capacity=64, trade_width=16, accounts=2, session=continuous_session(0))

WARMUP = Warmup(duration_ns=300 * SECOND_NS, steps_per_call=64)


def messages(count: int = 240, seed: int = 3) -> Order:
    """Limit orders around a mid that wanders, and cancels of a third of them, in part or whole; ids as they come."""
    random = np.random.default_rng(seed)
    time_ns = np.sort(random.integers(BEGIN_NS - 120 * SECOND_NS, END_NS, count))
    kind = random.integers(0, 2, count)
    away = random.integers(-1, 5, count) * 100
    mid = 100_000 + 100 * np.cumsum(random.integers(-1, 2, count)) // 4
    price = (mid + np.where(kind == 0, away, -away)) // 100 * 100
    volume = random.integers(1, 6, count) * 100
    number = np.arange(count)
    none = np.full(count, -1)
    cancels, side = none.copy(), none.copy()
    for i in range(20, count, 3):
        target = int(random.integers(i - 19, i))
        if kind[target] < 2:
            kind[i], cancels[i], side[i] = 2, target, kind[target]
            volume[i] = volume[target] if i % 2 else 100
    return orders.from_columns(time_ns, kind, price, volume, number, side, cancels, none * 0)


def feed() -> DayFeed:
    """The messages as a day."""
    venue = Venue(session=SPEC.session, capacity=64, trade_width=16)
    return DayFeed("MADE", "20260105", lambda: iter([FeedChunk.of(messages())]), venue)


@functools.cache
def replay_env(span_ns: int = 0) -> MarketEnv:
    stride = Stride(0, span_ns) if span_ns else Stride(5)
    return make(TASK, background="replay", steps=STEPS, feed=feed(), between_ns=(BEGIN_NS, END_NS), starts=4,
                stride=stride)[0]


@functools.cache
def noise_env(span_ns: int = 0) -> MarketEnv:
    stride = Stride(0, span_ns) if span_ns else Stride(5)
    return make(TASK, background="noise", steps=STEPS, starts=3, stride=stride, market=SPEC,
                warmup=WARMUP)[0]


@functools.cache
def model_env() -> MarketEnv:
    model, spec = testing.tiny_model(), testing.tiny_market(accounts=3)
    starts = [testing.random_start(spec, model, BEGIN_NS, seed) for seed in range(3)]
    return make(TASK, background="model", steps=4, model=model, market=spec, starts=starts)[0]


ENVS = {"replay": replay_env, "noise": noise_env, "model": model_env}

MAKING = MarketMaking(lot=100, most_lots=4, inventory_penalty=0.02, fee_bp=0.5)


@functools.cache
def making_replay() -> MarketEnv:
    return make(MAKING, background="replay", steps=STEPS, feed=feed(), between_ns=(BEGIN_NS, END_NS), starts=4,
                stride=Stride(5))[0]


@functools.cache
def making_noise() -> MarketEnv:
    return make(MAKING, background="noise", steps=STEPS, starts=3, stride=Stride(5), market=SPEC, warmup=WARMUP)[0]


@functools.cache
def making_model() -> MarketEnv:
    model, spec = testing.tiny_model(), testing.tiny_market(accounts=3)
    starts = [testing.random_start(spec, model, BEGIN_NS, seed) for seed in range(3)]
    return make(MAKING, background="model", steps=4, model=model, market=spec, starts=starts)[0]


MAKERS = {"replay": making_replay, "noise": making_noise, "model": making_model}
