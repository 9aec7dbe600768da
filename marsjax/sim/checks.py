"""The door of rollouts: starts, ends, weights, agents and memory are checked before anything runs."""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import check
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Time
from marsjax.core.sessions import Phase
from marsjax.core.times import SECOND_NS
from marsjax.market import book as books
from marsjax.model.ensemble import Ensemble
from marsjax.model.llama import OrderModel
from marsjax.observers.bars import MINUTE_S
from marsjax.sim.initial import Start
from marsjax.sim.specs import SimulationSpec


def ends(spec: SimulationSpec, starts: Start, minutes: int) -> Time:
    """When each trajectory of starts [B] ends, [B]; InputError where that cannot be."""
    counts = np.asarray(starts.count)
    if counts.min() < 1:
        raise InputError(f"rollout: start {int(np.argmin(counts))}: expected at least one token of history, got none")
    begins = times.to_ns(starts.time)
    reach = begins + minutes * MINUTE_S * SECOND_NS
    found = reach if spec.end_ns is None else np.full_like(begins, spec.end_ns)
    if (begins > found).any():
        raise InputError(f"rollout: start at {_clock(begins.max())}: expected one not after the end, "
                         f"{_clock(found.min())}")
    inside = np.zeros(len(begins), bool)
    for period in spec.market.session.periods:
        inside |= (period.phase == Phase.CONTINUOUS) & (period.start_ns <= begins) & (found <= period.end_ns)
    if not inside.all():
        which = int(np.argmin(inside))
        raise InputError(f"rollout: expected one period of continuous trading from the start, {_clock(begins[which])}, "
                         f"to the end, {_clock(found[which])}, got the session {spec.market.session}")
    if (found > reach).any():
        raise InputError(f"rollout: minutes: expected enough for the {(found - begins).max() / 6e10:g} minutes from "
                         f"the start to the end, got {minutes}")
    return jax.tree.map(jnp.asarray, times.from_ns(found))


def check_weights(model: OrderModel, ensemble: Ensemble | None = None) -> None:
    """InputError that names the first weight that is no finite number, or where an ensemble is for another model."""
    for name, is_finite in _finite(model).items():
        if not is_finite:
            raise InputError(f"rollout: weights.{name}: expected finite numbers")
    if ensemble is None:
        return
    if ensemble.spec.hidden != model.spec.embed_dim:
        raise InputError(f"rollout: ensemble: expected one for hidden states of {model.spec.embed_dim} (embed_dim of "
                         f"the order model), got one for {ensemble.spec.hidden}; train it with this model")
    for name, is_finite in _finite(ensemble).items():
        if not is_finite:
            raise InputError(f"rollout: ensemble: weights.{name}: expected finite numbers")


@jax.jit
def _finite(model: OrderModel | Ensemble) -> dict[str, jax.Array]:
    return {name: jnp.all(jnp.isfinite(jnp.asarray(x))) for name, x in model.weights().items()}


def check_agents(spec: SimulationSpec, starts: Start, agent_starts: Sequence[tuple[Any, Time]]) -> None:
    """InputError unless the engine can call the agents, with the starts [B] that are given for them."""
    def first(start: Start) -> tuple[Any, ...]:
        one = jax.tree.map(lambda x: jnp.asarray(x)[0], start)
        view = books.view(spec.market, one.market.book)
        return tuple(observer.begin(one.market, view, one.time) for observer in spec.observers)

    observed = jax.eval_shape(first, starts) if spec.agents else ()
    for i, agent in enumerate(spec.agents):
        given = None
        if i < len(agent_starts):
            short = [np.shape(x) for x in jax.tree.leaves(agent_starts[i]) if np.shape(x)[:1] != starts.count.shape]
            if short:
                raise InputError(f"rollout: agent_starts of agent {agent.name!r}: expected {starts.count.shape[0]} of "
                                 f"each, [B, ...], got an array of shape {short[0]}")
            given = jax.eval_shape(lambda x: jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], x), agent_starts[i])
        check.check(agent, spec.market, observed, given)


@dataclasses.dataclass(frozen=True)
class Memory:
    """What a rollout takes of the memory of its devices.

    Examples:
      >>> memory = Memory(trajectories=128, devices=1, needed=3 * 2**30, fixed=2**30, there=5 * 2**30)
      >>> memory.fit, memory.line()
      (256, 'memory: 3.00 of 5.00 GiB for 128 trajectories at a time; about 256 would fit')
    """

    trajectories: int
    """That run at a time, on all devices together."""
    devices: int
    needed: int
    """Bytes on each device, while a chunk of steps runs."""
    fixed: int
    """Of these bytes those that more trajectories do not add to: the weights, what a chunk makes of them before its
    steps, and a shared prefix."""
    there: int | None
    """Bytes that arrays may take on a device; None: it does not say."""

    @property
    def fit(self) -> int | None:
        """Trajectories that about fit at a time, on all devices together; None where a device does not say."""
        if self.there is None:
            return None
        return int(self.trajectories * max(self.there - self.fixed, 0) / max(self.needed - self.fixed, 1))

    def line(self) -> str:
        """One line for people."""
        has = "" if self.there is None else f" of {self.there / 2**30:.2f}"
        on = f" on each of {self.devices} devices" * (self.devices > 1)
        more = "" if self.fit is None else f"; about {self.fit:,} would fit"
        return f"memory: {self.needed / 2**30:.2f}{has} GiB{on} for {self.trajectories:,} trajectories at a time{more}"


def memory(run: Any, fixed: Any, trajectories: int, devices: int) -> Memory | None:
    """What a compiled chunk needs, and of it the `fixed` arrays; None where the compiler does not say."""
    needs, there = run.memory_analysis(), _memory()
    if needs is None:
        return None
    # The carry is donated: it stands once. Devices made of one CPU share its memory.
    shared = devices if jax.devices()[0].platform == "cpu" else 1
    of_fixed = sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(fixed))
    return Memory(trajectories, devices, needs.argument_size_in_bytes + needs.temp_size_in_bytes, of_fixed,
                  None if there is None else there // shared)


def check_memory(found: Memory | None) -> None:
    """MemoryError if a rollout needs more than its devices have."""
    if found and found.there is not None and found.needed > found.there:
        raise MemoryError(f"rollout: {found.trajectories} trajectories need {found.needed / 2**30:.1f} GiB and the "
                          f"device has {found.there / 2**30:.1f} GiB: about {found.fit} would fit")


def _memory() -> int | None:
    """Bytes that arrays may take on the default device, None if it does not say."""
    device = jax.devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return None


def _clock(ns: int) -> str:
    seconds = int(ns) // 10**9
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{int(ns) % 10**9:09}"
