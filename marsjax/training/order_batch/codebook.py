"""Trains a tokenizer: Poisson loss of the counts, straight through a code book of running means."""

import dataclasses
import functools
import math
from collections.abc import Iterator
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.model.order_batch import tokenizer
from marsjax.model.order_batch.specs import TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer

_TOGETHER = 256
"""Images of one compiled look."""


@dataclasses.dataclass(frozen=True)
class CodebookTraining:
    """How a tokenizer is trained.

    Examples:
      >>> CodebookTraining(steps=10).batch
      64
    """

    steps: int = 3000
    batch: int = 64
    """Images a step."""
    peak_rate: float = 2e-3
    decay: float = 0.05
    """Of the weights, AdamW."""
    clip: float = 1.0
    """Largest norm of a gradient."""
    commitment: float = 0.25
    """Weight of the distance between a vector and its code, beside the nats of an image's part."""
    keep: float = 0.99
    """Share of a code's running mean that a step keeps."""
    restart_below: float = 0.02
    """A code that a step uses less often than so many times in the mean is set to a vector of the step."""
    every: int = 250
    """Steps between two looks at the validation part."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "every"):
            limits.check_whole(f"CodebookTraining.{name}", getattr(self, name), 1, 2**31 - 1)
        for name in ("peak_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"CodebookTraining.{name}: expected a positive number, got {getattr(self, name)}")
        for name in ("decay", "commitment", "restart_below"):
            if not 0 <= getattr(self, name) < math.inf:
                raise InputError(f"CodebookTraining.{name}: expected at least 0, got {getattr(self, name)}")
        if not 0 <= self.keep < 1:
            raise InputError(f"CodebookTraining.keep: expected at least 0 and below 1, got {self.keep}")


class CodebookState(NamedTuple):
    """A training under way."""

    model: Tokenizer
    optimizer: optax.OptState
    uses: Array
    """float32 [codes], running mean of how often a step uses each code."""
    sums: Array
    """float32 [codes, k], running mean of the sum of the vectors that became each code."""
    step: Array


def begin(spec: TokenizerSpec, training: CodebookTraining, images: np.ndarray, key: jax.Array) -> CodebookState:
    """Before the first step: of images uint8 [N, 3, 2 V, P] the mean is the rates, and some vectors are the codes."""
    fresh_key, code_key = jax.random.split(key)
    model = tokenizer.init(spec, fresh_key)
    mean = jnp.asarray(images.mean(axis=0, dtype=np.float64), jnp.float32)
    some = jnp.asarray(images[np.linspace(0, len(images) - 1, min(len(images), 1024)).astype(int)])
    vectors = model.vectors(some).reshape(-1, spec.code_dim)
    chosen = jax.random.choice(code_key, len(vectors), (spec.codes,), replace=len(vectors) < spec.codes)
    model = Tokenizer(spec, {**model.weights(), "rate": jnp.log(model.parts(mean) + 1e-3),
                             "codebook": vectors[chosen]})
    return CodebookState(model, _optimizer(training).init(model), jnp.ones(spec.codes), vectors[chosen],
                         jnp.zeros((), jnp.int32))


def run(training: CodebookTraining, state: CodebookState, images: np.ndarray, key: jax.Array
        ) -> Iterator[tuple[CodebookState, float]]:
    """Trains on images, uint8 [N, 3, 2 V, P], yielding the state and the mean loss, nats an image, at every look.

    InputError at a loss that is no finite number.
    """
    given = jnp.asarray(images)
    while int(state.step) < training.steps:
        count = min(training.every, training.steps - int(state.step))
        state, losses = _steps(training, count, state, given, key)
        loss = float(jnp.mean(losses))
        if not math.isfinite(loss):
            raise InputError(f"tokenizer: the loss before step {int(state.step)} is {loss}, no finite number; lower "
                             f"the rate (peak_rate={training.peak_rate}) or clip more (clip={training.clip})")
        yield state, loss


def fitted(spec: TokenizerSpec, training: CodebookTraining, images: np.ndarray, validation: np.ndarray,
           key: jax.Array) -> tuple[Tokenizer, list[dict[str, float]]]:
    """The tokenizer of the look at which the validation images cost least, and a row of each look."""
    start_key, step_key = jax.random.split(key)
    state = begin(spec, training, images, start_key)
    best = state.model
    rows: list[dict[str, float]] = []
    for now, loss in run(training, state, images, step_key):
        row = {"step": int(now.step), "loss": loss, "validation_loss": float(nats(now.model, validation).sum())}
        if row["validation_loss"] <= min((each["validation_loss"] for each in rows), default=math.inf):
            best = jax.tree.map(jnp.array, now.model)
        rows.append(row)
    return best, rows


def nats(model: Tokenizer, images: np.ndarray) -> np.ndarray:
    """Mean Poisson loss of images, uint8 [N, 3, 2 V, P], by their codes, float64 [3] nats by channel.

    Less what counts of a law of their own would cost, so that an image told exactly costs 0 (half the deviance).
    """
    total = np.zeros(3)
    for first in range(0, len(images), _TOGETHER):
        some = images[first : first + _TOGETHER]
        padded = np.pad(some, [(0, _TOGETHER - len(some)), (0, 0), (0, 0), (0, 0)])
        total += np.asarray(_nats(model, padded), np.float64)[: len(some)].sum(axis=0)
    return total / len(images)


def poisson(counts: Array, log_rate: Array) -> jax.Array:
    """Half the deviance of counts from a Poisson law by its rate's logarithm, float32 of their shape."""
    counts = jnp.asarray(counts, jnp.float32)
    exact = jnp.where(counts > 0, counts * jnp.log(jnp.maximum(counts, 1)) - counts, 0)
    return jnp.exp(log_rate) - counts * log_rate + exact


