"""Controlled rollouts: trajectories that fit a guide take the places of those that do not, interval by interval.

This is sequential Monte Carlo. A trajectory pauses before its first decision at or after the end of an interval. Once
all have paused or ended, each is scored by what it did (`observers.features`), its score adds to its log-weight, and
an island whose weights have become too uneven is resampled: whole states are copied. What comes out are futures of the
order model, given the guide: nothing in them is bent, the unlikely ones are chosen. Where `ControlSpec.way` says so,
trajectories are led, too, or in place of that (`leading`): then the order model's law is bent at each interval.

Draws stay keyed by the place: (seed, its number, when it was last resampled, step). Copies of one trajectory part at
their next order, no draw is made twice, and `SimState.step` is the number of decisions of the trajectory, by which
contexts are refreshed.
"""

import dataclasses
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import kernels, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Status, Time
from marsjax.core.times import SECOND_NS
from marsjax.observers.base import Observer
from marsjax.observers.features import FeatureObserver, Features
from marsjax.observers.trace import Log, TraceObserver
from marsjax.sim import checks, outcomes
from marsjax.sim import step as sim_step
from marsjax.sim.control import guides, leading, lineages, resampling
from marsjax.sim.control.guides import Guide
from marsjax.sim.control.leading import ControlModels, Leader
from marsjax.sim.control.lineages import ControlledRollout
from marsjax.sim.control.spec import ControlSpec
from marsjax.sim.devices import Devices
from marsjax.sim.frames import Before
from marsjax.sim.initial import Start
from marsjax.sim.rollout import NO_HOOKS, Hooks, RolloutProgress, compiler_options, scheduled, sized
from marsjax.sim.scheduler import Scheduler
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import RolloutSpec
from marsjax.sim.state import LOST, End, SimState

