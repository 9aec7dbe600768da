"""Rollouts: the host loop over compiled chunks of steps."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import book as books
from marsjax import clock, resume, simulate
from marsjax.agents import check
from marsjax.model import Params
from marsjax.outcome import Rollout
from marsjax.relay import NOBODY, Given, Relay
from marsjax.simulate import Simulation, SimulationSpec
from marsjax.specs import SECOND_NS, Phase
from marsjax.start import Start
from marsjax.tokens import DrawTables, TokenState, TokenTables
from marsjax.types import Array, Market, Time
from marsjax.watchers.bars import MINUTE_S, MinuteBars
from marsjax.watchers.trace import Log, Trace


@dataclasses.dataclass(frozen=True)
class Progress:
    """How far a rollout is, after a chunk."""

    steps: int
    ended: int
    """Trajectories that have ended."""
    passed: float
    """Share of the simulated time of all trajectories together."""
    orders: int
    """Decisions of trajectories that had not ended, so far."""
    seconds: float
    """Since the first chunk."""


@dataclasses.dataclass(frozen=True)
class Saving:
    """Where a rollout keeps its state, to be taken up again after a kill."""

    folder: str | os.PathLike[str]
    every_s: float = 60.0
    """Seconds between two saves, at the end of a chunk."""


def rollout(params: Params, spec: SimulationSpec, table: TokenTables, draws: DrawTables, start: Start, *,
            trajectories: int, minutes: int, seed: int, first: int = 0, numbers: np.ndarray | None = None,
            slots: int | None = None, chunk_steps: int = 64, nearest_minutes: bool = False,
            agent_starts: Sequence[tuple[Any, Time]] = (), trace_room: int | None = None,
            on_chunk: Callable[[Progress], None] | None = None,
            on_trace: Callable[[np.ndarray, Log], None] | None = None, saving: Saving | None = None) -> Rollout:
    """Futures of one starting state, or of one each.

    Args:
      params: of the order model.
      spec: sizes, agents, watchers.
      table: bins to encode with.
      draws: bins to draw with.
      start: one state for all trajectories, or [B, ...] one each.
      trajectories: B.
      minutes: bars to keep, M. Each trajectory ends so many minutes after its start, or at `spec.end_ns`, if that is
        given; the bars must reach there.
      seed: with the trajectory's number and the step it keys every draw.
      first: number of the first trajectory, the others count on: trajectory n is the same whatever batch it is in.
      numbers: int32 [B], instead of `first`; two trajectories of one number and start draw the same.
      slots: trajectories that run at a time, where that is less than all: as they end, others begin in their places
        (`marsjax.relay`). No result depends on it, if `CacheSpec.rows` is set, but by rounding: another number is
        another compiled program (of 800 futures on a CPU 2 differed between 64 and 128 slots).
      chunk_steps: decisions of a compiled call; no result depends on it.
      nearest_minutes: whether bars round order times to the nearest minute (`MinuteBars`), which makes one bar more,
        the first and the last of half a minute.
      agent_starts: state and first wake-up [B, ...] of each of `spec.agents`, instead of what its `init` gives.
      trace_room: events of a trajectory that fit in the trace of one chunk, with `on_trace`; by default
        `chunk_steps`, which is enough where no other agents trade.
      on_chunk: called after each chunk.
      on_trace: called after each chunk with its events, NumPy `Log` [R, ...], and whose they are, int [R]: a
        trajectory's place among the B, or -1 where there are none.
      saving: where to keep the state. A folder with the state of the same run is taken up: the result is the same as
        if it had never stopped (the trace goes on after the chunk that was saved).

    Raises:
      ValueError: a number out of range, a start without tokens, a horizon past the session's end or past the bars, a
        weight that is not finite, an agent whose functions do not fit (`agents.check`), a saved state of another run.
      MemoryError: the trajectories do not fit the device; the message says about how many would.
    """
    _check_numbers(trajectories=trajectories, minutes=minutes, chunk_steps=chunk_steps, low=1)
    _check_numbers(seed=seed, first=first, low=0)
    slots = min(trajectories if slots is None else slots, trajectories)
    _check_numbers(slots=slots, low=1)
    if saving and slots < trajectories:
        raise ValueError(f"rollout: slots: expected all {trajectories} trajectories at once with `saving`, got {slots}")
    starts = _starts(start, trajectories, slots)
    until = _ends(spec, starts, minutes)
    _check_weights(params)
    watchers = (*spec.watchers, MinuteBars(minutes + nearest_minutes, nearest_minutes))
    if on_trace:
        watchers += (Trace(spec.market, chunk_steps if trace_room is None else trace_room),)
    inner = dataclasses.replace(spec, watchers=watchers)
    _check_agents(inner, starts, agent_starts)
    numbers = first + np.arange(trajectories) if numbers is None else np.asarray(numbers)
    if numbers.shape != (trajectories,) or numbers.min() < 0 or numbers.max() >= 2**31:
        raise ValueError(f"rollout: expected numbers [{trajectories}] of 0 to {2**31 - 1}, got {numbers!r}")

    began, key = time.perf_counter(), np.uint32(seed)
    relay = Relay(params, inner, Given(starts, numbers.astype(np.int32), tuple(agent_starts), until), slots)
    shape = relay.shape()
    run = _chunk.lower(params, inner, table, draws, chunk_steps, shape, key).compile()
    _check_memory(run, params, slots)
    about = {"spec": repr(inner), "seed": seed, "numbers": numbers.tolist(), "chunk_steps": chunk_steps,
             "params": _digest(params), "start": _digest(starts)} if saving else {}
    steps, decided = 0, 0
    if saving and resume.saved(pathlib.Path(saving.folder)):
        found, state = resume.load(pathlib.Path(saving.folder), about, _on_device(shape))
        steps, decided, state = found["steps"], found["decided"], relay.resumed(state)
    else:
        state = relay.begin()
    before = jax.tree.map(np.asarray, (_mid_twice(spec, starts), _counts(starts.market, starts.token_state)))
    dropped, goes_on = np.zeros(trajectories, np.int32), relay.goes_on(np.asarray(state.end))
    compile_s, began = time.perf_counter() - began, time.perf_counter()
    saved_at = began
    while goes_on:
        state, active = run(params, table, draws, state, key)
        # Together: one after the other, each would wait for a transfer of its own.
        made, end, at = jax.device_get((active, state.end, state.time))
        steps, decided = steps + chunk_steps, decided + int(made)
        goes_on = relay.goes_on(end)
        if on_trace:
            log = jax.tree.map(np.asarray, state.watched[-1])
            taken = relay.who != NOBODY
            dropped[relay.who[taken]] += log.dropped[taken]
            on_trace(relay.who.copy(), log)
        if on_chunk:
            on_chunk(Progress(steps, *relay.progress(end, at), decided, time.perf_counter() - began))
        if saving and goes_on and time.perf_counter() - saved_at >= saving.every_s:
            resume.save(pathlib.Path(saving.folder), about | {"steps": steps, "decided": decided}, state)
            saved_at = time.perf_counter()
        state = relay.change(state, end)
    state = relay.result(state)
    return _outcome(spec, state, before, dropped, steps, compile_s, time.perf_counter() - began)


def _outcome(spec: SimulationSpec, state: Simulation, before: tuple[np.ndarray, tuple[np.ndarray, ...]],
             dropped: np.ndarray, steps: int, compile_s: float, run_s: float) -> Rollout:
    """What trajectories came to that have ended, with twice their mids and their counts `before`."""
    status, cut_lists, clipped = (
        now - then for now, then in zip(jax.tree.map(np.asarray, _counts(state.market, state.token_state)), before[1],
                                        strict=True))
    bars = jax.tree.map(np.asarray, state.watched[len(spec.watchers)])
    watched = tuple(jax.vmap(watcher.end)(kept, state.market, state.view, state.time)
                    for watcher, kept in zip(spec.watchers, state.watched, strict=False))
    exceeded = {"cut_lists": cut_lists, "clipped_seconds": clipped, "early_cuts": np.asarray(state.cache.cuts),
                "trace_dropped": dropped}
    return Rollout(dataclasses.replace(state, watched=watched), bars, before[0], status, exceeded,
                   tuple(agent.name for agent in spec.agents), steps=steps, compile_s=compile_s, run_s=run_s)


def _counts(market: Market, token_state: TokenState) -> tuple[Array, Array, Array]:
    """What `Rollout.status` and `exceeded` count, since the market opened."""
    return market.counters.status, market.counters.cut_lists, token_state.clipped


def _check_numbers(low: int, **numbers: int) -> None:
    for name, value in numbers.items():
        if not low <= value < 2**31:
            raise ValueError(f"rollout: expected {name} of {low} to {2**31 - 1}, got {value}")


def _starts(start: Start, trajectories: int, slots: int) -> Start:
    """One start each, [B, ...]; on the device if all begin at once."""
    shape = np.shape(start.count)
    if shape not in ((), (trajectories,)):
        raise ValueError(f"rollout: expected one start, or one for each of {trajectories} trajectories, got "
                         f"{shape[0]}")
    def every(x: Array) -> np.ndarray:
        return np.asarray(x) if shape else np.broadcast_to(x, (trajectories, *np.shape(x)))

    starts = jax.tree.map(every, start)
    return jax.device_put(starts) if slots == trajectories else starts


def _ends(spec: SimulationSpec, starts: Start, minutes: int) -> Time:
    """When each trajectory ends, [B]; ValueError where that cannot be."""
    counts = np.asarray(starts.count)
    if counts.min() < 1:
        raise ValueError(f"rollout: start {int(np.argmin(counts))}: expected at least one token of history, got none")
    begins = clock.time_to_ns(starts.time)
    reach = begins + minutes * MINUTE_S * SECOND_NS
    ends = reach if spec.end_ns is None else np.full_like(begins, spec.end_ns)
    if (begins > ends).any():
        raise ValueError(f"rollout: start at {_at(begins.max())}: expected one not after the end, {_at(ends.min())}")
    inside = np.zeros(len(begins), bool)
    for period in spec.market.session.periods:
        inside |= (period.phase == Phase.CONTINUOUS) & (period.start_ns <= begins) & (ends <= period.end_ns)
    if not inside.all():
        which = int(np.argmin(inside))
        raise ValueError(f"rollout: expected one period of continuous trading from the start, {_at(begins[which])}, "
                         f"to the end, {_at(ends[which])}, got the session {spec.market.session}")
    if (ends > reach).any():
        raise ValueError(f"rollout: minutes: expected enough for the {(ends - begins).max() / 6e10:g} minutes from "
                         f"the start to the end, got {minutes}")
    return jax.tree.map(jnp.asarray, clock.time_from_ns(ends))


def _at(ns: int) -> str:
    seconds = int(ns) // 10**9
    return f"{seconds // 3600:02}:{seconds // 60 % 60:02}:{seconds % 60:02}.{int(ns) % 10**9:09}"


def _check_weights(params: Params) -> None:
    for path, is_finite in jax.tree_util.tree_leaves_with_path(_finite(params)):
        if not is_finite:
            raise ValueError(f"rollout: weights{jax.tree_util.keystr(path)}: expected finite numbers")


@jax.jit
def _finite(params: Params) -> Params:
    return jax.tree.map(lambda x: jnp.all(jnp.isfinite(x)), params)


def _check_agents(spec: SimulationSpec, starts: Start, agent_starts: Sequence[tuple[Any, Time]]) -> None:
    def first(start: Start) -> tuple[Any, ...]:
        one = jax.tree.map(lambda x: jnp.asarray(x)[0], start)
        view = books.view(spec.market, one.market.book)
        return tuple(watcher.begin(one.market, view, one.time) for watcher in spec.watchers)

    watched = jax.eval_shape(first, starts) if spec.agents else ()
    for i, agent in enumerate(spec.agents):
        given = None
        if i < len(agent_starts):
            short = [np.shape(x) for x in jax.tree.leaves(agent_starts[i]) if np.shape(x)[:1] != starts.count.shape]
            if short:
                raise ValueError(f"rollout: agent_starts of agent {agent.name!r}: expected {starts.count.shape[0]} of "
                                 f"each, [B, ...], got an array of shape {short[0]}")
            given = jax.eval_shape(lambda x: jax.tree.map(lambda leaf: jnp.asarray(leaf)[0], x), agent_starts[i])
        check.check(agent, spec.market, watched, given)


def _check_memory(run: Any, params: Params, trajectories: int) -> None:
    """MemoryError if the compiled chunk needs more than the device has."""
    needs, has = run.memory_analysis(), _memory()
    if needs is None or has is None:
        return
    weights = sum(x.nbytes for x in jax.tree.leaves(params))
    # The carry is donated: it stands once; a first copy of the starts is gone by then.
    total = needs.argument_size_in_bytes + needs.temp_size_in_bytes
    if total > has:
        fit = int(trajectories * max(has - weights, 0) / max(total - weights, 1))
        raise MemoryError(f"rollout: {trajectories} trajectories need {total / 2**30:.1f} GiB and the device has "
                          f"{has / 2**30:.1f} GiB: about {fit} would fit")


def _memory() -> int | None:
    """Bytes that arrays may take on the default device, None if it does not say."""
    device = jax.devices()[0]
    stats = device.memory_stats()
    if stats and "bytes_limit" in stats:
        return int(stats["bytes_limit"])
    if device.platform == "cpu" and hasattr(os, "sysconf"):
        return int(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    return None


def _digest(tree: Any) -> str:
    """Names the numbers of a pytree."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        total.update(np.ascontiguousarray(np.asarray(leaf)).view(np.uint8).tobytes())
    return total.hexdigest()


