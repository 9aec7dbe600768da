"""Rollouts: the host loop over compiled chunks of steps."""

import dataclasses
import functools
import hashlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import SingleDeviceSharding

from marsjax.core import kernels
from marsjax.core.errors import InputError
from marsjax.core.records import Time
from marsjax.observers.bars import MinuteBarObserver
from marsjax.observers.base import Observer
from marsjax.observers.trace import Log, TraceObserver
from marsjax.sim import checks, outcomes, resume
from marsjax.sim import step as sim_step
from marsjax.sim.checks import Memory
from marsjax.sim.devices import Devices
from marsjax.sim.frames import Before
from marsjax.sim.initial import Start
from marsjax.sim.result import Rollout, SoFar
from marsjax.sim.resume import Done, Resumable, Saving
from marsjax.sim.scheduler import Given, Scheduler
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec, SimulationSpec
from marsjax.sim.state import End, SimState

_PART = 64
"""Steps of a compiled call after which it looks whether a trajectory has not ended: a GPU's host waits for that."""


@dataclasses.dataclass(frozen=True)
class RolloutProgress:
    """How far a rollout is, after a chunk.

    Examples:
      >>> import marsjax
      >>> from marsjax import RolloutSpec, Simulator, testing
      >>> shares = []
      >>> hooks = Hooks(on_chunk=lambda progress: shares.append(progress.passed))
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> start = testing.random_start(market, model)
      >>> run = marsjax.rollout(Simulator.of(model, market), start, RolloutSpec(trajectories=4, minutes=1), hooks=hooks)
      >>> shares == sorted(shares), shares[-1]
      (True, 1.0)
    """

    steps: int
    ended: int
    """Trajectories that have ended."""
    passed: float
    """Share of the simulated time of all trajectories together."""
    orders: int
    """Decisions of trajectories that had not ended, so far."""
    seconds: float
    """Since the first chunk."""
    so_far: Callable[[], SoFar]
    """What there is of all trajectories until now; may be called while the hook runs, and takes a look at the device.
    """


@dataclasses.dataclass(frozen=True)
class Hooks:
    """What a rollout does between its chunks, beside its own work.

    An exception that one of them raises ends the rollout, and goes to its caller.
    """

    on_chunk: Callable[[RolloutProgress], None] | None = None
    on_trace: Callable[[np.ndarray, Log], None] | None = None
    """Called with the chunk's events, NumPy `Log` [R, ...], and whose they are, int [R]: a trajectory's place among
    the B, or -1 where there are none."""
    saving: Saving | None = None
    """A folder with the state of the same run is taken up: the result is the same as if it had never stopped. What
    `on_trace` was given before the chunk that was saved is not given again: let `Saving.beside` keep it."""
    on_memory: Callable[[Memory], None] | None = None
    """Called once all is compiled, before anything runs."""


NO_HOOKS = Hooks()


def rollout(simulator: Simulator, start: Start, spec: RolloutSpec, *, agent_starts: Sequence[tuple[Any, Time]] = (),
            hooks: Hooks = NO_HOOKS) -> Rollout:
    """Futures of one starting state, or of one each.

    Args:
      simulator: order model, market, agents and observers.
      start: one state for all trajectories, or [B, ...] one each.
      spec: how many, how long, under which numbers.
      agent_starts: state and first wake-up [B, ...] of each of the agents, instead of what its `init` gives.
      hooks: progress, trace, and the state on disk.

    Raises:
      InputError: a number out of range, a start without tokens, a horizon past the session's end or past the bars, a
        weight that is not finite, an agent whose functions do not fit (`agents.check`), a saved state of another run.
      MemoryError: the trajectories do not fit the device; the message says about how many would.

    Examples:
      >>> import marsjax
      >>> from marsjax import RolloutSpec, Simulator, testing
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> start = testing.random_start(market, model)
      >>> run = marsjax.rollout(Simulator.of(model, market), start, RolloutSpec(trajectories=4, minutes=1, seed=1))
      >>> run.ended, run.rejected, run.bars.orders.shape
      ({'TIME': 4}, {}, (4, 1))
    """
    spec = sized(simulator, spec, hooks)
    inner, scheduler = scheduled(simulator, start, spec, agent_starts, hooks)
    if hooks.saving and scheduler.slots != spec.trajectories:
        raise InputError(f"rollout: slots, devices: expected all {spec.trajectories} trajectories at once with "
                         f"`saving`, as many on each device, got {scheduler.slots} slots on "
                         f"{scheduler.devices.count}; devices=1 fits any number")
    with resume.opened(hooks.saving) as states:
        return _run(simulator, inner, spec, scheduler, hooks, states)


