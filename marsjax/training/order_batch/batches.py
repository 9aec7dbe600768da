"""Trains a batch model on the codes of minutes one after the other."""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.model.order_batch import batch_model
from marsjax.model.order_batch.batch_model import BatchModel
from marsjax.model.order_batch.specs import BatchModelSpec
from marsjax.model.order_batch.tokenizer import Tokenizer
from marsjax.training.order_batch.data import Minutes

_TOGETHER = 64
"""Windows of one compiled look."""
_IMAGES = 512
"""Images of one compiled encoding."""


@dataclasses.dataclass(frozen=True)
class BatchTraining:
    """How a batch model is trained.

    Examples:
      >>> BatchTraining(steps=10).batch
      32
    """

    steps: int = 1200
    batch: int = 32
    """Windows a step."""
    peak_rate: float = 2e-3
    decay: float = 0.3
    """Of the weights, AdamW."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    replaced: float = 0.1
    """Share of the codes read that a step exchanges for others, so that few minutes are not learnt by heart."""
    every: int = 100
    """Steps between two looks at the validation part."""
    patience: int = 8
    """Looks without a new best after which the training ends; 0: none."""

    def __post_init__(self) -> None:
        for name, low in (("steps", 1), ("batch", 1), ("every", 1), ("patience", 0)):
            limits.check_whole(f"BatchTraining.{name}", getattr(self, name), low, 2**31 - 1)
        for name in ("peak_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"BatchTraining.{name}: expected a positive number, got {getattr(self, name)}")
        if not 0 <= self.decay < math.inf:
            raise InputError(f"BatchTraining.decay: expected at least 0, got {self.decay}")
        if not 0 <= self.replaced < 1:
            raise InputError(f"BatchTraining.replaced: expected at least 0 and below 1, got {self.replaced}")


class BatchWindows(NamedTuple):
    """Minutes with up to K before each, NumPy arrays [W, ...]: a window for every minute of every run."""

    codes: np.ndarray
    """int32 [W, K + 1, C], the first minutes first; those past `lengths` are 0."""
    lengths: np.ndarray
    """int32 [W], minutes in the window, 1 to K + 1; the last of them is the minute that it is of."""


def encoded(tokenizer: Tokenizer, runs: Sequence[Minutes]) -> list[np.ndarray]:
    """The codes of runs of minutes, int32 [I, C] each."""
    every = np.concatenate([run.images for run in runs])
    parts = []
    for first in range(0, len(every), _IMAGES):
        some = every[first : first + _IMAGES]
        padded = np.pad(some, [(0, _IMAGES - len(some)), (0, 0), (0, 0), (0, 0)])
        parts.append(np.asarray(_encode(tokenizer, padded))[: len(some)])
    return np.split(np.concatenate(parts), np.cumsum([len(run.images) for run in runs])[:-1])


def windows(codes: Sequence[np.ndarray], batches: int) -> BatchWindows:
    """A window for each minute of runs of codes, int32 [I, C] each, with up to `batches` minutes before it."""
    found, counts = [], []
    for run in codes:
        for last in range(1, len(run) + 1):
            part = run[max(last - batches - 1, 0) : last]
            found.append(np.pad(part, ((0, batches + 1 - len(part)), (0, 0))))
            counts.append(len(part))
    return BatchWindows(np.stack(found), np.array(counts, np.int32))


def fitted(spec: BatchModelSpec, training: BatchTraining, given: BatchWindows, validation: BatchWindows, key: jax.Array
           ) -> tuple[BatchModel, list[dict[str, float]]]:
    """The model of the look at which the validation part costs least, and a row of each look."""
    start_key, step_key = jax.random.split(key)
    best, since = batch_model.init(spec, start_key), 0
    rows: list[dict[str, float]] = []
    for model, step, loss in run(training, best, given, step_key):
        row = {"step": step, "loss": loss, "validation_loss": float(nats(model, validation).mean())}
        since += 1
        if row["validation_loss"] <= min((each["validation_loss"] for each in rows), default=math.inf):
            best, since = jax.tree.map(jnp.array, model), 0
        rows.append(row)
        if training.patience and since >= training.patience:
            break
    return best, rows


def run(training: BatchTraining, model: BatchModel, given: BatchWindows, key: jax.Array
        ) -> Iterator[tuple[BatchModel, int, float]]:
    """Trains, yielding the model, the step and the mean loss, nats a code, at every look.

    InputError at a loss that is no finite number.
    """
    state, step = (model, _optimizer(training).init(model)), 0
    arrays = jnp.asarray(given.codes, jnp.int32), jnp.asarray(given.lengths)
    while step < training.steps:
        count = min(training.every, training.steps - step)
        state, losses = _steps(training, count, state, step, arrays, key)
        step += count
        loss = float(jnp.mean(losses))
        if not math.isfinite(loss):
            raise InputError(f"batch model: the loss before step {step} is {loss}, no finite number; lower the rate "
                             f"(peak_rate={training.peak_rate}) or clip more (clip={training.clip})")
        yield state[0], step, loss


def nats(model: BatchModel, given: BatchWindows) -> np.ndarray:
    """What the last minute of each window costs, float64 [W, C] nats of each code."""
    found = []
    for first in range(0, len(given.codes), _TOGETHER):
        codes, count = given.codes[first : first + _TOGETHER], given.lengths[first : first + _TOGETHER]
        short = _TOGETHER - len(codes)
        costs = _costs(model, np.pad(codes, ((0, short), (0, 0), (0, 0))))
        found.append(np.asarray(costs, np.float64)[np.arange(len(codes)), count - 1])
    return np.concatenate(found)


@jax.jit
def _encode(tokenizer: Tokenizer, images: jax.Array) -> jax.Array:
    return tokenizer.encode(images)


@jax.jit
def _costs(model: BatchModel, codes: jax.Array) -> jax.Array:
    """Nats of each code [W, K + 1, C], given those before it."""
    flat = codes.reshape(len(codes), -1)
    cost = optax.softmax_cross_entropy_with_integer_labels(model.logits(flat), flat)
    return cost.reshape(codes.shape)


def _optimizer(training: BatchTraining) -> optax.GradientTransformation:
    warmup = min(100, training.steps)
    rate = optax.warmup_cosine_decay_schedule(0.0, training.peak_rate, warmup, training.steps + 1)
    return optax.chain(optax.clip_by_global_norm(training.clip), optax.adamw(rate, weight_decay=training.decay))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _steps(training: BatchTraining, count: int, state: tuple[BatchModel, optax.OptState], first: Array,
           given: tuple[jax.Array, jax.Array], key: jax.Array) -> tuple[tuple[BatchModel, optax.OptState], jax.Array]:
    codes, counts = given

    def one(now: tuple[BatchModel, optax.OptState], step: Any
            ) -> tuple[tuple[BatchModel, optax.OptState], jax.Array]:
        draw_key, noise_key = jax.random.split(jax.random.fold_in(key, step))
        chosen = jax.random.randint(draw_key, (training.batch,), 0, len(codes))
        loss, gradient = jax.value_and_grad(_loss)(now[0], codes[chosen], counts[chosen], training.replaced, noise_key)
        updates, optimizer = _optimizer(training).update(gradient, now[1], now[0])
        return (optax.apply_updates(now[0], updates), optimizer), loss

    return jax.lax.scan(one, state, first + jnp.arange(count))


def _loss(model: BatchModel, codes: jax.Array, count: jax.Array, replaced: float, key: jax.Array) -> jax.Array:
    """Mean nats a code of the minutes of windows [W, K + 1, C], some codes exchanged in what is read."""
    which_key, other_key = jax.random.split(key)
    flat = codes.reshape(len(codes), -1)
    others = jax.random.permutation(other_key, codes, axis=0).reshape(flat.shape)  # of the same place
    read = jnp.where(jax.random.bernoulli(which_key, replaced, flat.shape), others, flat)
    cost = optax.softmax_cross_entropy_with_integer_labels(model.logits(read), flat).reshape(codes.shape)
    counts = jnp.arange(codes.shape[1]) < count[:, None]
    return jnp.sum(jnp.mean(cost, axis=-1) * counts) / jnp.sum(counts)
