"""Futures of starting states: rollouts of an order model, as many at a time as are wanted, in books that are enough."""

import dataclasses
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from marsjax.agents.base import Agent
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.observers.trace import Log
from marsjax.sim import rollout
from marsjax.sim.devices import Devices
from marsjax.sim.initial import Start, resize
from marsjax.sim.result import Rollout
from marsjax.sim.resume import Saving
from marsjax.sim.rollout import NO_HOOKS, Hooks, RolloutProgress
from marsjax.sim.specs import BACKGROUND_ACCOUNT, RolloutSpec
from marsjax.studies.checks import check_numbers
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.progress import NOBODY_WATCHES, FuturesProgress, Watching

ACCOUNT = BACKGROUND_ACCOUNT
"""Account of the order model; the orders of a starting state are those of account 0, which it may cancel."""
_ROOM, _ROOM_A_MINUTE = 600, 120
"""Free slots a side that a book gets for a rollout, the larger of both: larger books cost less than beginning again."""
_MOST = 32768
_STEP = 128
"""Sizes of books are multiples of it: few sizes, few compilations."""
_SHARE = 0.9
"""Of the memory that is there, for the futures that are to fit: what is made of them at their ends takes some, too."""

OnChunk = Callable[[RolloutProgress], None]
OnTrace = Callable[[np.ndarray, Log], None]
"""Called after each chunk with the trajectories of its rows, int [R] (-1 for none, of which there are no events), and
its events."""


@dataclasses.dataclass(frozen=True)
class FuturesSpec:
    """How many futures of each start, how long, and of which draws.

    Examples:
      >>> from marsjax import testing
      >>> from marsjax.studies.order_model import prepare
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> start = testing.random_start(market, model)
      >>> (run,) = simulate(prepare(model), market, FuturesSpec(trajectories=4, minutes=1), [start])
      >>> run.ended, run.rejected
      ({'TIME': 4}, {})
    """

    trajectories: int
    minutes: int
    seed: int = 0
    temperature: float = 1.0
    """Of the model's sampling."""
    rollout_capacity: int = 0
    """Slots a side of the books; 0: as many as it takes, at first what rests at the fullest start and some more."""
    chunk_steps: int = 0
    """Decisions of a compiled call; no result depends on it. 0: the device's, `RolloutSpec.chunk_steps`."""
    most_at_once: int = 1024
    """Trajectories in one batch, at least those of one start; 0: as many as fit (`fitting`)."""
    nearest_minutes: bool = False
    """Whether bars round order times to the nearest minute, as `MinuteBarObserver.nearest`."""
    devices: int = 0
    """Devices of this process that share a batch; 0: all."""

    def __post_init__(self) -> None:
        check_numbers(self, trajectories=(1, limits.TRAJECTORIES), minutes=(1, limits.MINUTES),
                      chunk_steps=(0, limits.STEPS_OF_A_CALL), rollout_capacity=(0, _MOST),
                      most_at_once=(0, limits.TRAJECTORIES), devices=(0, limits.TRAJECTORIES))
        if not 0 <= self.seed <= limits.SEED:
            raise InputError(f"FuturesSpec.seed: expected 0 to {limits.SEED}, got {self.seed}")
        limits.check_temperature("FuturesSpec.temperature", self.temperature)


class Batch(NamedTuple):
    """Trajectories that are run together."""

    starts: Start
    """One state for all, or [B, ...] one each."""
    trajectories: int
    """B."""
    first: int = 0
    """Number of the first trajectory, the others count on; numbers key the draws."""
    numbers: np.ndarray | None = None
    """int [B], instead of `first`."""
    slots: int | None = None
    """Trajectories that run at a time; None: all."""
    agents: tuple[Agent, ...] = ()
    """Who else trades."""
    agent_starts: tuple[tuple[Any, Time], ...] = ()
    """State and first wake-up [B, ...] of each of them, instead of what its `init` gives."""


def simulate_batch(prepared: PreparedModel, market: MarketSpec, spec: FuturesSpec, batch: Batch,
                   hooks: Hooks = NO_HOOKS) -> Rollout:
    """One batch of trajectories to their end; errors are those of `rollout.rollout`.

    InputError where the trajectories do not fit the device.
    """
    numbers = None if batch.numbers is None else tuple(np.asarray(batch.numbers).tolist())
    rolled = RolloutSpec(batch.trajectories, spec.minutes, spec.seed, batch.first, numbers, batch.slots,
                         spec.chunk_steps, spec.nearest_minutes, devices=spec.devices)
    simulator = prepared.simulator(market, spec.temperature, batch.agents)
    try:
        return rollout.rollout(simulator, batch.starts, rolled, agent_starts=batch.agent_starts, hooks=hooks)
    except MemoryError as error:
        raise InputError(f"most_at_once, trajectories, slots: {error}") from error


