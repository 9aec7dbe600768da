"""The order model: order tokens to logits over the next token (reference: order model; paper, section 3).

`OrderModel` is a Llama decoder over embedded order tokens, a Flax NNX module. Such a module is a pytree: its weights
are the leaves, its sizes are static. So it is given as it is to `jax.jit`, `jax.grad`, `jax.vmap`, `jax.tree.map` or an
optimizer, and a function compiled for one model serves every other of the same sizes and dtypes. `nnx.split` and
`nnx.merge` work as with any module, but nothing here needs them. Treat a model as frozen: make another one with
`replace` or `jax.tree.map`.

The decoder layers are stacked on a leading axis, which `jax.lax.scan` walks: compile time does not grow with depth.
"""

import math
import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from marsjax.core.errors import InputError
from marsjax.core.records import Array, Token
from marsjax.core.specs import ComputeSpec, ModelSpec
from marsjax.model import linear_attention, row_head
from marsjax.model.layers import (
    CHANGE_ROWS,
    FLOAT32,
    LEVELS,
    RATIO_ROWS,
    SIGNALS,
    TIME_ROWS,
    DecoderLayer,
    Embedding,
    Head,
    RmsNorm,
    attend_to_earlier,
    layer_of,
    precision_of,
    rotary_table,
    rotate,
)
from marsjax.model.row_head import RowHead


class OrderModel(nnx.Module):
    """The order model of given sizes and weights."""

    embedding: Embedding
    layers: DecoderLayer
    """All L layers, stacked: every weight has a leading axis [L]."""
    norm: RmsNorm
    """[d] (decoder.model.norm.weight)."""
    head: Head | RowHead
    """A row for each class (decoder.lm_head.weight), or sums of rows with `ModelSpec.pair_width`."""
    apart: nnx.List[DecoderLayer] | None
    """Copies of the L layers, each by itself, of `with_layers_apart`; else None."""

    def __init__(self, spec: ModelSpec, weights: Mapping[str, Array], compute: ComputeSpec = FLOAT32) -> None:
        """Takes every array of `weights`, by the names and in the shapes of `shapes(spec)`."""
        self.spec, self.compute = spec, compute
        self.embedding = Embedding(_below("embedding", weights), compute)
        self.layers = DecoderLayer(_below("layers", weights), compute)
        self.norm = RmsNorm(weights["norm"])
        self.head = RowHead(_below("head", weights), compute) if spec.pair_width else Head(weights["head"], compute)
        self.apart = nnx.data(None)

    def weights(self) -> dict[str, Array]:
        """Every weight by its name, such as `layers.qkv`: the names and the order of `shapes`, as checkpoints have."""
        found: dict[str, Array] = {}
        for name in _plan(self.spec):
            part = operator.attrgetter(name)(self)
            found[name] = (part if isinstance(part, nnx.Param) else part.weight)[...]
        return found

    def replace(self, weights: Mapping[str, Array] = {}, compute: ComputeSpec | None = None) -> "OrderModel":
        """A model with some weights exchanged, or with another way to compute."""
        unknown = sorted(set(weights) - set(_plan(self.spec)))
        if unknown:
            raise InputError(f"OrderModel.replace: no weight is called {unknown[0]!r}; expected one of "
                             f"{', '.join(_plan(self.spec))}")
        return OrderModel(self.spec, {**self.weights(), **weights}, compute or self.compute)

    def with_layers_apart(self) -> "OrderModel":
        """The same with a copy of each layer by itself, which `layer` then gives: for a loop of many steps.

        In a loop a layer that is cut from the stack is copied in every round. The model itself if it has one layer,
        whose stack needs no cut.
        """
        if self.spec.layers == 1:
            return self
        found = self.replace()
        found.apart = nnx.List([layer_of(self.layers, number) for number in range(self.spec.layers)])
        return found

    def layer(self, number: int) -> DecoderLayer:
        """Layer `number`, 0 <= number < L."""
        return layer_of(self.layers, number) if self.apart is None else self.apart[number]

    def __call__(self, tokens: Token) -> jax.Array:
        """Logits [..., T, classes] after each of tokens [..., T]."""
        return self.logits(tokens, last_only=False)

    def logits(self, tokens: Token, *, last_only: bool = True) -> jax.Array:
        """Logits over the next token's class, float32 [..., classes], after the last of tokens [..., T].

        [..., T, classes], after each of them, if not `last_only`. InputError as in `encode`.
        """
        states = self.hidden(tokens)
        return self.head(states[..., -1, :] if last_only else states)

    def hidden(self, tokens: Token) -> jax.Array:
        """Hidden states after the final norm [..., T, d] of sequences of tokens [..., T]; InputError as in `encode`."""
        x, _ = self.encode(tokens)
        return self.norm(x)

    def encode(self, tokens: Token, *, upto: int | None = None,
               changed: Callable[[jax.Array], jax.Array] | None = None, way: str = "xla"
               ) -> tuple[jax.Array, jax.Array | tuple[jax.Array, ...]]:
        """Residual stream of tokens [..., T] after the layers before number `upto` (default all).

        Each token sees those up to itself; the first has position 0. `changed` is what training does to their
        embeddings [..., T, d] before the first layer. `way` is `Kernels.encode`.

        Returns:
          Residuals [..., T, d], and the layers' keys (rotated by position) and values [upto, 2, ..., T, h, k]; of
          layers apart a tuple of arrays [2, ..., T, h, k]. Of linear attention, which keeps none, [upto, 0].

        Raises:
          InputError: T is more than `ModelSpec.context_length`.
        """
        x, spec = self.embedding(tokens), self.spec
        x = x if changed is None else changed(x)
        length, size = x.shape[-2], spec.embed_dim // spec.heads
        if length > spec.context_length:
            raise InputError(f"order model: expected at most context_length={spec.context_length} tokens, got {length}")
        if upto == 0:  # a scan of no layers is refused where jit is disabled
            return x, jnp.zeros((0, 2, *x.shape[:-1], spec.heads, size), x.dtype)
        cos, sin = rotary_table(length, size)

        def run(x: jax.Array, layer: DecoderLayer) -> tuple[jax.Array, jax.Array]:
            q, k, v = layer.project(x)
            if spec.mixer == "linear":
                mixed = linear_attention.read_all(q, k, v, layer.fading(x), precision_of(self.compute))
                return layer.after_attention(x, mixed), jnp.zeros(0, x.dtype)
            q, k = rotate(q, cos[:, None], sin[:, None]), rotate(k, cos[:, None], sin[:, None])
            mixed = attend_to_earlier(q, k, v, self.compute, way)
            return layer.after_attention(x, mixed), jnp.stack([k, v])

        if self.apart is None:
            return jax.lax.scan(run, x, jax.tree.map(lambda w: w[:upto], self.layers))
        cached = []
        for layer in self.apart[:upto]:
            x, of_layer = run(x, layer)
            cached.append(of_layer)
        return x, tuple(cached)


