"""What keys and values in 8 bits change: logits, the law of the next token, and the loss on windows of a day.

    python experiments/throughput/eight_bits.py                             # the default checkpoint, its made day
    python experiments/throughput/eight_bits.py --model 24x1024 --windows 8 # random weights of that depth and width
    ... --source sse --path DIR --symbol 600519 --date 20230207             # a real day

The model is decoded in the mode `refresh` on windows of the day, by the device's ways: in float32, and as --dtypes say,
with the cache as it is and in 8 bits. Each is compared with the cache as it is of the first dtype, at the same tokens
and the same contexts. One line of JSON each: differences of logits (root of the mean square and the largest, beside the
logits' own spread in a law), total variation of the law, and the loss, whose difference has its standard error.
"""

import argparse
import dataclasses
import functools
import json
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint import load
from marsjax.checkpoint.load import LoadedModel
from marsjax.core import kernels
from marsjax.core.specs import CacheSpec, ComputeSpec, ModelSpec
from marsjax.data import made_days, sources
from marsjax.model import kv_cache, llama
from marsjax.model.llama import OrderModel
from marsjax.studies import context_length
from marsjax.tokens import encoding
from marsjax.training import days


class Kind(NamedTuple):
    """How a model is decoded."""

    dtype: str
    cache_dtype: str


def main() -> None:
    """Decodes and prints."""
    given = arguments()
    loaded = load.load_order_model(load.DEFAULT if re.fullmatch(r"\d+x\d+", given.model) else given.model)
    model = model_of(given, loaded)
    length = model.spec.context_length
    windows = context_length.stretches(np.random.default_rng(given.seed), [features(given, loaded)], given.windows,
                                       length + given.decoded)
    kinds = [Kind(dtype, cache) for dtype in given.dtypes for cache in ("model", "int8")]
    device = jax.devices()[0]
    about = {"model": given.model, "device": device.device_kind, "jax": jax.__version__,
             "attention": given.attention or kernels.chosen(None).attention, "windows": given.windows,
             "decoded": given.decoded, "every": given.every, "scale": given.scale}
    print(json.dumps(about), flush=True)
    for kind, rows in zip(kinds, compared(model, kinds, windows, given), strict=True):
        row = {name: np.concatenate([each[name] for each in rows]) for name in rows[0]}
        more = row["loss"] - row["first_loss"]
        print(json.dumps({
            **kind._asdict(), "predictions": len(more), "loss": mean(row["loss"]), "loss_more": mean(more),
            "loss_more_standard_error": float(more.std() / len(more) ** 0.5),
            "logits_rms": mean(row["square"]) ** 0.5, "logits_largest": float(row["largest"].max()),
            "logits_spread": mean(row["spread"]), "total_variation": mean(row["variation"]),
            "total_variation_99": float(np.quantile(row["variation"], 0.99)),
            "total_variation_largest": float(row["variation"].max())}), flush=True)


