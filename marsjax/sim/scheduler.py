"""More trajectories than run at a time: where one has ended, the next begins in its place.

Trajectories of the same minutes differ by several times in their orders, so a batch that runs until its last
trajectory has ended computes mostly rows that have ended before. A trajectory's draws are keyed by its own number and
steps: it comes out the same in any slot at any time.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import times
from marsjax.core.records import Array, Time
from marsjax.observers.trace import TraceObserver
from marsjax.sim import step as sim_step
from marsjax.sim.devices import Devices
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import SimulationSpec
from marsjax.sim.state import NOT_CARRIED, End, SimState

NOBODY = -1
"""Stands for the trajectory of a slot that has none."""
_PARTS = 8
"""Slots of a device over those that change hands in one compiled call."""


class Given(NamedTuple):
    """What N trajectories begin with, NumPy arrays [N, ...]."""

    starts: Start
    """One state for all, without the axis of trajectories, or [N, ...] one each."""
    number: Array
    agent_starts: tuple[Any, ...]
    until: Time

    @property
    def is_one(self) -> bool:
        """All begin at one state."""
        return np.ndim(self.starts.count) == 0

    def rows(self, which: np.ndarray) -> "Given":
        """What some trajectories [R] begin with."""
        starts = self.starts if self.is_one else jax.tree.map(lambda x: np.asarray(x)[which], self.starts)
        return Given(starts, *jax.tree.map(lambda x: np.asarray(x)[which], tuple(self[1:])))


class Scheduler:
    """Trajectories on their way through the slots of a state; the state itself goes from hand to hand.

    `end` and `time` are those of the state's slots, [slots], on the host. Of several devices each has as many slots,
    one after the other, and gives those of its trajectories that have ended to others.
    """

    def __init__(self, simulator: Simulator, given: Given, slots: int, devices: Devices) -> None:
        self.count, self.slots, self.devices = len(given.number), slots, devices
        self.who = np.full(slots, NOBODY)
        """int64 [slots], the trajectory in each slot; NOBODY once it has been taken out."""
        self._simulator, self.given = simulator, given
        self._of_device = slots // devices.count
        self._next, self._size = 0, -(-self._of_device // _PARTS)
        self._begins, self._until = np.broadcast_arrays(times.to_ns(given.starts.time), times.to_ns(given.until))
        self._ended: list[tuple[np.ndarray, SimState]] = []

    @property
    def _waits(self) -> bool:
        """There are more trajectories than slots, or fewer; else none ever leaves its own."""
        return self.slots != self.count

    def shape(self) -> SimState:
        """Shapes, dtypes and shardings of the state."""
        shape = jax.eval_shape(sim_step.begin, self._simulator, *self.given.rows(np.zeros(self.slots, np.int32)))
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=self.devices.apart), shape)

    def begin(self) -> SimState:
        """The state with the first trajectories in its slots."""
        if not self._waits:
            self.who = np.arange(self.slots)
            return _begin(self.devices, self._simulator, *self.given)
        shape = self.shape()
        state: SimState = jax.jit(lambda: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shape),
                                  out_shardings=self.devices.apart)()
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
        for slots, rows, places in self._rounds(ended):
            taken = jax.device_get(_take(self.devices, self._simulator.spec, state, places))
            self._ended.append((self.who[slots], jax.tree.map(lambda x, rows=rows: x[rows], taken)))
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
        free = np.flatnonzero(self.who == NOBODY)
        # Turn by turn among the devices: the last trajectories are to be on all of them.
        free = free[np.argsort(free % self._of_device, kind="stable")][: self.count - self._next]
        for slots, rows, places in self._rounds(free):
            self.who[slots] = self._next + np.arange(len(slots))
            self._next += len(slots)
            which = np.zeros(len(places), np.int64)
            which[rows] = self.who[slots]
            state = _put(self.devices, self._simulator, state, places, *self.given.rows(which))
        return state

    def _rounds(self, slots: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Slots in rounds: some of them, their rows in a compiled call, and the place on its device of every row.

        A row that has no slot has a place past the last, each another one, whose writes are dropped.
        """
        number = np.arange(self._size)
        of_devices = [slots[slots // self._of_device == device] for device in range(self.devices.count)]
        for first in range(0, max(map(len, of_devices)), self._size):
            some = [of_device[first : first + self._size] for of_device in of_devices]
            rows = np.concatenate([device * self._size + number[: len(own)] for device, own in enumerate(some)])
            places = [np.append(own % self._of_device, self._of_device + number[: self._size - len(own)])
                      for own in some]
            yield np.concatenate(some), rows, np.concatenate(places).astype(np.int32)


@functools.partial(jax.jit, static_argnums=0)
def _begin(devices: Devices, simulator: Simulator, starts: Start, *rest: Any) -> SimState:
    """All trajectories at their beginnings; the arguments are those of `sim_step.begin`."""
    return _on_its_own(devices, sim_step.begin, starts, (True,), rest)(simulator, starts, *rest)


def _on_its_own(devices: Devices, function: Callable[..., SimState], starts: Start, shared: tuple[bool, ...],
                rest: tuple[Any, ...]) -> Callable[..., Any]:
    """`function` of arguments that are `shared` or not, starts, and the `rest`, which are rows."""
    return devices.on_its_own(function, (*shared, np.ndim(starts.count) == 0, *(False for _ in rest)))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _take(devices: Devices, spec: SimulationSpec, state: SimState, places: Array) -> SimState:
    """The trajectories at places [A] of each device, but for their contexts and traces."""
    cache = dataclasses.replace(state.cache, keys=None, values=None, newest=None, window=None)
    observed = tuple(None if isinstance(observer, TraceObserver) else kept
                    for observer, kept in zip(spec.observers, state.observed, strict=True))

    def taken(state: SimState, places: jax.Array) -> SimState:
        some: SimState = jax.tree.map(lambda x: jnp.take(x, places, axis=0, mode="clip"), state)
        return some

    found: SimState = devices.on_its_own(taken, (False, False))(
        dataclasses.replace(state, cache=cache, observed=observed, guide=NOT_CARRIED), places)
    return found


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _put(devices: Devices, simulator: Simulator, state: SimState, places: Array, starts: Start, *rest: Any
         ) -> SimState:
    """The state with trajectories of [A, ...] at their beginnings at places [A] of each device."""
    def put(simulator: Simulator, state: SimState, places: jax.Array, *given: Any) -> SimState:
        first = sim_step.begin(simulator, *given)
        after: SimState = jax.tree.map(
            lambda old, new: old.at[places].set(new, mode="drop", unique_indices=True), state, first)
        return after

    return _on_its_own(devices, put, starts, (True, False, False), rest)(simulator, state, places, starts, *rest)
