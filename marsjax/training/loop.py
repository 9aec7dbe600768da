"""The training loop: random windows of all days, AdamW with warm-up, cosine decay and clipping, a running average."""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.tree_util import Partial

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.training.days import Tokens
from marsjax.training.stored import StreamedDays
from marsjax.training.stream import WindowStream

Weights = TypeVar("Weights")
Objective = Callable[[Any, jax.Array, jax.Array | None], jax.Array]
"""(weights, windows int32 [B, T + 1, 15], a key or None) -> nats of each prediction, [B, T]. With a key it is what a
step of training makes small, which draws by it; without one, what is measured. Hashable, as a static argument is, or a
`jax.tree_util.Partial` of such a function and arrays, which are arguments then."""
DATA = "data"
"""Axis of a mesh that a step's windows are spread over."""
_DRAWN = 2**22
"""Numbers of streamed windows that are drawn at a time, at least those of a look."""


@dataclasses.dataclass(frozen=True)
class TrainSpec:
    """How a model is trained."""

    steps: int = 2000
    batch: int = 16
    """Windows a step."""
    length: int = 1024
    """Tokens that a window predicts."""
    peak_rate: float = 1e-3
    warmup: int = 100
    """Steps."""
    decay: float = 0.1
    """Of the weights, AdamW."""
    undecayed: tuple[str, ...] = ()
    """Weights with one of these in their name are left out of the decay."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    accumulate: int = 1
    """Parts that a step's windows are taken in, one after the other, where they do not fit in memory at once."""
    average: float = 0.0
    """Share of the running average of the weights that a step keeps; 0: the average is the weights. Early steps keep
    less, at most (1 + step) / (10 + step), so that the average soon forgets the start."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "length", "peak_rate", "clip", "accumulate"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"TrainSpec.{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("warmup", "decay"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"TrainSpec.{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 <= self.average < 1:
            raise InputError(f"TrainSpec.average: expected at least 0 and below 1, got {self.average}")
        if self.batch % self.accumulate:
            raise InputError(f"TrainSpec.batch: expected a multiple of accumulate={self.accumulate}, got {self.batch}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainingProgress(Generic[Weights]):
    """The state of a training run."""

    params: Weights
    average: Weights
    """Of the weights over the steps: what is evaluated and kept."""
    optimizer: optax.OptState
    step: Array


def rate(train: TrainSpec) -> optax.Schedule:
    """Learning rate by step: linear warm-up, then half a cosine down to 0."""
    return optax.warmup_cosine_decay_schedule(0.0, train.peak_rate, min(train.warmup, train.steps), train.steps + 1)


def optimizer(train: TrainSpec) -> optax.GradientTransformation:
    """AdamW with the schedule and the clipping of `train`."""
    def decayed(weights: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda path, _: not any(word in jax.tree_util.keystr(path) for word in train.undecayed), weights)

    adam = optax.adamw(rate(train), weight_decay=train.decay, mask=decayed if train.undecayed else None)
    return optax.chain(optax.clip_by_global_norm(train.clip), adam)


def begin(train: TrainSpec, params: Weights, mesh: Mesh | None = None) -> TrainingProgress[Weights]:
    """A run before its first step, the same on every device of `mesh`. Every array has a buffer of its own."""
    fresh = TrainingProgress(params, params, optimizer(train).init(params), jnp.zeros((), jnp.int32))
    return _on(mesh, jax.tree.map(jnp.array, fresh))


def run(train: TrainSpec, objective: Objective, progress: TrainingProgress[Weights], days: Sequence[Tokens],
        key: jax.Array, every: int = 100,
        mesh: Mesh | None = None) -> Iterator[tuple[TrainingProgress[Weights], float]]:
    """Trains on the tokens of days, int32 [M, 15] each, yielding the state and the mean loss every so many steps.

    Args:
      train: sizes and rates.
      objective: what is made small.
      progress: from `begin`, or as yielded; its arrays are given away.
      days: windows never cross from one to the next; a day is drawn by its number of windows. Of `StreamedDays` windows
        are read on the way; of all others the tokens lie on each device. The same windows are drawn.
      key: a step's windows depend on (key, step) alone: a run that is taken up again at a yielded state goes on as it
        would have.
      every: steps of a compiled call; no result depends on it.
      mesh: of devices with an axis `data`, among which a step's windows are shared out.

    Raises InputError where a day is shorter than a window, where the windows cannot be shared out evenly, and at a
    loss that is no number.
    """
    parts = math.prod(mesh.shape.values()) if mesh else 1
    if train.batch % (train.accumulate * parts):
        raise InputError(f"TrainSpec.batch: expected a multiple of accumulate={train.accumulate} times the {parts} "
                         f"devices, got {train.batch}")
    objective = _on(mesh, objective if isinstance(objective, Partial) else Partial(objective))
    progress, step = _on(mesh, progress), int(progress.step)
    source = (_Streamed(train, objective, days, key, mesh, step, every) if isinstance(days, StreamedDays) else
              _OnDevice(train, objective, days, key, mesh))
    with contextlib.closing(source):
        while step < train.steps:
            count = min(every, train.steps - step)
            progress, losses = source.advance(progress, count)
            bad = np.flatnonzero(~np.isfinite(np.asarray(losses)))
            if bad.size:
                raise InputError(f"training: the loss of step {step + bad[0]} is {losses[bad[0]]}, no finite number; "
                                 f"lower the rate (peak_rate={train.peak_rate}) or clip more (clip={train.clip})")
            step += count
            yield progress, float(jnp.mean(losses))


def drawn(key: jax.Array, step: Array, batch: int, windows: int) -> jax.Array:
    """The windows of a step, int32 [batch] below their number, and so for each step of an array of them."""
    def of_one(one: jax.Array) -> jax.Array:
        return jax.random.randint(jax.random.fold_in(key, one), (batch,), 0, windows)

    return jnp.vectorize(of_one, signature="()->(b)")(step)


class _OnDevice:
    """Steps of days whose tokens all lie on the device."""

    def __init__(self, train: TrainSpec, objective: Objective, days: Sequence[Tokens], key: jax.Array,
                 mesh: Mesh | None) -> None:
        self._how, self._objective, self._key = (train, mesh), objective, key
        starts, flat = first_tokens(train.length, days), np.concatenate([day[:] for day in days])
        self._days = _on(mesh, (jnp.asarray(flat), jnp.asarray(starts, jnp.int32)))

    def advance(self, progress: TrainingProgress[Weights], count: int) -> tuple[TrainingProgress[Weights], jax.Array]:
        """So many steps, and the loss of each."""
        return _steps(*self._how, count, self._objective, progress, *self._days, self._key)

    def close(self) -> None:
        """Nothing goes on."""


class _Streamed:
    """Steps of days whose windows are read on the way."""

    def __init__(self, train: TrainSpec, objective: Objective, days: StreamedDays, key: jax.Array, mesh: Mesh | None,
                 first: int, every: int) -> None:
        self._how, self._key, self._days = (train, objective), key, days
        # Calls end where a look does, so that there are few sizes of them to compile.
        together = next(count for count in range(min(days.together, every), 0, -1) if every % count == 0)
        windows = int(window_counts(train.length, days).sum())
        sharding = NamedSharding(mesh, PartitionSpec(None, None, DATA)) if mesh else None
        self._stream = WindowStream(days, train.length, _calls(train, key, windows, range(first, train.steps),
                                                               together, every), sharding)

    def advance(self, progress: TrainingProgress[Weights], count: int) -> tuple[TrainingProgress[Weights], jax.Array]:
        """So many steps, and the loss of each."""
        began, done = time.perf_counter(), 0
        losses: list[jax.Array] = []
        while done < count:
            windows = self._stream.next(losses[-1:])
            progress, part = _streamed_steps(*self._how, progress, windows, self._key)
            losses.append(part)
            done += len(windows)
            jax.block_until_ready(losses[-3:-2])  # more calls under way would hold more windows
        found = jax.block_until_ready(jnp.concatenate(losses))
        self._days.steps_s += time.perf_counter() - began
        return progress, found

    def close(self) -> None:
        """Reads no further."""
        self._stream.close()


def _calls(train: TrainSpec, key: jax.Array, windows: int, steps: range, together: int, every: int
           ) -> Iterator[np.ndarray]:
    """Windows of each call, int32 [steps, accumulate, batch / accumulate], drawn for many calls at a time."""
    many = every * max(_DRAWN // (every * train.batch), 1)
    for at in range(steps.start, steps.stop, many):
        numbers = np.asarray(_drawn(key, np.arange(at, min(at + many, steps.stop)), train.batch, windows))
        numbers = numbers.reshape(len(numbers), train.accumulate, -1)
        yield from (numbers[first : first + together] for first in range(0, len(numbers), together))


def window_counts(length: int, days: Sequence[Tokens]) -> np.ndarray:
    """Windows of `length` + 1 tokens in each day; InputError where none fits, or there are more than int32 counts."""
    if not days:
        raise InputError("training: expected at least one day, got none")
    room = np.array([len(day) - length for day in days])
    if (room <= 0).any():
        raise InputError(f"training: a window of {length} + 1 tokens does not fit in a day of "
                         f"{len(days[int(np.argmin(room))])}")
    if room.sum() >= 2**31:
        raise InputError(f"training: expected fewer than 2**31 windows, got {room.sum()}: train on fewer days")
    return room


def first_tokens(length: int, days: Sequence[Tokens]) -> np.ndarray:
    """First tokens of all windows of `length` + 1 tokens, counted through all days; InputError where none fits."""
    room = window_counts(length, days)
    return np.concatenate([offset + np.arange(count) for offset, count in
                           zip(np.cumsum([0, *map(len, days[:-1])]), room, strict=True)])


def _on(mesh: Mesh | None, tree: Any) -> Any:
    """Copies on every device of the mesh."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


