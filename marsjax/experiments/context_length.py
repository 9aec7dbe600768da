"""How predictions depend on the length of the context: see configs/context_length.py."""

import functools
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict
from tqdm import tqdm

from marsjax import decode, model, tokens
from marsjax.data import sse
from marsjax.experiments import launcher
from marsjax.experiments.output import output_folder, write_json
from marsjax.model import Params
from marsjax.specs import CacheSpec, ComputeSpec, MarketSpec, ModelSpec, TokenSpec, chinese_session
from marsjax.training import converters, days, loop, loss

EVALUATED = 32
"""Windows of one compiled evaluation."""


def main(config: ConfigDict) -> int:
    """Trains, compares and writes metrics.json."""
    spec = ModelSpec(width=config.width, layers=config.layers, heads=config.heads)
    if not 0 < config.held_out < 1:
        raise ValueError(f"config.held_out: expected a fraction between 0 and 1, got {config.held_out}")
    with output_folder(config.output, config.overwrite) as folder:
        train, held = _tokens(config, spec.tokens)
        params, curve = _train(config, spec, train, held)
        rng = np.random.default_rng(config.seed)
        by_length = _by_length(config, spec, params, _cut(rng, held, config.windows, spec.max_orders + 1))
        stretches = _cut(rng, held, config.trajectories, spec.max_orders + config.decoded)
        hop = _by_cache(config, spec, params, stretches)
        write_json(folder / "metrics.json", {
            "device": jax.devices()[0].device_kind, "jax": jax.__version__, "config": config, "training": curve,
            "marginal_loss": _marginal_loss(spec.tokens, train, held), "by_length": by_length, "hop": hop})
    for row in by_length:
        print(f"context {row['length']:>5}: loss {row['loss']:.4f} nats, total variation to the full window "
              f"{row['total_variation']:.4f}")
    print(f"hop {config.hop}: loss {hop['loss']:.4f} nats, full window {hop['full_loss']:.4f}, total variation "
          f"{hop['total_variation']:.4f} ({hop['compared']} predictions)")
    return 0


def _tokens(config: ConfigDict, spec: TokenSpec) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Training and held-out parts of the days' tokens, int32 [M, 15] each; bins are fitted on whole days."""
    folder = Path(config.folder)
    if not folder.is_dir() or not sse.days(folder):
        raise FileNotFoundError(f"config.folder: no days <symbol>_<date>_orders.csv[.gz] in {folder}")
    market = MarketSpec(capacity=config.capacity, owners=1, session=chinese_session())
    replayed = days.replay_days(market, [sse.read(*sse.find(folder, *day)) for day in sse.days(folder)])
    table = tokens.tables(spec, converters.fit_as_published(replayed, spec))
    features = [days.day_tokens(market, spec, table, day).features for day in replayed]
    ends = [round(len(x) * (1 - config.held_out)) for x in features]
    return ([x[:end] for x, end in zip(features, ends, strict=True)],
            [x[end:] for x, end in zip(features, ends, strict=True)])


def _train(config: ConfigDict, spec: ModelSpec, train: list[np.ndarray], held: list[np.ndarray]
           ) -> tuple[Params, list[dict[str, float]]]:
    """The parameters with the lowest held-out loss on the way, and the losses on the way."""
    plan = loop.TrainSpec(steps=config.steps, batch=config.batch, length=spec.max_orders, peak_rate=config.peak_rate)
    key = jax.random.key(config.seed)
    progress = loop.begin(plan, model.init(spec, jax.random.fold_in(key, 0)))
    compute, curve, best = ComputeSpec(config.dtype), [], progress.params
    objective = loss.Joint(spec, compute)
    checked = jnp.asarray(_cut(np.random.default_rng(config.seed + 1), held, EVALUATED, spec.max_orders + 1))
    measure = jax.jit(lambda params: jnp.mean(loss.next_token(params, spec, compute, checked)))
    with tqdm(total=config.steps, desc="training", unit="step", disable=None) as bar:
        for now, trained in loop.run(plan, objective, progress, train, jax.random.fold_in(key, 1), every=50):
            bar.update(int(now.step) - bar.n)
            curve.append({"step": int(now.step), "loss": trained, "held_out_loss": float(measure(now.params))})
            if curve[-1]["held_out_loss"] == min(row["held_out_loss"] for row in curve):
                best = jax.tree.map(jnp.copy, now.params)  # the loop gives its own arrays away
    return best, curve