_EPOCHS = 2**32 - 1
"""A trajectory's key of an epoch is folded from here downwards; its decisions and agents are keyed by smaller numbers.
"""
_Made = tuple[SimState, jax.Array, jax.Array]
"""Trajectories, the decisions of each so far, and how many steps that took."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Carried:
    """B trajectories under control, each with [B]."""

    state: SimState
    log_weight: Array
    """float32, since its island was last resampled."""
    epoch: Array
    """int32, 1 + the interval at whose end its island was last resampled; 0 before that."""
    origin: Time
    """Its start."""


class Looked(NamedTuple):
    """What a look at all trajectories came to; I islands."""

    seen: Features
    """[B], of the interval that has ended."""
    source: Array
    """int32 [B], the place within its island that a trajectory was copied from."""
    ess: Array
    """float32 [I], NaN of an island whose time was over before the interval."""
    resampled: Array
    """bool [I]."""
    log_mean_weight: Array
    """float32 [I], of an island that was resampled, or at its end; else 0."""
    side_full: Array
    """int32 [B], orders refused for want of room since the market opened, before anything was copied."""


def controlled(simulator: Simulator, start: Start, spec: RolloutSpec, control: ControlSpec, guide: Guide, *,
               agent_starts: Sequence[tuple[Any, Time]] = (), hooks: Hooks = NO_HOOKS,
               models: ControlModels | None = None) -> ControlledRollout:
    """Futures that fit a guide.

    Args:
      simulator: as of `rollout`.
      start: one state for all trajectories, or [B, ...], which must be the same within each island.
      spec: as of `rollout`; all trajectories run at once. No result depends on `chunk_steps`.
      control: how often they are looked at, in which way they are controlled, and among which they are resampled.
      guide: what is wanted.
      agent_starts: as of `rollout`, the same within each island.
      hooks: as of `rollout`; `on_trace` is called when all is over, with the events of the trajectories that are left.
      models: what leads them, where they are led (`ControlSpec.way`).

    Raises:
      InputError: as `rollout`; a guide of another number of intervals, trajectories that do not make whole islands,
        starts that differ within one, fewer slots than trajectories, `Hooks.saving`, a way without its models, models
        that do not fit one another, the order model or the intervals, a led trajectory that sends too many orders.
      MemoryError: as `rollout`.

    Examples:
      >>> from marsjax import RolloutSpec, Simulator, testing
      >>> from marsjax.sim.control import ControlSpec, CurveGuide, controlled
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> start, guide = testing.random_start(market, model), CurveGuide((-10.0, -20.0), scale_bp=5.0)
      >>> run = controlled(Simulator.of(model, market), start, RolloutSpec(trajectories=32, minutes=1),
      ...                  ControlSpec(every_s=30, island=16), guide)
      >>> run.features.return_bp.shape, run.ess.shape, run.rollout.ended
      ((2, 32), (2, 2), {'TIME': 32})
    """
    models = models if control.is_led else None
    _check(spec, control, hooks, models)
    spec, tick = sized(simulator, spec, hooks), simulator.spec.market.tick
    observers: list[Observer] = [FeatureObserver(tick)]
    if models:
        simulator = dataclasses.replace(simulator, ensemble=models.ensemble)
        observers.insert(0, models.observer(tick))
    inner, scheduler = scheduled(simulator, start, spec, agent_starts, hooks, observers)
    begins, ends = times.to_ns(scheduler.given.starts.time), times.to_ns(scheduler.given.until)
    lengths, every_ns = ends - begins, control.every_s * SECOND_NS
    intervals = max(-(-int(lengths.max()) // every_ns), 1)
    if models and (lengths % every_ns).any():
        raise InputError(f"RolloutSpec.minutes: expected whole intervals of {control.every_s} s (ControlSpec.every_s), "
                         "as models that lead futures know no shorter ones, got futures of "
                         f"{int(lengths[lengths % every_ns > 0][0]) / SECOND_NS:g} s")
    _check_islands(scheduler, control)
    guides.check(guide, intervals)
    return _Run(simulator, inner, spec, scheduler, control, guide, hooks, models).outcome(intervals)


def _check(spec: RolloutSpec, control: ControlSpec, hooks: Hooks, models: ControlModels | None) -> None:
    if models:
        models.check(control.every_s, spec.trajectories)
    elif control.is_led:
        raise InputError(f"ControlSpec.way: expected resample, or the models that lead futures (`models`), got "
                         f"{control.way!r} without them")
    if hooks.saving:
        raise InputError("controlled: Hooks.saving: expected None, as the states of controlled futures cannot be saved")
    if spec.running < spec.trajectories:
        raise InputError(f"controlled: RolloutSpec.slots: expected None, or all {spec.trajectories} trajectories, "
                         f"which run at once, got {spec.slots}")


def _check_islands(scheduler: Scheduler, control: ControlSpec) -> None:
    """InputError unless trajectories come out even, and those of an island can take each other's places."""
    count, devices = scheduler.count, scheduler.devices.count
    if control.way == "batch":  # none takes the place of another
        if count % devices:
            raise InputError(f"controlled: expected trajectories that {devices} devices share evenly, got {count}")
        return
    island = control.island or count
    if count % island or (count // island) % devices:
        on = f" that {devices} devices share evenly" if devices > 1 else ""
        raise InputError(f"ControlSpec.island: expected {count} trajectories to make whole islands{on}, got "
                         f"{control.island} in each (0: all in one)")
    own = (scheduler.given.agent_starts, None if scheduler.given.is_one else scheduler.given.starts)
    for leaf in jax.tree.leaves(own):
        rows = np.asarray(leaf).reshape(count // island, island, -1)
        if not (rows == rows[:, :1]).all():
            raise InputError("controlled: expected the same start, and the same starts of agents, for all trajectories "
                             f"of an island, as they take each other's places, got others within one of {island}")


class _Run:
    """A controlled rollout on the host; `inner` has the rollout's own observers."""

    def __init__(self, simulator: Simulator, inner: Simulator, spec: RolloutSpec, scheduler: Scheduler,
                 control: ControlSpec, guide: Guide, hooks: Hooks, models: ControlModels | None) -> None:
        began = time.perf_counter()
        self._simulator, self._spec, self._scheduler, self._hooks = simulator, spec, scheduler, hooks
        self._control, self._seed = control, np.uint32(spec.seed)
        self._arrays, structure = jax.tree.flatten(inner)
        starts, devices = scheduler.given.starts, scheduler.devices
        shape = jax.eval_shape(functools.partial(_carried, devices), scheduler.shape())
        shape = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=devices.apart), shape)
        self._run = _chunk.lower(structure, spec.chunk_steps, devices, self._arrays, shape, self._seed,
                                 np.int32(0)).compile(compiler_options(inner.spec, devices))
        ready = jax.eval_shape(Simulator.prepared, inner)
        fixed = (ready.model, ready.weights, ready.prefix, ready.ensemble)
        needed = checks.memory(self._run, fixed, scheduler.slots, devices.count)
        checks.check_memory(needed)
        self._look = _look.lower((guide, control), inner.spec.observers[-1], devices, shape, self._seed,
                                 np.int32(0)).compile()
        self._models, self._lead = None, None
        if models:
            leader = Leader.of(guide, control, inner)
            self._models = devices.on_each(jax.tree.map(jnp.asarray, dataclasses.replace(models, before=None)))
            self._lead = leading.lead.lower(leader, devices, self._models, shape.state, self._seed,
                                            np.int32(0)).compile()
        if hooks.on_memory and needed:
            hooks.on_memory(needed)
        self._before = outcomes.every(scheduler.given, (
            starts.market.ledgers, outcomes.mid_twice_of(simulator.spec.market, starts.market),
            outcomes.counts_of(starts.market, starts.token_state)))
        self._keeper = outcomes.Keeper(simulator.spec, is_whole=True)
        self._chunks: list[tuple[np.ndarray, Log]] = []
        state = scheduler.begin()
        if models and models.before is not None:
            state = leading.seeded(inner.spec.observers[-2], devices, state, np.asarray(models.before))
        self._carried = _carried(devices, state)
        self._clock = outcomes.RunClock(time.perf_counter() - began)
        self._steps = self._decided = 0

    def outcome(self, intervals: int) -> ControlledRollout:
        """Runs all intervals."""
        looks, told, of_chunks = [], [], []
        for interval in range(intervals):
            if self._lead:
                state, led = self._lead(self._models, self._carried.state, self._seed, np.int32(interval))
                self._carried = dataclasses.replace(self._carried, state=state)
                told.append(jax.device_get(led))
            of_chunks += [interval] * self._until((interval + 1) * self._control.every_s)
            self._carried, looked = self._look(self._carried, self._seed, np.int32(interval))
            looks.append(jax.device_get(looked))
        looks = jax.tree.map(lambda *x: np.stack(x), *looks)
        led = jax.tree.map(lambda *x: np.stack(x), *told) if told else None
        ancestors = lineages.of_islands(looks.source, looks.ess.shape[1])
        if self._control.way == "batch":
            looks = lineages.together(looks, self._control.island)
        places = lineages.places(ancestors)
        ledgers, mids, counts = self._before
        kept, at = self._keeper.trace(self._scheduler), places[of_chunks]
        trace, dropped = lineages.of_trace(kept, at), lineages.dropped(kept.chunks, at)
        if self._hooks.on_trace:
            dropped += lineages.dropped(self._chunks, at)
            for who, log in lineages.of_chunks(self._chunks, at):
                self._hooks.on_trace(who, log)
        rollout = outcomes.of_ended(self._simulator, self._carried.state, (Before(ledgers, mids), trace), counts,
                                    dropped, (self._steps, self._clock.compile_s,
                                              self._clock.run_s))
        full_books = int((looks.side_full > counts[0][:, Status.SIDE_FULL]).any(axis=0).sum())
        return ControlledRollout.of(rollout, looks, ancestors, (self._control.every_s, self._decided, full_books), led)

    def _until(self, passed_s: int) -> int:
        """To the end of an interval, seconds since the start; how many compiled calls that took."""
        goes_on, chunks, before = True, 0, np.array(self._carried.state.step)
        while goes_on:
            self._carried, *found = self._run(self._arrays, self._carried, self._seed, np.int32(passed_s))
            state, chunks = self._carried.state, chunks + 1
            made, steps, more, end, at = jax.device_get((*found, state.end, state.time))
            goes_on = bool(more.any())
            self._steps, self._decided = self._steps + int(steps.max()), self._decided + int(made.sum())
            if self._lead:
                _check_decisions(self._control, int((np.asarray(state.step) - before).max()))
            if self._hooks.on_trace:
                log = state.observed[len(self._simulator.spec.observers) + 1]  # after the minute bars
                outcomes.traced(self._scheduler, log, lambda *chunk: self._chunks.append(chunk))
            self._keeper.keep(self._scheduler, state)
            if self._hooks.on_chunk:
                so_far = functools.partial(outcomes.so_far, self._scheduler, state,
                                           len(self._simulator.spec.observers), self._before[1])
                self._hooks.on_chunk(RolloutProgress(self._steps, *self._scheduler.progress(end, at), self._decided,
                                                     self._clock.run_s, so_far))
        return chunks


