"""The training loop: random windows of all days, AdamW with warm-up, cosine decay and clipping, a running average."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from marsjax.core.errors import InputError
from marsjax.core.records import Array

Weights = TypeVar("Weights")
Objective = Callable[[Any, jax.Array, jax.Array | None], jax.Array]
"""(weights, windows int32 [B, T + 1, 15], a key or None) -> nats of each prediction, [B, T]. With a key it is what a
step of training makes small, which draws by it; without one, what is measured. Hashable: it is a static argument."""
DATA = "data"
"""Axis of a mesh that a step's windows are spread over."""


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


def run(train: TrainSpec, objective: Objective, progress: TrainingProgress[Weights], days: Sequence[np.ndarray],
        key: jax.Array, every: int = 100,
        mesh: Mesh | None = None) -> Iterator[tuple[TrainingProgress[Weights], float]]:
    """Trains on the tokens of days, int32 [M, 15] each, yielding the state and the mean loss every so many steps.

    Args:
      train: sizes and rates.
      objective: what is made small.
      progress: from `begin`, or as yielded; its arrays are given away.
      days: windows never cross from one to the next; a day is drawn by its number of windows.
      key: a step's windows depend on (key, step) alone: a run that is taken up again at a yielded state goes on as it
        would have.
      every: steps of a compiled call; no result depends on it.
      mesh: of devices with an axis `data`, among which a step's windows are shared out.

    Raises InputError where a day is shorter than a window, where the windows cannot be shared out evenly, and at a
    loss that is no number.
    """
    starts, flat = first_tokens(train.length, days), np.concatenate(days)
    parts = math.prod(mesh.shape.values()) if mesh else 1
    if train.batch % (train.accumulate * parts):
        raise InputError(f"TrainSpec.batch: expected a multiple of accumulate={train.accumulate} times the {parts} "
                         f"devices, got {train.batch}")
    progress, tokens, first = _on(mesh, (progress, jnp.asarray(flat), jnp.asarray(starts, jnp.int32)))
    while (step := int(progress.step)) < train.steps:
        count = min(every, train.steps - step)
        progress, losses = _steps(train, objective, mesh, count, progress, tokens, first, key)
        bad = np.flatnonzero(~np.isfinite(np.asarray(losses)))
        if bad.size:
            raise InputError(f"training: the loss of step {step + bad[0]} is {losses[bad[0]]}, no finite number; lower "
                             f"the rate (peak_rate={train.peak_rate}) or clip more (clip={train.clip})")
        yield progress, float(jnp.mean(losses))


def first_tokens(length: int, days: Sequence[np.ndarray]) -> np.ndarray:
    """First tokens of all windows of `length` + 1 tokens, counted through all days; InputError where none fits."""
    if not days:
        raise InputError("training: expected at least one day, got none")
    room = np.array([len(day) - length for day in days])
    if (room <= 0).any():
        raise InputError(f"training: a window of {length} + 1 tokens does not fit in a day of "
                         f"{len(days[int(np.argmin(room))])}")
    return np.concatenate([offset + np.arange(count) for offset, count in
                           zip(np.cumsum([0, *map(len, days[:-1])]), room, strict=True)])


def _on(mesh: Mesh | None, tree: Any) -> Any:
    """Copies on every device of the mesh."""
    return tree if mesh is None else jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _steps(train: TrainSpec, objective: Objective, mesh: Mesh | None, count: int, progress: TrainingProgress[Weights],
           flat: jax.Array, starts: jax.Array, key: jax.Array) -> tuple[TrainingProgress[Weights], jax.Array]:
    def loss_of(first: jax.Array, key: jax.Array) -> Callable[[Weights], jax.Array]:
        if mesh is not None:
            first = jax.lax.with_sharding_constraint(first, NamedSharding(mesh, PartitionSpec(DATA)))
        features = flat[first[:, None] + jnp.arange(train.length + 1)]
        return lambda weights: jnp.mean(objective(weights, features, key))

    def one(now: TrainingProgress[Weights], _: None) -> tuple[TrainingProgress[Weights], jax.Array]:
        own = jax.random.fold_in(key, now.step)
        first = jax.random.choice(own, starts, (train.batch,))
        value, gradient = _accumulated(
            train, lambda part, part_key: jax.value_and_grad(loss_of(part, part_key))(now.params), first, own)
        updates, state = optimizer(train).update(gradient, now.optimizer, now.params)
        params = optax.apply_updates(now.params, updates)
        return TrainingProgress(params, _averaged(train, now, params), state, now.step + 1), value

    return jax.lax.scan(one, progress, None, length=count)


def _accumulated(train: TrainSpec, of_part: Callable[[jax.Array, jax.Array], Any], first: jax.Array, key: jax.Array
                 ) -> Any:
    """Loss and gradient over all windows, the mean of their parts, each with a key of its own."""
    keys = jax.vmap(functools.partial(jax.random.fold_in, key))(jnp.arange(train.accumulate))
    if train.accumulate == 1:
        return of_part(first, keys[0])
    parts = first.reshape(train.accumulate, -1), keys
    zero = jax.eval_shape(of_part, *jax.tree.map(lambda x: x[0], parts))
    total = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), zero)
    total, _ = jax.lax.scan(lambda sums, part: (jax.tree.map(jnp.add, sums, of_part(*part)), None), total, parts)
    return jax.tree.map(lambda x: x / train.accumulate, total)


def _averaged(train: TrainSpec, now: TrainingProgress[Weights], params: Weights) -> Weights:
    if not train.average:
        return params
    step = now.step.astype(jnp.float32)
    keep = jnp.minimum(train.average, (1 + step) / (10 + step))
    return optax.incremental_update(params, now.average, 1 - keep)