def memory(simulator: Simulator, start: Start, spec: RolloutSpec, *, agent_starts: Sequence[tuple[Any, Time]] = (),
           hooks: Hooks = NO_HOOKS) -> Memory | None:
    """What `rollout` of the same arguments would take of the memory of its devices; compiles, and runs no step.

    None where the compiler does not say. Errors are those of `rollout`, but for MemoryError.
    """
    spec = sized(simulator, spec, hooks)
    inner, scheduler = scheduled(simulator, start, spec, agent_starts, hooks)
    arrays, structure = jax.tree.flatten(inner)
    return _compiled(structure, spec, scheduler, arrays, scheduler.shape())[1]


def sized(simulator: Simulator, spec: RolloutSpec, hooks: Hooks) -> RolloutSpec:
    """With the number of steps of a compiled call."""
    if spec.chunk_steps:
        return spec
    traced = hooks.on_trace or any(isinstance(observer, TraceObserver) for observer in simulator.spec.observers)
    return dataclasses.replace(spec, chunk_steps=64 if traced else kernels.chosen(simulator.spec.kernels).steps)


def compiler_options(spec: SimulationSpec, devices: Devices) -> dict[str, str | bool] | None:
    """What the compiler of a chunk of steps is told (`Kernels.loops`).

    With other agents, whose events are loops within loops, and on several devices no graph was tried: the host runs
    the loops there.
    """
    if spec.agents or devices.count > 1:
        return None
    return kernels.compiler_options(kernels.chosen(spec.cache.kernels))


