"""How predictions depend on the length of the context: a small model, trained, and compared on orders held out."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm import tqdm

from marsjax.core import kernels, limits
from marsjax.core.errors import InputError
from marsjax.core.specs import CacheSpec, ComputeSpec, MarketSpec, ModelSpec, TokenSpec
from marsjax.data.feed import DayFeed
from marsjax.model import kv_cache, llama
from marsjax.model.llama import OrderModel
from marsjax.sim.refusals import Refusals
from marsjax.studies.checks import check_numbers
from marsjax.tokens import encoding
from marsjax.training import converters, days, loop, loss

EVALUATED = 32
"""Windows of one compiled evaluation."""

Days = list[np.ndarray]
"""Tokens of days, int32 [M, 15] each."""


@dataclasses.dataclass(frozen=True)
class TrainingSpec:
    """How the model is trained."""

    steps: int
    batch: int
    """Windows a step."""
    peak_rate: float
    dtype: str
    """Of the training's matrix products; the comparison is float32."""
    seed: int
    every: int = 50
    """Steps between two looks at the held-out loss."""

    def __post_init__(self) -> None:
        check_numbers(self, steps=(1, 10**9), batch=(1, limits.TRAJECTORIES), seed=(0, limits.SEED))


@dataclasses.dataclass(frozen=True)
class CacheComparison:
    """How the cache is compared with the full window."""

    decoded: int
    """Orders decoded of each stretch."""
    every: int
    """Predictions between two comparisons."""
    refresh_every: int
    margin: int


def tokens(market: MarketSpec, spec: TokenSpec, feeds: Sequence[DayFeed], held_out: float
           ) -> tuple[tuple[Days, Days], dict[str, Refusals]]:
    """Training and held-out parts of the days' tokens, and what was refused; bins are fitted on complete days."""
    if not 0 < held_out < 1:
        raise InputError(f"held_out: expected a fraction between 0 and 1, got {held_out}")
    replayed = days.replay_days(market, [feed.read() for feed in feeds], [feed.name for feed in feeds])
    table = encoding.tables(spec, converters.fit_as_published(replayed, spec))
    features = [days.day_tokens(market, spec, table, day).features for day in replayed]
    ends = [round(len(x) * (1 - held_out)) for x in features]
    return (([x[:end] for x, end in zip(features, ends, strict=True)],
             [x[end:] for x, end in zip(features, ends, strict=True)]), {day.name: day.refused for day in replayed})


def train(spec: ModelSpec, training: TrainingSpec, parts: tuple[Days, Days]
          ) -> tuple[OrderModel, list[dict[str, float]]]:
    """The parameters with the lowest held-out loss on the way, and the losses on the way."""
    plan = loop.TrainSpec(steps=training.steps, batch=training.batch, length=spec.context_length,
                          peak_rate=training.peak_rate)
    key = jax.random.key(training.seed)
    fresh = llama.init(spec, jax.random.fold_in(key, 0), compute=ComputeSpec(training.dtype))
    progress = loop.begin(plan, fresh)
    curve, best, objective = [], progress.params, loss.Joint()
    checked = jnp.asarray(stretches(np.random.default_rng(training.seed + 1), parts[1], EVALUATED,
                                    spec.context_length + 1))
    measure = jax.jit(lambda model: jnp.mean(loss.next_token(model, checked)))
    with tqdm(total=training.steps, desc="training", unit="step", disable=None) as bar:
        for now, trained in loop.run(plan, objective, progress, parts[0], jax.random.fold_in(key, 1),
                                     every=training.every):
            bar.update(int(now.step) - bar.n)
            curve.append({"step": int(now.step), "loss": trained, "held_out_loss": float(measure(now.params))})
            if curve[-1]["held_out_loss"] == min(row["held_out_loss"] for row in curve):
                best = jax.tree.map(jnp.copy, now.params)  # the loop donates its own arrays
    return best.replace(compute=ComputeSpec()), curve


def marginal_loss(spec: TokenSpec, parts: tuple[Days, Days]) -> float:
    """Held-out loss of the classes' frequencies in training, one added to each count."""
    first, held = (np.concatenate([x[:, 0] for x in part]) for part in parts)
    count = np.bincount(first, minlength=spec.classes) + 1.0
    return float(-np.log(count / count.sum())[held].mean())