def _check_decisions(control: ControlSpec, made: int) -> None:
    """InputError where a led trajectory has made too many in an interval; the same in chunks of any size."""
    if made > control.most_decisions:
        quieter = f"tell it less loudly (ControlSpec.told, {control.told:g}), or " if control.told else ""
        raise InputError(f"ControlSpec.most_decisions: a led future made more than {control.most_decisions:,} "
                         f"decisions in an interval of {control.every_s} s: {quieter}allow more")


@functools.partial(jax.jit, static_argnums=0, donate_argnums=1)
def _carried(devices: Devices, state: SimState) -> Carried:
    """Trajectories at their starts."""
    def begun(state: SimState) -> Carried:
        zero = jnp.zeros_like(state.step)
        return Carried(state, zero.astype(jnp.float32), zero, jax.tree.map(jnp.copy, state.time))

    found: Carried = devices.on_its_own(begun, (False,))(state)
    return found


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _chunk(structure: jax.tree_util.PyTreeDef, most: int, devices: Devices, arrays: list[jax.Array], carried: Carried,
           seed: jax.Array, passed_s: jax.Array) -> tuple[Carried, jax.Array, jax.Array, jax.Array]:
    """Decisions of all trajectories that are not `passed_s` seconds from their starts, `most` of each.

    Those whose time is over by then go on to their ends. Of each device: decisions made, steps, and whether a
    trajectory is not there yet. `structure` and `arrays` are those of a `Simulator`.
    """
    found: tuple[Carried, jax.Array, jax.Array, jax.Array] = devices.on_its_own(
        functools.partial(_steps, structure, most), (True, False, True, True))(arrays, carried, seed, passed_s)
    return found


