"""Orders to start from, those of feeds and of the noise agent, and the states that they lead to."""

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from marsjax.agents.noise import NoiseSpec
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Order
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.sim import initial
from marsjax.sim.initial import Passed, Start, Warmup
from marsjax.sim.refusals import Refusals
from marsjax.studies.order_model import PreparedModel


@dataclasses.dataclass(frozen=True)
class NoiseMarket:
    """The noise agent alone: what it draws from, when it trades, and its seed."""

    agent: NoiseSpec = dataclasses.field(default_factory=NoiseSpec)
    warmup: Warmup = dataclasses.field(default_factory=Warmup)
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= limits.SEED:
            raise InputError(f"NoiseMarket.seed: expected seed of 0 to {limits.SEED}, got {self.seed}")

    @property
    def end_ns(self) -> int:
        """When it ends, nanoseconds since midnight."""
        return self.warmup.start_ns + self.warmup.duration_ns


def noise_agent(init_price: int, interval_s: float) -> NoiseSpec:
    """The noise agent around a price (1e-4 of the currency), with a mean time between two wake-ups."""
    if not math.isfinite(interval_s):
        raise InputError(f"NoiseSpec.interval_ns: expected a finite time, got {interval_s} s")
    return NoiseSpec(init_price=init_price, interval_ns=round(interval_s * SECOND_NS))


def noise_orders(market: MarketSpec, noise: NoiseMarket, count: int = 1) -> list[Order]:
    """What the agent sends in each of `count` markets, Order [N] of NumPy arrays each."""
    return initial.noise(market, noise.agent, noise.warmup, noise.seed, count)[1]


def feed_of(name: str, orders: Order) -> DayFeed:
    """Orders [N] of NumPy arrays as a feed of one chunk."""
    return DayFeed(name, "", lambda: iter([FeedChunk.of(orders)]))


def noise_feeds(market: MarketSpec, noise: NoiseMarket, count: int, on_host: bool = False) -> list[DayFeed]:
    """`noise_orders` as feeds, one a market; `on_host` as in `states_of_feed`."""
    with host_device() if on_host else contextlib.nullcontext():
        sent = noise_orders(market, noise, count)
    return [feed_of(f"noise_{number}", orders) for number, orders in enumerate(sent)]


def noise_starts(market: MarketSpec, noise: NoiseMarket, prepared: PreparedModel, count: int) -> list[Start]:
    """The states of `count` markets at the end of the agent's time."""
    return [start_after(market, prepared, sent, noise.end_ns) for sent in noise_orders(market, noise, count)]


def start_after(market: MarketSpec, prepared: PreparedModel, orders: Order, time_ns: int, chunk_orders: int = 4096
                ) -> Start:
    """The state that orders [N] lead to at a time, nanoseconds since midnight."""
    return initial.after_orders(market, prepared.table, orders, time_ns, prepared.model.spec.context_length,
                                chunk_orders)


class FeedStates(NamedTuple):
    """The states of one market at some times."""

    starts: list[Start]
    passed: list[Passed]
    """The orders before each since the one before."""
    refused: Refusals
    """What was refused of them, and what the feed left out."""
    is_synthetic: np.ndarray
    """bool [N], orders of all `passed` that nobody sent: the reader keeps the book right by them."""

    @property
    def sent(self) -> list[Passed]:
        """`passed`, of which synthetic orders do not count."""
        ends = np.cumsum([len(part.counts) for part in self.passed])[:-1]
        return [part._replace(counts=part.counts & ~mask)
                for part, mask in zip(self.passed, np.split(self.is_synthetic, ends), strict=True)]


def states_of_feed(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, times_ns: Sequence[int],
                   on_host: bool = False) -> FeedStates:
    """The states of one market at times that rise, in one pass; orders refused are counted, and the states lack them.

    All orders become those of account 0, which the order model may take back; the others are for those who trade then.

    Args:
      market: sizes and session.
      prepared: the order model that is to go on from them.
      feed: the day.
      times_ns: nanoseconds since midnight.
      on_host: whether a CPU does it: one order after another takes an accelerator longer.
    """
    table = jax.tree.map(np.asarray, prepared.table)
    by_none: list[np.ndarray] = []
    if on_host:  # those of an accelerator do not run there
        market = dataclasses.replace(market, kernels=None)
    with host_device() if on_host else contextlib.nullcontext():
        found = list(initial.from_feed_at(market, table, _of_one_account(feed, by_none), times_ns,
                                          prepared.model.spec.context_length, allow_refused=True))
    starts, passed = zip(*found, strict=True)
    refused = Refusals(market, feed.publishes_fills)
    for part in passed:
        refused.add(part.orders, part.status)
        refused.messages(part.ignored, part.adapted)
    count = sum(len(part.counts) for part in passed)
    return FeedStates(list(starts), list(passed), refused, np.concatenate([np.zeros(0, bool), *by_none])[:count])


def chunks_before(feed: DayFeed, before_ns: int) -> Iterator[FeedChunk]:
    """A day's chunks up to the one in which a time comes, nanoseconds since midnight."""
    for chunk in feed.read():
        yield chunk
        at = times.to_ns(chunk.orders.time)
        if len(at) and at[-1] >= before_ns:
            return


def synthetic(chunk: FeedChunk) -> np.ndarray:
    """bool [N], orders of a chunk that nobody sent."""
    return np.zeros(len(chunk.orders.kind), bool) if chunk.is_synthetic is None else chunk.is_synthetic


def _of_one_account(feed: DayFeed, into: list[np.ndarray]) -> Iterator[FeedChunk]:
    """Its orders as those of account 0; which of them are synthetic is put down in `into`."""
    for chunk in feed.read():
        into.append(synthetic(chunk))
        account = np.zeros_like(np.asarray(chunk.orders.account))
        yield dataclasses.replace(chunk, orders=dataclasses.replace(chunk.orders, account=account))


def host_device() -> contextlib.AbstractContextManager[Any]:
    """A CPU as JAX's default device, where there is one: one order after another takes an accelerator longer."""
    if jax.default_backend() == "cpu":
        return contextlib.nullcontext()
    try:
        return jax.default_device(jax.local_devices(backend="cpu")[0])
    except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
        return contextlib.nullcontext()