def simulate(prepared: PreparedModel, market: MarketSpec, spec: FuturesSpec, starts: Sequence[Start], first: int = 0,
            on_trace: OnTrace | None = None, saving: Saving | None = None, watch: Watching = NOBODY_WATCHES
            ) -> list[Rollout]:
    """Rollouts of each start, `spec.trajectories` of `spec.minutes`.

    Trajectory b of start i draws as number (first + i) x trajectories + b. As many starts as `spec.most_at_once`
    trajectories make are run at once. Where a side of a book gets full, those starts are run again in twice the slots,
    which is the same run but for the orders refused (not where `on_trace` has seen them, unless `watch.on_begin` is
    there to hear that they begin again). With `saving` all starts must be one batch. InputError where they do not fit
    the device.
    """
    capacity = first_capacity(spec, starts)
    most_at_once = spec.most_at_once or (
        fitting(prepared, market, spec, starts[0], on_trace is not None) if len(starts) > 1 else 1)
    at_once = max(most_at_once // spec.trajectories, 1)
    if saving and at_once < len(starts):
        raise InputError(f"save_folder: expected one batch, at most {spec.most_at_once} trajectories (most_at_once), "
                         f"got {len(starts) * spec.trajectories}")
    done: list[Rollout] = []
    with FuturesProgress(len(starts), spec.minutes) as progress:
        while len(done) < len(starts):
            some = [resize(one, capacity) for one in starts[len(done) : len(done) + at_once]]
            progress.begin(len(done), len(some))
            watch.begin(len(done), len(some))
            number = (first + len(done)) * spec.trajectories
            batch = Batch(some[0] if len(some) == 1 else _repeated(some, spec.trajectories),
                          len(some) * spec.trajectories, number, slots=None if saving else slots_of(prepared, spec))
            run = simulate_batch(prepared, dataclasses.replace(market, capacity=capacity), spec, batch,
                                 Hooks(watch.with_bar(progress), _numbered(on_trace, number), saving, watch.on_memory))
            is_settled = saving or (on_trace and not watch.on_begin)
            more = None if is_settled else next_capacity(spec, capacity, run)
            if more:
                capacity = more
                continue
            count = spec.trajectories
            done += [run.part(slice(i * count, (i + 1) * count)) for i in range(len(some))]
    return done


def slots_of(prepared: PreparedModel, spec: FuturesSpec) -> int | None:
    """Trajectories that run at a time on all devices; None: all of a batch."""
    return None if prepared.slots is None else prepared.slots * Devices.of(spec.devices).count


def fitting(prepared: PreparedModel, market: MarketSpec, spec: FuturesSpec, start: Start, is_traced: bool = False
            ) -> int:
    """How many futures of a start run at a time: as many as fit the memory of the devices, less a tenth.

    In books of twice the slots that they begin with, which they may come to need (`next_capacity`). Where rows are
    decoded in turn, as on a CPU, memory is no limit: twice as many as run at a time. Compiles a rollout of a few to see
    what it needs. InputError where the devices do not say what they have.
    """
    count = Devices.of(spec.devices).count
    if slots := slots_of(prepared, spec):
        return 2 * slots
    capacity = spec.rollout_capacity or min(2 * first_capacity(spec, [start]), _MOST)
    simulator = prepared.simulator(dataclasses.replace(market, capacity=capacity), spec.temperature)
    probe = RolloutSpec(_STEP * count, spec.minutes, chunk_steps=spec.chunk_steps, nearest_minutes=spec.nearest_minutes,
                        devices=spec.devices)
    hooks = Hooks(on_trace=lambda who, log: None) if is_traced else NO_HOOKS
    found = rollout.memory(simulator, resize(start, capacity), probe, hooks=hooks)
    if found is None or found.fit is None:
        raise InputError("trajectories, most_at_once: expected numbers, as the device does not say how much memory it "
                         "has")
    fit = min(int(found.fit * _SHARE), limits.TRAJECTORIES)
    even = _STEP * count if fit >= _STEP * count else count
    return max(fit // even * even, 1)


def _repeated(starts: Sequence[Start], trajectories: int) -> Start:
    """Each start so many times, one after the other, [B, ...]."""
    def repeated(*leaves: Any) -> np.ndarray:
        return np.repeat(np.stack([np.asarray(leaf) for leaf in leaves]), trajectories, axis=0)

    every: Start = jax.tree.map(repeated, *starts)
    return every


def _numbered(on_trace: OnTrace | None, first: int) -> OnTrace | None:
    """`on_trace`, called with numbers of trajectories from `first` on for places in a batch."""
    if on_trace is None:
        return None
    return lambda places, log: on_trace(np.where(places >= 0, first + places, -1), log)


def first_capacity(spec: FuturesSpec, starts: Sequence[Start]) -> int:
    """Slots a side of the books at first: those of the spec, or if 0 enough for the fullest start and more."""
    fullest = max(int((np.asarray(one.market.book.volume) > 0).sum(axis=1).max()) for one in starts)
    room = max(_ROOM, _ROOM_A_MINUTE * spec.minutes)
    return spec.rollout_capacity or min(-(-(fullest + room) // _STEP) * _STEP, _MOST)


def next_capacity(spec: FuturesSpec, capacity: int, run: Rollout) -> int | None:
    """Slots to repeat a run with in which a side was full; None if none was, or the spec says how many there are."""
    return larger(spec, capacity, int((run.status[:, Status.SIDE_FULL] > 0).sum()))


def larger(spec: FuturesSpec, capacity: int, books: int) -> int | None:
    """`next_capacity` of a run in which a side of so many books was full."""
    if spec.rollout_capacity or capacity >= _MOST or not books:
        return None
    logging.getLogger(__name__).warning("a side of %d books was full: again with %d slots a side", books,
                                        min(2 * capacity, _MOST))
    return min(2 * capacity, _MOST)