def stretches(rng: np.random.Generator, held: Days, count: int, length: int) -> np.ndarray:
    """Random stretches, int32 [count, length, 15], of days long enough for one."""
    long = [day for day in held if len(day) >= length]
    if not long:
        raise InputError(f"held_out: no held-out part is {length} orders long")
    picks = [long[i] for i in rng.integers(len(long), size=count)]
    starts = [int(rng.integers(len(day) - length + 1)) for day in picks]
    return np.stack([day[first : first + length] for day, first in zip(picks, starts, strict=True)])


@jax.jit
def _law(model: OrderModel, features: jax.Array) -> jax.Array:
    """Log-probabilities [B, classes] after the last of features [B, T, 15]."""
    return jax.nn.log_softmax(model.logits(encoding.from_array(model.spec.tokens, features)), axis=-1)


@jax.jit
def _compare(log_p: jax.Array, log_q: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss of p and total variation between p and q, [B] each."""
    nats = -jnp.take_along_axis(log_p, label[:, None], axis=-1)[:, 0]
    return nats, 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1)


def by_length(model: OrderModel, windows: np.ndarray, lengths: Sequence[int]) -> list[dict[str, Any]]:
    """Loss and total variation to the full window at each length, on windows [N, context_length + 1, 15]."""
    spec, rows = model.spec, []
    for length in lengths:
        if not 1 <= length <= spec.context_length:
            raise InputError(f"lengths: expected 1 to {spec.context_length}, got {length}")
        found = []
        for part in np.split(windows, range(EVALUATED, len(windows), EVALUATED)):
            given, label = part[:, :-1], part[:, -1, 0]
            found.append(_compare(_law(model, given[:, -length:]), _law(model, given), label))
        nats, variation = (np.concatenate([np.asarray(x) for x in column]) for column in zip(*found, strict=True))
        rows.append({"length": length, "loss": nats.mean(), "loss_standard_error": nats.std() / len(nats) ** 0.5,
                     "total_variation": variation.mean(), "total_variation_90": np.quantile(variation, 0.9)})
    return rows


def by_cache(model: OrderModel, held: np.ndarray, comparison: CacheComparison) -> dict[str, Any]:
    """Decodes stretches [N, T, 15] with the cache, and compares with the full window now and then."""
    cache = CacheSpec(mode="refresh", refresh_every=comparison.refresh_every, margin=comparison.margin, append=1,
                      kernels=kernels.ACCELERATOR)
    spec = model.spec
    first = encoding.from_array(spec.tokens, jnp.asarray(held[:, :spec.context_length]))
    count = len(held)
    state = jax.jit(kv_cache.start, static_argnums=1)(model, cache, first, jnp.full(count, spec.context_length))
    append = jax.jit(kv_cache.append_all, static_argnums=1, donate_argnums=2)
    predict = jax.jit(lambda model, state: jax.nn.log_softmax(
        kv_cache.logits(model, cache, kv_cache.predict(model, cache, state)), axis=-1))
    found, lengths = [], []
    for i in tqdm(range(comparison.decoded), desc="decoding", disable=None):
        label = held[:, spec.context_length + i, 0]
        if i % comparison.every == 0:
            log_p, log_q = predict(model, state), _law(model, held[:, i : i + spec.context_length])
            found.append((*_compare(log_p, log_q, label), _compare(log_q, log_q, label)[0]))
            lengths.append(int(state.length[0]))
        new = encoding.from_array(spec.tokens, jnp.asarray(held[:, spec.context_length + i][:, None]))
        state = append(model, cache, state, new, jnp.ones(count, jnp.int32), jnp.zeros(count, bool), i + 1)
    nats, variation, full = (np.concatenate([np.asarray(x) for x in column]) for column in zip(*found, strict=True))
    return {"compared": len(nats), "loss": nats.mean(), "full_loss": full.mean(),
            "difference": (nats - full).mean(), "difference_standard_error": (nats - full).std() / len(nats) ** 0.5,
            "total_variation": variation.mean(), "shortest_context": min(lengths), "longest_context": max(lengths)}
