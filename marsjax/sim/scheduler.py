"""More trajectories than run at a time: where one has ended, the next begins in its place.

Trajectories of the same minutes differ by several times in their orders, so a batch that runs until its last
trajectory has ended computes mostly rows that have ended before. A trajectory's draws are keyed by its own number and
steps: it comes out the same in any slot at any time.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import times
from marsjax.core.records import Array, Time
from marsjax.observers.trace import TraceObserver
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import SimulationSpec
from marsjax.sim.state import End, SimState

NOBODY = -1
"""Stands for the trajectory of a slot that has none."""
_PARTS = 8
"""Slots over those that change hands in one compiled call."""


class Given(NamedTuple):
    """What N trajectories begin with, NumPy arrays [N, ...]."""

    starts: Start
    number: Array
    agent_starts: tuple[Any, ...]
    until: Time


class Scheduler:
    """Trajectories on their way through the slots of a state; the state itself goes from hand to hand.

    `end` and `time` are those of the state's slots, [slots], on the host.
    """

    def __init__(self, simulator: Simulator, given: Given, slots: int) -> None:
        self.count, self.slots = len(given.number), slots
        self.who = np.full(slots, NOBODY)
        """int64 [slots], the trajectory in each slot; NOBODY once it has been taken out."""
        self._simulator, self.given = simulator, given
        self._next, self._size = 0, -(-slots // _PARTS)
        self._begins, self._until = (times.to_ns(time) for time in (given.starts.time, given.until))
        self._ended: list[tuple[np.ndarray, SimState]] = []

    @property
    def _waits(self) -> bool:
        """There are more trajectories than slots; else none ever leaves its own."""
        return self.slots < self.count

    def shape(self) -> SimState:
        """Shapes and dtypes of the state."""
        some = jax.tree.map(lambda x: x[: self.slots], self.given)
        return jax.eval_shape(sim_step.begin, self._simulator, *some)

    def begin(self) -> SimState:
        """The state with the first trajectories in its slots."""
        if not self._waits:
            self.who = np.arange(self.slots)
            return _begin(self._simulator, *self.given)
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.shape())
        return self._fill(dataclasses.replace(state, end=state.end + End.TIME))

    def resumed(self, state: SimState) -> SimState:
        """A state of as many trajectories as there are slots, taken up again."""
        self.who = np.arange(self.slots)
        return state

    def change(self, state: SimState, end: np.ndarray) -> SimState:
        """Takes what has ended out of its slots, and begins what waits; uses the state up."""
        if not self._waits:
            return state
        ended = np.flatnonzero((self.who != NOBODY) & (end != End.RUNNING))
        for slots in self._in_parts(ended):
            taken, count = jax.device_get(_take(self._simulator.spec, state, self._padded(slots))), len(slots)
            self._ended.append((self.who[slots], jax.tree.map(lambda x, count=count: x[:count], taken)))
        self.who[ended] = NOBODY
        return self._fill(state)

    def goes_on(self, end: np.ndarray) -> bool:
        """Whether a trajectory has not ended, or not begun."""
        return (self._waits and self._next < self.count) or bool((end == End.RUNNING).any())

    def progress(self, end: np.ndarray, time: Time) -> tuple[int, float]:
        """How many trajectories have ended, and the share of the simulated time of all together that has passed."""
        runs = (self.who != NOBODY) & (end == End.RUNNING)
        which = self.who[runs]
        yet = np.concatenate([which, np.arange(self._next, self.count)]) if self._waits else which
        left = (self._until[yet] - self._begins[yet]).sum() - (
            times.to_ns(time)[runs] - self._begins[which]).sum()
        return self.count - len(yet), 1 - float(left / max((self._until - self._begins).sum(), 1))

    def so_far(self, state: SimState, chosen: Callable[[SimState], Any]) -> Any:
        """What is chosen of the states of all trajectories, NumPy arrays [N, ...], before `change`.

        Zeros of those that have not begun.
        """
        runs = np.flatnonzero(self.who != NOBODY)
        now = jax.tree.map(lambda x: np.asarray(x)[runs], jax.device_get(chosen(state)))
        parts = [*((who, chosen(ended)) for who, ended in self._ended), (self.who[runs], now)]

        def together(*leaves: np.ndarray) -> np.ndarray:
            every = np.zeros((self.count, *leaves[0].shape[1:]), leaves[0].dtype)
            for (who, _), leaf in zip(parts, leaves, strict=True):
                every[who] = leaf
            return every

        return jax.tree.map(together, *(part for _, part in parts))

    def result(self, state: SimState) -> SimState:
        """All trajectories as they ended, [N, ...]; NumPy arrays without contexts, if slots were reused."""
        if not self._waits:
            return state
        order = np.argsort(np.concatenate([who for who, _ in self._ended]))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *(state for _, state in self._ended))

    def _fill(self, state: SimState) -> SimState:
        free = np.flatnonzero(self.who == NOBODY)[: self.count - self._next]
        for slots in self._in_parts(free):
            which = self._next + np.arange(len(slots))
            self._next += len(slots)
            self.who[slots] = which
            rows = np.resize(which, self._size)
            some = jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], self.given)
            state = _put(self._simulator, state, self._padded(slots), *some)
        return state

    def _in_parts(self, slots: np.ndarray) -> list[np.ndarray]:
        return [slots[i : i + self._size] for i in range(0, len(slots), self._size)]

    def _padded(self, slots: np.ndarray) -> np.ndarray:
        """With slots past the last, each another one, whose writes are dropped."""
        return np.concatenate([slots, len(self.who) + np.arange(self._size - len(slots))]).astype(np.int32)


_begin = jax.jit(sim_step.begin)


@functools.partial(jax.jit, static_argnums=0)
def _take(spec: SimulationSpec, state: SimState, slots: Array) -> SimState:
    """The trajectories in slots [A], but for their contexts and traces."""
    cache = dataclasses.replace(state.cache, keys=None, values=None, newest=None, window=None)
    observed = tuple(None if isinstance(observer, TraceObserver) else kept
                    for observer, kept in zip(spec.observers, state.observed, strict=True))
    return jax.tree.map(lambda x: jnp.take(x, slots, axis=0, mode="clip"),
                        dataclasses.replace(state, cache=cache, observed=observed))


@functools.partial(jax.jit, donate_argnums=1)
def _put(simulator: Simulator, state: SimState, slots: Array, starts: Start, number: Array,
         agent_starts: tuple[Any, ...], until: Time) -> SimState:
    """The state with trajectories of [A, ...] at their beginnings in slots [A]."""
    first = sim_step.begin(simulator, starts, number, agent_starts, until)
    return jax.tree.map(lambda old, new: old.at[slots].set(new, mode="drop", unique_indices=True), state, first)