def scheduled(simulator: Simulator, start: Start, spec: RolloutSpec, agent_starts: Sequence[tuple[Any, Time]],
              hooks: Hooks, further: Sequence[Observer] = ()) -> tuple[Simulator, Scheduler]:
    """The simulator with the rollout's own observers on its devices, and its trajectories; all is checked.

    `further` observers come last. Errors are those of `rollout`.
    """
    devices = Devices.of(spec.devices)
    starts, every = _starts(start, spec.trajectories)
    until = checks.ends(simulator.spec, every, spec.minutes)
    checks.check_weights(simulator.model, simulator.ensemble)
    inner = _observed(simulator, spec, hooks)
    inner = devices.on_each(inner.replace(observers=(*inner.spec.observers, *further)))
    checks.check_agents(inner.spec, every, agent_starts)
    numbers = np.asarray(spec.first + np.arange(spec.trajectories) if spec.numbers is None else spec.numbers, np.int32)
    slots = -(-spec.running // devices.count) * devices.count
    if inner.spec.cache.prefix == "shared" and not np.ndim(starts.count):
        inner = dataclasses.replace(inner, prefix=devices.on_each(sim_step.shared_prefix(inner, starts)))
    of_agents = jax.tree.map(np.asarray, tuple(agent_starts))  # which may lie on another number of devices
    return inner, Scheduler(inner, Given(starts, numbers, of_agents, until), slots, devices)


def _compiled(structure: jax.tree_util.PyTreeDef, spec: RolloutSpec, scheduler: Scheduler, arrays: list[jax.Array],
              shape: SimState) -> tuple[Any, Memory | None]:
    """The compiled `_chunk`, and what it needs; `structure` and `arrays` are those of a `Simulator`."""
    devices, simulator = scheduler.devices, jax.tree.unflatten(structure, arrays)
    run = _chunk.lower(structure, spec.chunk_steps, devices, arrays, shape, np.uint32(spec.seed)).compile(
        compiler_options(simulator.spec, devices))
    # What a chunk makes of the model stands beside it.
    ready = jax.eval_shape(Simulator.prepared, simulator)
    fixed = (ready.model, ready.weights, ready.prefix, ready.ensemble)
    return run, checks.memory(run, fixed, scheduler.slots, devices.count)


def _run(simulator: Simulator, inner: Simulator, spec: RolloutSpec, scheduler: Scheduler, hooks: Hooks,
         states: Resumable | None) -> Rollout:
    """The host loop; `inner` is the simulator with the rollout's own observers."""
    began, seed = time.perf_counter(), np.uint32(spec.seed)
    shape, starts = scheduler.shape(), scheduler.given.starts
    # As plain arrays beside their structure: a call then costs the host less than one with a tree of modules.
    arrays, structure = jax.tree.flatten(inner)
    run, needed = _compiled(structure, spec, scheduler, arrays, shape)
    checks.check_memory(needed)
    if hooks.on_memory and needed:
        hooks.on_memory(needed)
    state, done = _first_state(scheduler, shape, states, _identity(inner, spec, scheduler) if states else {})
    ledgers, mids, counts = outcomes.every(scheduler.given, (
        starts.market.ledgers, outcomes.mid_twice_of(simulator.spec.market, starts.market),
        outcomes.counts_of(starts.market, starts.token_state)))
    keeper = outcomes.Keeper(simulator.spec, is_whole=not done.steps)
    clock = outcomes.RunClock(time.perf_counter() - began)
    goes_on = scheduler.goes_on(np.asarray(state.end))
    while goes_on:
        state, counted = run(arrays, state, seed)
        # Together: one after the other, each would wait for a transfer of its own.
        counted, end, at = jax.device_get((counted, state.end, state.time))
        dropped = outcomes.traced(scheduler, state.observed[-1], hooks.on_trace) if hooks.on_trace else 0
        done = Done(done.steps + int(counted[:, 1].max()), done.decided + int(counted[:, 0].sum()),
                    done.dropped + dropped)
        goes_on = scheduler.goes_on(end)
        keeper.keep(scheduler, state)
        if hooks.on_chunk:
            so_far = functools.partial(outcomes.so_far, scheduler, state, len(simulator.spec.observers), mids)
            hooks.on_chunk(RolloutProgress(done.steps, *scheduler.progress(end, at), done.decided, clock.run_s, so_far))
        if states and goes_on and clock.since_save_s >= states.every_s:
            states.save(done, state)
            clock.saved()
        state = scheduler.change(state, end)
    state = scheduler.result(state)
    kept = (Before(ledgers, mids), keeper.trace(scheduler))
    return outcomes.of_ended(simulator, state, kept, counts, done.dropped + keeper.dropped,
                             (done.steps, clock.compile_s, clock.run_s))


def _observed(simulator: Simulator, spec: RolloutSpec, hooks: Hooks) -> Simulator:
    """With minute bars, and a trace if it is asked for, as the last observers."""
    observers = (*simulator.spec.observers,
                 MinuteBarObserver(spec.minutes + spec.nearest_minutes, spec.nearest_minutes))
    if hooks.on_trace:
        room = spec.chunk_steps if spec.trace_room is None else spec.trace_room
        observers += (TraceObserver(simulator.spec.market, room),)
    return simulator.replace(observers=observers)


def _starts(start: Start, trajectories: int) -> tuple[Start, Start]:
    """One start for all as it is, or [B, ...]; and what each trajectory starts from, [B, ...]. On the host."""
    shape = np.shape(start.count)
    if shape not in ((), (trajectories,)):
        raise InputError(f"rollout: expected one start, or one for each of {trajectories} trajectories, got "
                         f"{shape[0]}")
    starts = jax.tree.map(np.asarray, start)
    return starts, starts if shape else outcomes.repeated(starts, trajectories)


def _first_state(scheduler: Scheduler, shape: SimState, states: Resumable | None, identity: dict[str, Any]
                 ) -> tuple[SimState, Done]:
    """The state to go on from: that of a save, or of the beginning."""
    where = scheduler.devices.apart or SingleDeviceSharding(jax.devices()[0])
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shape)
    found = states.take_up(identity, like, scheduler.count) if states else None
    if found is None:
        return scheduler.begin(), Done(0, 0, np.zeros(scheduler.count, np.int32))
    return scheduler.resumed(found[1]), found[0]