def _marginal_loss(spec: TokenSpec, train: list[np.ndarray], held: list[np.ndarray]) -> float:
    """Held-out loss of the classes' frequencies in training, one added to each count."""
    count = np.bincount(np.concatenate([x[:, 0] for x in train]), minlength=spec.classes) + 1.0
    return float(-np.log(count / count.sum())[np.concatenate([x[:, 0] for x in held])].mean())


def _cut(rng: np.random.Generator, held: list[np.ndarray], count: int, length: int) -> np.ndarray:
    """Random stretches, int32 [count, length, 15], of days long enough for one."""
    long = [day for day in held if len(day) >= length]
    if not long:
        raise ValueError(f"config.held_out: no held-out part is {length} orders long")
    picks = [long[i] for i in rng.integers(len(long), size=count)]
    starts = [int(rng.integers(len(day) - length + 1)) for day in picks]
    return np.stack([day[first : first + length] for day, first in zip(picks, starts, strict=True)])


@functools.partial(jax.jit, static_argnums=1)
def _law(params: Params, spec: ModelSpec, features: jax.Array) -> jax.Array:
    """Log-probabilities [B, classes] after the last of features [B, T, 15]."""
    return jax.nn.log_softmax(model.logits(params, spec, tokens.from_array(spec.tokens, features)), axis=-1)


@jax.jit
def _compare(log_p: jax.Array, log_q: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Loss of p and total variation between p and q, [B] each."""
    nats = -jnp.take_along_axis(log_p, label[:, None], axis=-1)[:, 0]
    return nats, 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1)


def _by_length(config: ConfigDict, spec: ModelSpec, params: Params, windows: np.ndarray) -> list[dict[str, Any]]:
    rows = []
    for length in config.lengths:
        if not 1 <= length <= spec.max_orders:
            raise ValueError(f"config.lengths: expected 1 to {spec.max_orders}, got {length}")
        found = []
        for part in np.split(windows, range(EVALUATED, len(windows), EVALUATED)):
            given, label = part[:, :-1], part[:, -1, 0]
            found.append(_compare(_law(params, spec, given[:, -length:]), _law(params, spec, given), label))
        nats, variation = (np.concatenate([np.asarray(x) for x in column]) for column in zip(*found, strict=True))
        rows.append({"length": length, "loss": nats.mean(), "loss_standard_error": nats.std() / len(nats) ** 0.5,
                     "total_variation": variation.mean(), "total_variation_90": np.quantile(variation, 0.9)})
    return rows


def _by_cache(config: ConfigDict, spec: ModelSpec, params: Params, stretches: np.ndarray) -> dict[str, Any]:
    """Decodes the stretches with the cache, and compares with the full window now and then."""
    cache = CacheSpec(mode="hop", hop=config.hop, margin=config.margin, append=1, rows=None)
    first = tokens.from_array(spec.tokens, jnp.asarray(stretches[:, :spec.max_orders]))
    count = len(stretches)
    state = jax.jit(decode.start, static_argnums=(1, 2))(params, spec, cache, first,
                                                        jnp.full(count, spec.max_orders))
    append = jax.jit(decode.append_all, static_argnums=(1, 2), donate_argnums=3)
    predict = jax.jit(lambda params, state: jax.nn.log_softmax(
        decode.logits(params, cache, decode.predict(params, spec, cache, state)), axis=-1))
    found, lengths = [], []
    for i in tqdm(range(config.decoded), desc="decoding", disable=None):
        label = stretches[:, spec.max_orders + i, 0]
        if i % config.every == 0:
            log_p, log_q = predict(params, state), _law(params, spec, stretches[:, i : i + spec.max_orders])
            found.append((*_compare(log_p, log_q, label), _compare(log_q, log_q, label)[0]))
            lengths.append(int(state.length[0]))
        new = tokens.from_array(spec.tokens, jnp.asarray(stretches[:, spec.max_orders + i][:, None]))
        state = append(params, spec, cache, state, new, jnp.ones(count, jnp.int32), jnp.zeros(count, bool), i + 1)
    nats, variation, full = (np.concatenate([np.asarray(x) for x in column]) for column in zip(*found, strict=True))
    return {"compared": len(nats), "loss": nats.mean(), "full_loss": full.mean(),
            "difference": (nats - full).mean(), "difference_standard_error": (nats - full).std() / len(nats) ** 0.5,
            "total_variation": variation.mean(), "shortest_context": min(lengths), "longest_context": max(lengths)}


if __name__ == "__main__":
    launcher.run("context_length", main)