_drawn = jax.jit(drawn, static_argnums=(2, 3))


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=4)
def _steps(train: TrainSpec, mesh: Mesh | None, count: int, objective: Objective, progress: TrainingProgress[Weights],
           flat: jax.Array, starts: jax.Array, key: jax.Array) -> tuple[TrainingProgress[Weights], jax.Array]:
    def windows(first: jax.Array) -> jax.Array:
        if mesh is not None:
            first = jax.lax.with_sharding_constraint(first, NamedSharding(mesh, PartitionSpec(DATA)))
        return flat[first[:, None] + jnp.arange(train.length + 1)]

    def one(now: TrainingProgress[Weights], _: None) -> tuple[TrainingProgress[Weights], jax.Array]:
        first = starts[drawn(key, now.step, train.batch, len(starts))]
        return _updated(train, objective, now, first.reshape(train.accumulate, -1), windows, key)

    return jax.lax.scan(one, progress, None, length=count)


@functools.partial(jax.jit, static_argnums=0, donate_argnums=2)
def _streamed_steps(train: TrainSpec, objective: Objective, progress: TrainingProgress[Weights], windows: jax.Array,
                    key: jax.Array) -> tuple[TrainingProgress[Weights], jax.Array]:
    """A step for each of windows int32 [S, accumulate, batch / accumulate, length + 1, C]."""
    return jax.lax.scan(lambda now, parts: _updated(train, objective, now, parts, lambda part: part, key),
                        progress, windows)