def _identity(simulator: Simulator, spec: RolloutSpec, scheduler: Scheduler) -> dict[str, Any]:
    """All that a rollout's result depends on, by name: another run's state is not taken up."""
    given = scheduler.given
    sizes = {name: getattr(spec, name) for name in ("seed", "trajectories", "minutes", "chunk_steps", "nearest_minutes",
                                                    "trace_room")}
    is_traced = any(isinstance(observer, TraceObserver) for observer in simulator.spec.observers)
    return {**sizes, "trace": is_traced, "simulation": repr(simulator.spec),
            "numbers": np.asarray(given.number).tolist(),
            "model_spec": repr(simulator.model.spec), "model": _digest(simulator.model),
            "table": _digest(simulator.table), "draws": _digest(simulator.draws),
            "start": _digest(outcomes.every(given, given.starts)),
            "until": _digest(given.until), "agent_starts": _digest(given.agent_starts),
            **({"ensemble": _digest(simulator.ensemble)} if simulator.ensemble else {})}


def _digest(tree: Any) -> str:
    """Names the numbers of a pytree, with their shapes and types."""
    total = hashlib.sha256()
    for leaf in jax.tree.leaves(tree):
        array = np.ascontiguousarray(np.asarray(leaf))
        total.update(f"{array.dtype}{array.shape}".encode())
        total.update(array.view(np.uint8).tobytes() if array.size else b"")
    return total.hexdigest()


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _chunk(structure: jax.tree_util.PyTreeDef, count: int, devices: Devices, arrays: list[jax.Array], state: SimState,
           seed: jax.Array) -> tuple[SimState, jax.Array]:
    """`count` decisions of every trajectory, or all it has left; how many each of D devices made, in how many steps.

    The latter are int32 [D, 2]. Contexts are updated in place in the carry. `structure` and `arrays` are those of a
    `Simulator`.
    """
    steps = functools.partial(_steps, structure, count)
    found: tuple[SimState, jax.Array] = devices.on_its_own(steps, (True, False, True))(arrays, state, seed)
    return found


def _steps(structure: jax.tree_util.PyTreeDef, count: int, arrays: list[jax.Array], state: SimState, seed: jax.Array
           ) -> tuple[SimState, jax.Array]:
    """`_chunk` of the trajectories of one device."""
    given: Simulator = jax.tree.unflatten(structure, arrays)
    simulator = given.prepared()

    part = _PART if count % _PART == 0 else count

    def goes_on(carry: tuple[tuple[SimState, jax.Array], jax.Array]) -> jax.Array:
        (state, _), steps = carry
        return (steps < count) & jnp.any(state.end == End.RUNNING)

    def one_part(carry: tuple[tuple[SimState, jax.Array], jax.Array]
                 ) -> tuple[tuple[SimState, jax.Array], jax.Array]:
        return jax.lax.scan(one, carry[0], length=part)[0], carry[1] + part

    def one(carry: tuple[SimState, jax.Array], _: None) -> tuple[tuple[SimState, jax.Array], None]:
        state, made = carry
        state, decision = sim_step.step(simulator, state, sim_step.draw(seed, state.trajectory, state.step))
        return (state, made + decision.active), None

    state = dataclasses.replace(state, observed=tuple(
        observer.emptied(kept) if isinstance(observer, TraceObserver) else kept
        for observer, kept in zip(simulator.spec.observers, state.observed, strict=True)))
    # Counted by trajectory and added up at the end: a sum over the batch in every step slows what it is fused with.
    first = state, jnp.zeros_like(state.step)
    none = jnp.zeros_like(state.step[0])
    if part == count:
        (state, made), steps = one_part((first, none))
    else:
        (state, made), steps = jax.lax.while_loop(goes_on, one_part, (first, none))
    return state, jnp.stack([jnp.sum(made, dtype=jnp.int32), steps])[None]