def _steps(structure: jax.tree_util.PyTreeDef, most: int, arrays: list[jax.Array], carried: Carried, seed: jax.Array,
           passed_s: jax.Array) -> tuple[Carried, jax.Array, jax.Array, jax.Array]:
    """`_chunk` of the trajectories of one device."""
    given: Simulator = jax.tree.unflatten(structure, arrays)
    simulator, state = given.prepared(), carried.state
    keys = keys_of(seed, state.trajectory, carried.epoch)
    ends = Time(carried.origin.s + passed_s, carried.origin.ns)
    state = dataclasses.replace(state, observed=tuple(
        observer.emptied(kept) if isinstance(observer, TraceObserver) else kept
        for observer, kept in zip(simulator.spec.observers, state.observed, strict=True)))

    def asked(state: SimState) -> jax.Array:
        is_before = times.before(state.time, ends) | ~times.before(ends, state.until)
        return jnp.asarray((state.end == End.RUNNING) & is_before)

    def one(carry: _Made, _: None) -> tuple[_Made, None]:
        state, made, count = carry
        state, decision = sim_step.step(simulator, state, sim_step.draw_from(keys, state.step), asked(state))
        return (state, made + decision.active, count + 1), None

    # A step of which nobody is asked changes nothing, so that the last part of an interval may be longer than it need.
    part = min(kernels.chosen(simulator.spec.cache.kernels).steps_a_look, most)
    state, made, count = jax.lax.while_loop(lambda carry: jnp.any(asked(carry[0])) & (carry[2] + part <= most),
                                            lambda carry: jax.lax.scan(one, carry, length=part)[0],
                                            (state, jnp.zeros_like(state.step), jnp.int32(0)))
    more = jnp.any(asked(state))
    return (dataclasses.replace(carried, state=state), jnp.sum(made, dtype=jnp.int32)[None], count[None], more[None])