def _updated(train: TrainSpec, objective: Objective, now: TrainingProgress[Weights], parts: jax.Array,
             windows: Callable[[jax.Array], jax.Array], key: jax.Array) -> tuple[TrainingProgress[Weights], jax.Array]:
    """One step: `windows` makes those of a part, int32 [B, length + 1, C], from what stands for it."""
    def of_part(part: jax.Array, part_key: jax.Array) -> Any:
        features = windows(part)
        return jax.value_and_grad(lambda weights: jnp.mean(objective(weights, features, part_key)))(now.params)

    value, gradient = _accumulated(train, of_part, parts, jax.random.fold_in(key, now.step))
    return stepped(train, now, gradient), value


def stepped(train: TrainSpec, now: TrainingProgress[Weights], gradient: Weights) -> TrainingProgress[Weights]:
    """A run after a step along a gradient."""
    updates, state = optimizer(train).update(gradient, now.optimizer, now.params)
    params = optax.apply_updates(now.params, updates)
    return TrainingProgress(params, _averaged(train, now, params), state, now.step + 1)


def _accumulated(train: TrainSpec, of_part: Callable[[jax.Array, jax.Array], Any], parts: jax.Array, key: jax.Array
                 ) -> Any:
    """Loss and gradient over all windows, the mean of their parts [accumulate, ...], each with a key of its own."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(train.accumulate))
    if train.accumulate == 1:
        return of_part(parts[0], keys[0])
    zero = jax.eval_shape(of_part, parts[0], keys[0])
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zero)
    total, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, of_part(*part)), None), total,
                            (parts, keys))
    return jax.tree.map(lambda x: x / train.accumulate, total)


def _averaged(train: TrainSpec, now: TrainingProgress[Weights], params: Weights) -> Weights:
    if not train.average:
        return params
    step = now.step.astype(jnp.float32)
    keep = jnp.minimum(train.average, (1 + step) / (10 + step))
    return optax.incremental_update(params, now.average, 1 - keep)