@jax.jit
def _nats(model: Tokenizer, images: jax.Array) -> jax.Array:
    rates = model.decode(model.encode(images))
    return jnp.sum(poisson(images, jnp.log(rates)), axis=(-2, -1))


def _optimizer(training: CodebookTraining) -> optax.GradientTransformation:
    warmup = min(200, training.steps)
    rate = optax.warmup_cosine_decay_schedule(0.0, training.peak_rate, warmup, training.steps + 1)
    return optax.chain(optax.clip_by_global_norm(training.clip), optax.adamw(rate, weight_decay=training.decay))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _steps(training: CodebookTraining, count: int, state: CodebookState, images: jax.Array, key: jax.Array
           ) -> tuple[CodebookState, jax.Array]:
    def one(now: CodebookState, _: None) -> tuple[CodebookState, jax.Array]:
        draw_key, restart_key = jax.random.split(jax.random.fold_in(key, now.step))
        some = images[jax.random.randint(draw_key, (training.batch,), 0, len(images))]
        (_, (loss, vectors, codes)), gradient = jax.value_and_grad(
            lambda model: _loss(training, model, some), has_aux=True)(now.model)
        updates, optimizer = _optimizer(training).update(gradient, now.optimizer, now.model)
        model = optax.apply_updates(now.model, updates)
        uses, sums = _moved(training, now, vectors, codes, restart_key)
        weights = {**model.weights(), "codebook": sums / jnp.maximum(uses, 1e-6)[:, None]}
        return CodebookState(Tokenizer(model.spec, weights), optimizer, uses, sums, now.step + 1), loss

    return jax.lax.scan(one, state, None, length=count)


def _loss(training: CodebookTraining, model: Tokenizer, images: jax.Array
          ) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
    """What is made small; nats an image; vectors [N, k] and their codes [N]."""
    vectors = model.vectors(images)
    codes = model.nearest(jax.lax.stop_gradient(vectors))
    chosen = jax.lax.stop_gradient(jnp.asarray(model.codebook[...])[codes])
    through = vectors + jax.lax.stop_gradient(chosen - vectors)
    loss = jnp.mean(jnp.sum(poisson(model.parts(images), model.log_rates(through)), axis=(-2, -1)))
    away = jnp.mean(jnp.sum((vectors - chosen) ** 2, axis=-1))
    flat = jax.lax.stop_gradient(vectors).reshape(-1, vectors.shape[-1])
    return loss / model.spec.places + training.commitment * away, (loss, flat, codes.reshape(-1))


def _moved(training: CodebookTraining, now: CodebookState, vectors: jax.Array, codes: jax.Array, key: jax.Array
           ) -> tuple[jax.Array, jax.Array]:
    """The running means after a step; codes that are hardly used begin anew at vectors of the step."""
    count = len(now.uses)
    used = jnp.zeros(count).at[codes].add(1)
    summed = jnp.zeros_like(jnp.asarray(now.sums)).at[codes].add(vectors)
    uses = training.keep * now.uses + (1 - training.keep) * used
    sums = training.keep * now.sums + (1 - training.keep) * summed
    is_dead = uses < training.restart_below
    other = vectors[jax.random.randint(key, (count,), 0, len(vectors))]
    return jnp.where(is_dead, 1.0, uses), jnp.where(is_dead[:, None], other, sums)