def _on_device(shape: Any) -> Any:
    where = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shape)


@functools.partial(jax.jit, static_argnums=0)
def _mid_twice(spec: SimulationSpec, starts: Start) -> jax.Array:
    """Twice the float mid, int32 [B], of starts [B]."""
    return jnp.asarray(jax.vmap(lambda m: books.view(spec.market, m.book).mid_price_twice)(starts.market))


@functools.partial(jax.jit, static_argnums=(1, 4), donate_argnums=5)
def _chunk(params: Params, spec: SimulationSpec, table: TokenTables, draws: DrawTables, count: int,
           state: Simulation, seed: jax.Array) -> tuple[Simulation, jax.Array]:
    """`count` decisions of every trajectory, and how many were made; caches are updated in place in the carry."""
    def one(carry: tuple[Simulation, jax.Array], _: None) -> tuple[tuple[Simulation, jax.Array], None]:
        state, made = carry
        words = simulate.draw(seed, state.trajectory, state.step)
        state, decision = simulate.step(params, spec, table, draws, state, words)
        return (state, made + jnp.sum(decision.active, dtype=jnp.int32)), None

    state = dataclasses.replace(state, watched=tuple(
        watcher.emptied(kept) if isinstance(watcher, Trace) else kept
        for watcher, kept in zip(spec.watchers, state.watched, strict=True)))
    return jax.lax.scan(one, (state, jnp.zeros((), jnp.int32)), length=count)[0]