def keys_of(seed: Array, trajectory: Array, epoch: Array) -> jax.Array:
    """Typed keys [B] of trajectories [B] in their epochs [B]: those of a plain rollout in epoch 0."""
    def one(number: Array, epoch: Array) -> jax.Array:
        first = sim_step.key_of(seed, number)
        later = jax.random.fold_in(first, jnp.uint32(_EPOCHS) - jnp.asarray(epoch).astype(jnp.uint32))
        data = jnp.where(epoch > 0, jax.random.key_data(later), jax.random.key_data(first))
        return jax.random.wrap_key_data(data, impl="threefry2x32")

    return jax.vmap(one)(trajectory, epoch)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _look(wanted: tuple[Guide, ControlSpec], observer: FeatureObserver, devices: Devices, carried: Carried,
          seed: jax.Array, interval: jax.Array) -> tuple[Carried, Looked]:
    """The trajectories after the end of an interval, resampled where that is due."""
    look = functools.partial(_look_at, *wanted, observer)
    found: tuple[Carried, Looked] = devices.on_its_own(look, (False, True, True))(carried, seed, interval)
    return found


def _look_at(guide: Guide, control: ControlSpec, observer: FeatureObserver, carried: Carried, seed: jax.Array,
             interval: jax.Array) -> tuple[Carried, Looked]:
    """`_look` at the trajectories of one device."""
    state, batch = carried.state, carried.epoch.shape[0]
    side_full = jnp.array(state.market.counters.status)[:, Status.SIDE_FULL]
    island = 1 if control.way == "batch" else control.island or batch
    shape = (batch // island, island)
    seen, places = observer.of(state.observed[-1]), jnp.broadcast_to(jnp.arange(island, dtype=jnp.int32), shape)
    weight, epoch = jnp.asarray(carried.log_weight), jnp.asarray(carried.epoch)
    bounds = [Time(carried.origin.s + (interval + later) * control.every_s, carried.origin.ns) for later in (0, 1)]
    # All of an island have one start and one end. An interval that begins after it is no part of its time.
    is_over, is_last = (~jnp.asarray(times.before(at, state.until)).reshape(shape)[:, 0] for at in bounds)
    goes_on = jnp.zeros(shape[0], bool)
    if control.is_resampled:
        lost = jnp.isin(state.end, jnp.array(LOST))
        score = jnp.where(lost, -jnp.inf, control.strength * guides.usable(guide.score(interval, seen)))
        weight += jnp.where(jnp.repeat(is_over, island), 0.0, score)
    weighed = resampling.weigh(weight.reshape(shape))
    if control.is_resampled:
        goes_on = ~is_over & ~weighed.is_even & (is_last | (weighed.ess < control.resample_below))
        uniform = resampling.uniform(seed, interval, state.trajectory.reshape(shape)[:, 0])
        chosen = resampling.ancestors(resampling.offspring(weighed.weight, uniform))
        places = jnp.where(goes_on[:, None], chosen, places)
        source = (places + island * jnp.arange(shape[0], dtype=jnp.int32)[:, None]).reshape(-1)
        # The number stays at its place: copies have the draws of their own places.
        state = dataclasses.replace(resampling.copied(state, source), trajectory=state.trajectory)
        ends = jnp.repeat(goes_on, island)
        weight, epoch = jnp.where(ends, 0.0, weight), jnp.where(ends, interval + 1, epoch)
    observed = (*state.observed[:-1], observer.emptied(state.observed[-1]))
    after = Carried(dataclasses.replace(state, observed=observed), weight, epoch, carried.origin)
    mean = jnp.where(~is_over & (goes_on | is_last), weighed.log_mean, 0.0)
    if control.is_led and not control.is_resampled:
        mean = jnp.full_like(mean, jnp.nan)
    return after, Looked(seen, places.reshape(-1), jnp.where(is_over, jnp.nan, weighed.ess), goes_on, mean, side_full)
