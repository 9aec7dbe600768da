"""What every rollout keeps on the host while it runs, and what it makes of its trajectories once they have ended."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.records import Array, Market
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.observers.trace import Log, TraceObserver
from marsjax.sim.frames import Before
from marsjax.sim.result import Rollout, SoFar, Trace
from marsjax.sim.scheduler import NOBODY, Given, Scheduler
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import SimulationSpec
from marsjax.sim.state import SimState
from marsjax.tokens.encoding import TokenState


class RunClock:
    """Seconds of a rollout: compiling and beginning, running, and since the last save."""

    def __init__(self, compile_s: float) -> None:
        self.compile_s, self._began = compile_s, time.perf_counter()
        self._saved = self._began

    @property
    def run_s(self) -> float:
        """Since the compiling ended."""
        return time.perf_counter() - self._began

    @property
    def since_save_s(self) -> float:
        """Since `saved` was called last, or the compiling ended."""
        return time.perf_counter() - self._saved

    def saved(self) -> None:
        """The state has just been saved."""
        self._saved = time.perf_counter()


def repeated(tree: Any, count: int) -> Any:
    """The arrays `count` times, as views."""
    return jax.tree.map(lambda x: np.broadcast_to(x, (count, *np.shape(x))), tree)


def every(given: Given, tree: Any) -> Any:
    """What was made of the starts, of each of the trajectories [B, ...], on the host."""
    found = jax.tree.map(np.asarray, tree)
    return repeated(found, len(given.number)) if given.is_one else found


class Keeper:
    """Keeps the events of the user's own `TraceObserver` on the host."""

    def __init__(self, spec: SimulationSpec, is_whole: bool) -> None:
        self._at = next((place for place, observer in enumerate(spec.observers) if isinstance(observer, TraceObserver)),
                        None)
        self._is_whole = is_whole
        self._chunks: list[tuple[np.ndarray, Log]] = []
        self.dropped: np.ndarray | int = 0

    def keep(self, scheduler: Scheduler, state: SimState) -> None:
        """Takes what a chunk left in the log."""
        if self._at is not None:
            log = state.observed[self._at]
            self.dropped = self.dropped + traced(scheduler, log, lambda *chunk: self._chunks.append(chunk))

    def trace(self, scheduler: Scheduler) -> Trace:
        """All that was kept."""
        if self._at is None:
            return Trace()
        missing = ""
        if not self._is_whole:
            missing = "the run was taken up from a saved state; take the trace by hooks.on_trace, into files"
        else:
            missing = without_room(self.dropped)
        starts = scheduler.given.starts
        return Trace(tuple(self._chunks), missing, every(scheduler.given, (starts.market.book, starts.time)))


def without_room(dropped: np.ndarray | int) -> str:
    """What a trace lacks of which so many events found no room, by trajectory; empty for nothing."""
    if not np.any(dropped):
        return ""
    return (f"{int(np.sum(dropped))} events found no room: give TraceObserver a larger room, or set fewer "
            "RolloutSpec.chunk_steps")


def so_far(scheduler: Scheduler, state: SimState, bars: int, mids: np.ndarray) -> SoFar:
    """Of all trajectories; `bars` is the place of the minute bars among what is observed, `mids` those at the start."""
    def chosen(state: SimState) -> Any:
        return state.observed[bars], state.time, state.until, state.end, state.agent_states

    kept, at, until, end, agents = scheduler.so_far(state, chosen)
    return SoFar.of(kept, mids, dataclasses.replace(state, time=at, until=until, end=end, agent_states=agents))


def traced(scheduler: Scheduler, log: Any, on_trace: Callable[[np.ndarray, Log], None]) -> np.ndarray:
    """Hands the events of a chunk over; how many found no room, int32 [B]."""
    log = jax.tree.map(np.asarray, log)
    taken, dropped = scheduler.who != NOBODY, np.zeros(scheduler.count, np.int32)
    dropped[scheduler.who[taken]] = log.dropped[taken]
    on_trace(scheduler.who.copy(), log)
    return dropped


def of_ended(simulator: Simulator, state: SimState, kept: tuple[Before, Trace], counts: tuple[np.ndarray, ...],
             dropped: np.ndarray, spent: tuple[int, float, float]) -> Rollout:
    """What trajectories came to that have ended, with what they had and their counts before, and the kept events."""
    spec = simulator.spec
    status, truncated, clipped = (
        now - then for now, then in zip(jax.tree.map(np.asarray, counts_of(state.market, state.token_state)), counts,
                                        strict=True))
    bars = jax.tree.map(np.asarray, state.observed[len(spec.observers)])
    observed = tuple(jax.vmap(observer.end)(own, state.market, state.view, state.time)
                     for observer, own in zip(spec.observers, state.observed, strict=False))
    refreshes = 0 if state.cache is None else state.cache.refreshes
    exceeded = {"truncated_lists": truncated, "clipped_seconds": clipped, "early_refreshes": np.asarray(refreshes),
                "trace_dropped": dropped}
    steps, compile_s, run_s = spent
    return Rollout(dataclasses.replace(state, observed=observed), bars, kept[0].mid_twice, status, exceeded, spec,
                   *kept, steps=steps, compile_s=compile_s, run_s=run_s)


def counts_of(market: Market, token_state: TokenState) -> tuple[Array, Array, Array]:
    """What `Rollout.status` and `exceeded` count, since the market opened."""
    return market.counters.status, market.counters.truncated_lists, token_state.clipped


@functools.partial(jax.jit, static_argnums=0)
def mid_twice_of(spec: MarketSpec, market: Market) -> jax.Array:
    """Twice the float mid, int32, of a market, or [B] of markets [B]."""
    def of_one(market: Market) -> jax.Array:
        return jnp.asarray(books.view(spec, market.book).mid_price_twice)

    return jax.vmap(of_one)(market) if market.book.volume.ndim > 2 else of_one(market)