def arguments() -> argparse.Namespace:
    """What is decoded."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=load.DEFAULT, help="default, a checkpoint's folder, or LAYERSxWIDTH")
    parser.add_argument("--scale", type=float, default=1, help="of the matrices of a LAYERSxWIDTH")
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--attention", default="",
                        help="columns (here products of matrices), sums or kernel; empty: the device's")
    parser.add_argument("--windows", type=int, default=16, help="decoded together")
    parser.add_argument("--decoded", type=int, default=512, help="tokens of each")
    parser.add_argument("--every", type=int, default=8, help="tokens between two comparisons")
    parser.add_argument("--source", default="", help="of a real day; empty: the day made by the default model")
    parser.add_argument("--path", default="", help="its file or folder")
    parser.add_argument("--symbol", default="")
    parser.add_argument("--date", default="")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def model_of(given: argparse.Namespace, loaded: LoadedModel) -> OrderModel:
    """The checkpoint's model, or one of random weights for the same tokens."""
    if not re.fullmatch(r"\d+x\d+", given.model):
        return loaded.model
    layers, width = map(int, given.model.split("x"))
    spec = ModelSpec(embed_dim=width, layers=layers, heads=max(2, width // 64), tokens=loaded.spec.tokens)
    fresh = llama.init(spec, jax.random.key(given.seed))
    matrices = ("layers.qkv", "layers.out", "layers.gate_up", "layers.down", "head")
    return fresh.replace({name: fresh.weights()[name] * given.scale for name in matrices})


def features(given: argparse.Namespace, loaded: LoadedModel) -> np.ndarray:
    """The day's tokens, int32 [M, columns], by the bins of the checkpoint."""
    if given.source:
        (feed,) = sources.open_days(given.source, given.path, [given.symbol] if given.symbol else [], given.date)
    else:
        feed = made_days.open_day(load.folder_of(load.DEFAULT), "default").feed
    market = feed.venue.market()
    (day,) = days.replay_days(market, [feed.read()], [feed.name])
    return days.day_tokens(market, loaded.spec.tokens, encoding.tables(loaded.spec.tokens, loaded.converters),
                           day).features


def compared(model: OrderModel, kinds: list[Kind], windows: np.ndarray, given: argparse.Namespace
             ) -> list[list[dict[str, np.ndarray]]]:
    """Of each kind, at each comparison, what `difference` says, [windows] each."""
    length, bins, count = model.spec.context_length, model.spec.tokens, len(windows)
    models = {dtype: model.replace({name: jnp.asarray(x, dtype) for name, x in model.weights().items()},
                                   ComputeSpec(dtype)) for dtype in given.dtypes}
    ways = kernels.chosen(None)
    ways = dataclasses.replace(ways, attention=given.attention or ways.attention)
    caches = {kind: CacheSpec(mode="refresh", refresh_every=length * 7 // 16, margin=length // 16, append=1,
                              kernels=ways, cache_dtype=kind.cache_dtype) for kind in kinds}
    first = encoding.from_array(bins, jnp.asarray(windows[:, :length]))
    begin = jax.jit(kv_cache.start, static_argnums=1)
    append = jax.jit(kv_cache.append_all, static_argnums=1, donate_argnums=2)
    states = {kind: begin(models[kind.dtype], caches[kind], first, jnp.full(count, length)) for kind in kinds}
    found: dict[Kind, list[dict[str, np.ndarray]]] = {kind: [] for kind in kinds}
    for i in range(given.decoded):
        new = windows[:, length + i]
        if i % given.every == 0:
            logits = {kind: _logits(models[kind.dtype], caches[kind], states[kind]) for kind in kinds}
            for kind in kinds:
                found[kind].append(jax.device_get(_difference(logits[kind], logits[kinds[0]], new[:, 0])))
        token = encoding.from_array(bins, jnp.asarray(new[:, None]))
        for kind in kinds:
            states[kind] = append(models[kind.dtype], caches[kind], states[kind], token, jnp.ones(count, jnp.int32),
                                  jnp.zeros(count, bool), i + 1)
    return [found[kind] for kind in kinds]


@functools.partial(jax.jit, static_argnums=1)
def _logits(model: OrderModel, cache: CacheSpec, state: kv_cache.State) -> jax.Array:
    return kv_cache.logits(model, cache, kv_cache.predict(model, cache, state))


@jax.jit
def _difference(logits: jax.Array, first: jax.Array, label: jax.Array) -> dict[str, jax.Array]:
    """Of logits [B, classes] to others; what all logits have in common changes no law and is left out."""
    one, other = (x - jnp.mean(x, axis=-1, keepdims=True) for x in (logits, first))
    log_p, log_q = (jax.nn.log_softmax(x, axis=-1) for x in (logits, first))

    def loss(log_p: jax.Array) -> jax.Array:
        return -jnp.take_along_axis(log_p, label[:, None], axis=-1)[:, 0]

    return {"square": jnp.mean((one - other) ** 2, axis=-1), "largest": jnp.max(jnp.abs(one - other), axis=-1),
            "spread": jnp.std(first, axis=-1), "loss": loss(log_p), "first_loss": loss(log_q),
            "variation": 0.5 * jnp.sum(jnp.abs(jnp.exp(log_p) - jnp.exp(log_q)), axis=-1)}


def mean(x: Any) -> float:
    """Of all numbers."""
    return float(np.mean(x))


if __name__ == "__main__":
    main()