def _below(part: str, weights: Mapping[str, Array]) -> dict[str, Array]:
    return {name.removeprefix(f"{part}."): x for name, x in weights.items() if name.startswith(f"{part}.")}


class _Fresh(NamedTuple):
    """How one weight starts: normal(scale), or, without a scale, filled with one number."""

    shape: tuple[int, ...]
    scale: float = 0.0
    fill: float = 0.0


def _plan(spec: ModelSpec) -> dict[str, _Fresh]:
    """How every weight starts, by its name."""
    d, n, k, bins = spec.embed_dim, spec.layers, spec.embed_dim // spec.heads, spec.tokens
    into = 0.02 / math.sqrt(2 * n)
    head = {f"head.{name}": _Fresh(shape, 0.02) for name, shape in row_head.shapes(spec).items()} if (
        spec.pair_width) else {"head": _Fresh((d, bins.classes), 0.02)}
    ratios = {f"embedding.{name}": _Fresh((RATIO_ROWS, d), 1) for name in ("volume_ratio", "trade_ratio")}
    linear = {"layers.decay": _Fresh((n, d, spec.heads), 0.02), "layers.decay_bias": _Fresh((n, spec.heads)),
              "layers.gate": _Fresh((n, d, spec.heads, k), 0.02)} if spec.mixer == "linear" else {}
    return {
        "embedding.kind": _Fresh((3, d), 1), "embedding.price": _Fresh((bins.price_levels, d), 1),
        "embedding.volume": _Fresh((bins.volumes, d), 1), "embedding.interval": _Fresh((bins.intervals, d), 1),
        "embedding.change": _Fresh((CHANGE_ROWS, d), 1), "embedding.time": _Fresh((TIME_ROWS, d), 1),
        "embedding.levels": _Fresh((LEVELS, d), 1 / math.sqrt(LEVELS)), "embedding.levels_bias": _Fresh((d,)),
        "embedding.levels_scale": _Fresh((d,), fill=1), "embedding.levels_shift": _Fresh((d,)),
        **(ratios if spec.ratio_embeddings else {}),
        **({"embedding.signals": _Fresh((SIGNALS, d), 1 / math.sqrt(SIGNALS))} if bins.signals else {}),
        "layers.attention_norm": _Fresh((n, d), fill=1), "layers.qkv": _Fresh((n, d, 3, spec.heads, k), 0.02),
        "layers.out": _Fresh((n, spec.heads, k, d), into), "layers.mlp_norm": _Fresh((n, d), fill=1),
        "layers.gate_up": _Fresh((n, d, 2, 4 * d), 0.02), "layers.down": _Fresh((n, 4 * d, d), into), **linear,
        "norm": _Fresh((d,), fill=1), **head}


def shapes(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every weight of a model, by its name."""
    return {name: fresh.shape for name, fresh in _plan(spec).items()}


def init(spec: ModelSpec, key: jax.Array, dtype: str = "float32", compute: ComputeSpec = FLOAT32) -> OrderModel:
    """A model with fresh weights, stored in `dtype`.

    Tables are normal(1), matrices normal(0.02), those into the residual stream less by sqrt(2 L). All come from one
    long draw, which compiles much faster than one for each.
    """
    plan = _plan(spec)
    ends = np.cumsum([math.prod(fresh.shape) if fresh.scale else 0 for fresh in plan.values()])
    drawn = jax.random.normal(key, (int(ends[-1]),), jnp.float32)

    def weight(fresh: _Fresh, end: int) -> Any:
        if not fresh.scale:
            return jnp.full(fresh.shape, fresh.fill, dtype)
        return (fresh.scale * drawn[end - math.prod(fresh.shape):end]).reshape(fresh.shape).astype(dtype)

    found = {name: weight(fresh, int(end)) for (name, fresh), end in zip(plan.items(), ends, strict=True)}
    return OrderModel(spec, found, compute)
