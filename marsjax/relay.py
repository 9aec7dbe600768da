"""More trajectories than run at a time: where one has ended, the next begins in its place.

Trajectories of the same minutes differ by several times in their orders (160 of the default model's noise market, one
minute: 81 on average, 300 at most), and a batch that runs until its last trajectory has ended computes mostly rows
that have ended before. A trajectory's draws are keyed by its own number and steps, so it comes out the same in any
slot at any time.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import clock, simulate
from marsjax.model import Params
from marsjax.simulate import End, Simulation, SimulationSpec
from marsjax.start import Start
from marsjax.types import Array, Time
from marsjax.watchers.trace import Trace

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


class Relay:
    """Trajectories on their way through the slots of a state; the state itself goes from hand to hand.

    `end` and `time` are those of the state's slots, [slots], on the host.
    """

    def __init__(self, params: Params, spec: SimulationSpec, given: Given, slots: int) -> None:
        self.count, self.slots = len(given.number), slots
        self.who = np.full(slots, NOBODY)
        """int64 [slots], the trajectory in each slot; NOBODY once it has been taken out."""
        self._params, self._spec, self._given = params, spec, given
        self._next, self._size = 0, -(-slots // _PARTS)
        self._begins, self._until = (clock.time_to_ns(time) for time in (given.starts.time, given.until))
        self._ended: list[tuple[np.ndarray, Simulation]] = []

    @property
    def _waits(self) -> bool:
        """There are more trajectories than slots; else none ever leaves its own."""
        return self.slots < self.count

    def shape(self) -> Simulation:
        """Shapes and dtypes of the state."""
        some = jax.tree.map(lambda x: x[: self.slots], self._given)
        return jax.eval_shape(lambda params, *given: simulate.begin(params, self._spec, *given), self._params, *some)

    def begin(self) -> Simulation:
        """The state with the first trajectories in its slots."""
        if not self._waits:
            self.who = np.arange(self.slots)
            return _begin(self._params, self._spec, *self._given)
        state = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), self.shape())
        return self._fill(dataclasses.replace(state, end=state.end + End.TIME))

    def resumed(self, state: Simulation) -> Simulation:
        """A state of as many trajectories as there are slots, taken up again."""
        self.who = np.arange(self.slots)
        return state

    def change(self, state: Simulation, end: np.ndarray) -> Simulation:
        """Takes what has ended out of its slots, and begins what waits; uses the state up."""
        if not self._waits:
            return state
        ended = np.flatnonzero((self.who != NOBODY) & (end != End.RUNNING))
        for slots in self._in_parts(ended):
            taken, count = jax.device_get(_take(self._spec, state, self._padded(slots))), len(slots)
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
            clock.time_to_ns(time)[runs] - self._begins[which]).sum()
        return self.count - len(yet), 1 - float(left / max((self._until - self._begins).sum(), 1))

    def result(self, state: Simulation) -> Simulation:
        """All trajectories as they ended, [N, ...]; NumPy arrays without contexts, if they took turns."""
        if not self._waits:
            return state
        order = np.argsort(np.concatenate([who for who, _ in self._ended]))
        return jax.tree.map(lambda *parts: np.concatenate(parts)[order], *(state for _, state in self._ended))

    def _fill(self, state: Simulation) -> Simulation:
        free = np.flatnonzero(self.who == NOBODY)[: self.count - self._next]
        for slots in self._in_parts(free):
            which = self._next + np.arange(len(slots))
            self._next += len(slots)
            self.who[slots] = which
            rows = np.resize(which, self._size)
            some = jax.tree.map(lambda x, rows=rows: np.asarray(x)[rows], self._given)
            state = _put(self._params, self._spec, state, self._padded(slots), *some)
        return state

    def _in_parts(self, slots: np.ndarray) -> list[np.ndarray]:
        return [slots[i : i + self._size] for i in range(0, len(slots), self._size)]

    def _padded(self, slots: np.ndarray) -> np.ndarray:
        """With slots past the last, each another one, whose writes are dropped."""
        return np.concatenate([slots, len(self.who) + np.arange(self._size - len(slots))]).astype(np.int32)


_begin = jax.jit(simulate.begin, static_argnums=1)


@functools.partial(jax.jit, static_argnums=0)
def _take(spec: SimulationSpec, state: Simulation, slots: Array) -> Simulation:
    """The trajectories in slots [A], but for their contexts and traces."""
    cache = dataclasses.replace(state.cache, keys=None, values=None, newest=None, window=None)
    watched = tuple(None if isinstance(watcher, Trace) else kept
                    for watcher, kept in zip(spec.watchers, state.watched, strict=True))
    return jax.tree.map(lambda x: jnp.take(x, slots, axis=0, mode="clip"),
                        dataclasses.replace(state, cache=cache, watched=watched))


@functools.partial(jax.jit, static_argnums=1, donate_argnums=2)
def _put(params: Params, spec: SimulationSpec, state: Simulation, slots: Array, starts: Start, number: Array,
         agent_starts: tuple[Any, ...], until: Time) -> Simulation:
    """The state with trajectories of [A, ...] at their beginnings in slots [A]."""
    def put(axis: int, old: jax.Array, new: jax.Array) -> jax.Array:
        return old.at[(slice(None),) * axis + (slots,)].set(new, mode="drop", unique_indices=True)

    return simulate.map_trajectories(put, state, simulate.begin(params, spec, starts, number, agent_starts, until))
