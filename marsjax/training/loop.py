"""A plain training loop: random windows of all days, AdamW with warm-up, cosine decay and clipping."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from marsjax.model import Params
from marsjax.specs import ComputeSpec, ModelSpec
from marsjax.training import loss
from marsjax.types import Array


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
    clip: float = 1.0
    """Largest norm of a gradient."""
    chunk: int = 128
    """Positions whose logits are made at a time."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "length", "peak_rate", "clip", "chunk"):
            if getattr(self, name) <= 0:
                raise ValueError(f"TrainSpec.{name}: expected a positive number, got {getattr(self, name)}")
        if self.length % self.chunk:
            raise ValueError(f"TrainSpec.length: expected a multiple of chunk={self.chunk}, got {self.length}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Progress:
    """The state of a training run."""

    params: Params
    optimizer: optax.OptState
    step: Array


def optimizer(train: TrainSpec) -> optax.GradientTransformation:
    """AdamW with the schedule and the clipping of `train`."""
    rate = optax.warmup_cosine_decay_schedule(0.0, train.peak_rate, min(train.warmup, train.steps), train.steps + 1)
    return optax.chain(optax.clip_by_global_norm(train.clip), optax.adamw(rate, weight_decay=train.decay))


def begin(train: TrainSpec, params: Params) -> Progress:
    """A run before its first step."""
    return Progress(params, optimizer(train).init(params), jnp.zeros((), jnp.int32))


def run(train: TrainSpec, spec: ModelSpec, compute: ComputeSpec, progress: Progress, days: Sequence[np.ndarray],
        key: jax.Array, every: int = 100) -> Iterator[tuple[Progress, float]]:
    """Trains on the tokens of days, int32 [M, 15] each, yielding the state and the mean loss every so many steps.

    A step's windows depend on (key, step) alone: a run that is taken up again at a yielded state goes on as it would
    have. Windows never cross from day to day; a day is drawn by its number of windows.
    """
    room = np.array([len(day) - train.length for day in days])
    if (room <= 0).any():
        raise ValueError(f"training: a window of {train.length} + 1 tokens does not fit in a day of "
                         f"{len(days[int(np.argmin(room))])}")
    starts = np.concatenate([offset + np.arange(count) for offset, count in
                             zip(np.cumsum([0, *map(len, days[:-1])]), room, strict=True)])
    flat, first = jnp.asarray(np.concatenate(days)), jnp.asarray(starts, jnp.int32)
    while int(progress.step) < train.steps:
        count = min(every, train.steps - int(progress.step))
        progress, losses = _steps(train, spec, compute, count, progress, flat, first, key)
        yield progress, float(jnp.mean(losses))


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _steps(train: TrainSpec, spec: ModelSpec, compute: ComputeSpec, count: int, progress: Progress, flat: jax.Array,
           starts: jax.Array, key: jax.Array) -> tuple[Progress, jax.Array]:
    def one(now: Progress, _: None) -> tuple[Progress, jax.Array]:
        first = jax.random.choice(jax.random.fold_in(key, now.step), starts, (train.batch,))
        features = flat[first[:, None] + jnp.arange(train.length + 1)]
        value, gradient = jax.value_and_grad(
            lambda p: jnp.mean(loss.next_token(p, spec, compute, features, train.chunk)))(now.params)
        updates, state = optimizer(train).update(gradient, now.optimizer, now.params)
        return Progress(optax.apply_updates(now.params, updates), state, now.step + 1), value

    return jax.lax.scan(one, progress, None, length=count)
