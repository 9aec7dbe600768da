"""The order model: order tokens to logits over the next token (reference: order model; paper, section 3).

A Llama decoder over embedded order tokens, as pure functions of (params, spec, tokens). `Params` is a frozen record
of arrays with all layers stacked on a leading axis, which `lax.scan` walks, so that compile time does not grow with
depth; `OrderModel` holds the same record as Flax NNX variables.

Linear maps are stored as [in, out] and applied as x @ w, the transpose of the reference's tensors.
"""

import dataclasses
import math
from typing import Any, NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from marsjax.specs import ComputeSpec, ModelSpec
from marsjax.types import Array, Token

CHANGE_LIMIT = 2000
"""Largest change of the mid since the open with an embedding, 1e-4 either way."""
CHANGE_ROWS = 2 * CHANGE_LIMIT + 1
SECONDS_PER_ROW = 5
TIME_ROWS = 2881
"""Embeddings of time: five seconds each, the last for 4 hours of trading and beyond."""
RATIO_ROWS = 11
LEVELS = 10
LAYER_NORM_EPSILON = 1e-5
RMS_NORM_EPSILON = 1e-6
ROTARY_BASE = 1e4
FLOAT32 = ComputeSpec()
MASKED = -1e30
"""Score of a key that is not seen."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Embedding:
    """Tables summed into a token's embedding; d is `ModelSpec.width`.

    In brackets the reference's names, all below `order_info_tokenizer`.
    """

    kind: Array
    """[3, d] (emb_order_type.weight)."""
    price: Array
    """[price_levels, d] (emb_price_level.weight)."""
    volume: Array
    """[volumes, d] (emb_pred_order_volume.weight)."""
    interval: Array
    """[intervals, d] (emb_order_interval.weight)."""
    change: Array
    """[4001, d] (emb_chg_to_open.weight)."""
    time: Array
    """[2881, d] (emb_time_to_open.weight)."""
    levels: Array
    """[10, d] (lob_tokenizer.0.weight, transposed)."""
    levels_bias: Array
    """[d] (lob_tokenizer.0.bias)."""
    levels_scale: Array
    """[d] (lob_tokenizer.1.weight)."""
    levels_shift: Array
    """[d] (lob_tokenizer.1.bias)."""
    volume_ratio: Array | None = None
    """[11, d] if `ModelSpec.ratio_embeddings`."""
    trade_ratio: Array | None = None
    """[11, d] if `ModelSpec.ratio_embeddings`."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Layers:
    """All L decoder layers, stacked; h heads of k = d / h. Names of the reference below `decoder.model.layers.N`."""

    attention_norm: Array
    """[L, d] (input_layernorm.weight)."""
    qkv: Array
    """[L, d, 3, h, k] (self_attn.q_proj.weight, k_proj and v_proj: each transposed, then split into heads)."""
    out: Array
    """[L, h, k, d] (self_attn.o_proj.weight, transposed, then split into heads)."""
    mlp_norm: Array
    """[L, d] (post_attention_layernorm.weight)."""
    gate_up: Array
    """[L, d, 2, 4d] (mlp.gate_proj.weight and mlp.up_proj.weight, transposed)."""
    down: Array
    """[L, 4d, d] (mlp.down_proj.weight, transposed)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Params:
    """Everything that is learnt."""

    embedding: Embedding
    layers: Layers
    norm: Array
    """[d] (decoder.model.norm.weight)."""
    head: Array
    """[d, classes] (decoder.lm_head.weight, transposed)."""


class _Fresh(NamedTuple):
    """How one tensor starts: normal(scale), or, without a scale, filled with one number."""

    shape: tuple[int, ...]
    scale: float = 0.0
    fill: float = 0.0


def _plan(spec: ModelSpec) -> Any:
    """`Params` with a `_Fresh` for each tensor."""
    d, n, k, bins = spec.width, spec.layers, spec.width // spec.heads, spec.tokens
    into, ratio = 0.02 / math.sqrt(2 * n), _Fresh((RATIO_ROWS, d), 1) if spec.ratio_embeddings else None
    start: Any = _Fresh  # what stands in for arrays below
    embedding = Embedding(
        kind=start((3, d), 1), price=start((bins.price_levels, d), 1), volume=start((bins.volumes, d), 1),
        interval=start((bins.intervals, d), 1), change=start((CHANGE_ROWS, d), 1), time=start((TIME_ROWS, d), 1),
        levels=start((LEVELS, d), 1 / math.sqrt(LEVELS)), levels_bias=start((d,)), levels_scale=start((d,), fill=1),
        levels_shift=start((d,)), volume_ratio=cast(Any, ratio), trade_ratio=cast(Any, ratio))
    layers = Layers(
        attention_norm=start((n, d), fill=1), qkv=start((n, d, 3, spec.heads, k), 0.02),
        out=start((n, spec.heads, k, d), into), mlp_norm=start((n, d), fill=1),
        gate_up=start((n, d, 2, 4 * d), 0.02), down=start((n, 4 * d, d), into))
    return Params(embedding, layers, start((d,), fill=1), start((d, bins.classes), 0.02))


def init(spec: ModelSpec, key: jax.Array, dtype: str = "float32") -> Params:
    """Fresh parameters: tables normal(1), matrices normal(0.02), those into the residual stream less by sqrt(2 L).

    All come from one long draw, which compiles in a tenth of the time of one for each. `jax.eval_shape` of this
    function gives the shapes alone.
    """
    plan, tree = jax.tree.flatten(_plan(spec), is_leaf=lambda x: isinstance(x, _Fresh))
    ends = np.cumsum([math.prod(fresh.shape) if fresh.scale else 0 for fresh in plan])
    drawn = jax.random.normal(key, (int(ends[-1]),), jnp.float32)

    def tensor(fresh: _Fresh, end: int) -> jax.Array:
        if not fresh.scale:
            return jnp.full(fresh.shape, fresh.fill, dtype)
        return (fresh.scale * drawn[end - math.prod(fresh.shape):end]).reshape(fresh.shape).astype(dtype)

    return jax.tree.unflatten(tree, [tensor(fresh, int(end)) for fresh, end in zip(plan, ends, strict=True)])


def embed(params: Params, tokens: Token, compute: ComputeSpec = FLOAT32) -> jax.Array:
    """Token embeddings [..., d] of tokens [...], in the dtype of `compute`.

    Change and time beyond their tables take the last row (counting that is up to the maker of the tokens).
    """
    table = params.embedding
    change = jnp.clip(tokens.change, -CHANGE_LIMIT, CHANGE_LIMIT) + CHANGE_LIMIT
    row = jnp.clip(jnp.asarray(tokens.seconds) // SECONDS_PER_ROW, 0, TIME_ROWS - 1)
    found = [(table.kind, tokens.kind), (table.price, tokens.price_bin), (table.volume, tokens.volume_bin),
             (table.interval, tokens.interval_bin), (table.change, change), (table.time, row),
             (table.volume_ratio, tokens.volume_ratio), (table.trade_ratio, tokens.trade_ratio)]
    # The barrier keeps XLA from splitting this into a GPU kernel for each table.
    x = jax.lax.optimization_barrier(
        sum(jnp.asarray(rows)[index].astype(jnp.float32) for rows, index in found if rows is not None))
    levels = dense(jnp.asarray(tokens.levels, jnp.float32), table.levels, dataclasses.replace(compute, dtype="float32"))
    return (x + _layer_norm(levels + table.levels_bias, table.levels_scale, table.levels_shift)).astype(compute.dtype)


def hidden(params: Params, spec: ModelSpec, tokens: Token, compute: ComputeSpec = FLOAT32) -> jax.Array:
    """Hidden states after the final norm [..., T, d] of sequences of tokens [..., T], each seeing those up to itself.

    The first token has position 0. ValueError if T is more than `ModelSpec.max_orders`.
    """
    x, _ = encode(params, spec, tokens, compute)
    return finish(params, x)


def encode(params: Params, spec: ModelSpec, tokens: Token, compute: ComputeSpec = FLOAT32, *,
           upto: int | None = None) -> tuple[jax.Array, jax.Array]:
    """Residual stream [..., T, d] after the layers before number `upto` (default all), and their keys and values.

    Keys (rotated by their positions from 0) and values are [upto, 2, ..., T, h, k].
    """
    x = embed(params, tokens, compute)
    length = x.shape[-2]
    if length > spec.max_orders:
        raise ValueError(f"order model: expected at most max_orders={spec.max_orders} tokens, got {length}")
    cos, sin = rotary_table(length, spec.width // spec.heads)
    seen_TxS = np.tril(np.ones((length, length), bool))

    def layer(x: jax.Array, weights: Layers) -> tuple[jax.Array, jax.Array]:
        q, k, v = project(weights, x, compute)
        q, k = rotate(q, cos[:, None], sin[:, None]), rotate(k, cos[:, None], sin[:, None])
        mixed = attend(q, jnp.swapaxes(k, -3, -2), jnp.swapaxes(v, -3, -2), seen_TxS, compute)
        return after_attention(weights, x, mixed, compute), jnp.stack([k, v])

    return jax.lax.scan(layer, x, jax.tree.map(lambda w: w[:upto], params.layers))


def logits(params: Params, spec: ModelSpec, tokens: Token, compute: ComputeSpec = FLOAT32, *,
           last_only: bool = True) -> jax.Array:
    """Logits over the next token's class, float32 [..., classes], after the last of tokens [..., T].

    [..., T, classes], after each of them, if not `last_only`.
    """
    states = hidden(params, spec, tokens, compute)
    return head(params, states[..., -1, :] if last_only else states, compute)


def head(params: Params, hidden: jax.Array, compute: ComputeSpec = FLOAT32) -> jax.Array:
    """Logits [..., classes], float32, of hidden states [..., d].

    class = ((kind x price_levels + price_bin) x volumes + volume_bin) x intervals + interval_bin.
    """
    return dense(hidden, params.head, compute, out=jnp.float32)


def project(weights: Layers, x: jax.Array, compute: ComputeSpec, part: slice = slice(None)) -> tuple[jax.Array, ...]:
    """Queries, keys and values [..., h, k] of one layer, or those in `part`, not yet rotated, of residuals [..., d]."""
    width, _, heads, size = weights.qkv.shape
    chosen = weights.qkv[:, part]
    qkv = dense(rms_norm(x, weights.attention_norm), chosen.reshape(width, -1), compute)
    qkv = qkv.reshape(*x.shape[:-1], chosen.shape[1], heads, size)
    return tuple(qkv[..., i, :, :] for i in range(chosen.shape[1]))


def attend(q: jax.Array, keys: jax.Array, values: jax.Array, seen: Array, compute: ComputeSpec) -> jax.Array:
    """Softmax attention [..., T, h, k] of rotated q [..., T, h, k] to keys and values [..., h, S, k].

    `seen` says which of the S each of the T sees, bool, broadcast to [..., h, T, S].
    """
    score_HxTxS = jnp.einsum("...thk,...hsk->...hts", q, keys, precision=_precision(compute),
                             preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    weight_HxTxS = jax.nn.softmax(jnp.where(seen, score_HxTxS, MASKED), axis=-1).astype(compute.dtype)
    return jnp.einsum("...hts,...hsk->...thk", weight_HxTxS, values, precision=_precision(compute))


def after_attention(weights: Layers, x: jax.Array, mixed: jax.Array, compute: ComputeSpec) -> jax.Array:
    """The rest of one layer: residuals [..., d] plus attention's output from [..., h, k], then plus the MLP's."""
    width = x.shape[-1]
    x = x + dense(mixed.reshape(x.shape), weights.out.reshape(width, width), compute)
    gate_up = dense(rms_norm(x, weights.mlp_norm), weights.gate_up.reshape(width, -1), compute)
    gate, up = jnp.split(gate_up, 2, axis=-1)
    return x + dense(jax.nn.silu(gate) * up, weights.down, compute)


def finish(params: Params, x: jax.Array) -> jax.Array:
    """Hidden states: the final norm of residuals [..., d]."""
    return rms_norm(x, params.norm)


def dense(x: jax.Array, w: Array, compute: ComputeSpec, out: jax.typing.DTypeLike | None = None) -> jax.Array:
    """x [..., n] @ w [n, m] in the dtype of `compute`, or accumulated and returned in `out`."""
    x, w = x.astype(compute.dtype), jnp.asarray(w).astype(compute.dtype)
    return jnp.matmul(x, w, precision=_precision(compute), preferred_element_type=out)


def rms_norm(x: jax.Array, weight: Array) -> jax.Array:
    """x / sqrt(mean(x^2) + 1e-6) x weight over the last axis, computed in float32, in the dtype of x."""
    wide = x.astype(jnp.float32)
    wide = wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + RMS_NORM_EPSILON)
    return (wide * weight).astype(x.dtype)


def _layer_norm(x: jax.Array, scale: Array, shift: Array) -> jax.Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    return x * scale + shift


def rotary_table(positions: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and sines, float32 [positions, size / 2], of angles made in float64 on the host.

    Float32 angles would be off by 1e-4 at position 2,000 and by a whole turn at 10^8.
    """
    frequency = ROTARY_BASE ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    angle = np.arange(positions, dtype=np.float64)[:, None] * frequency
    return np.cos(angle).astype(np.float32), np.sin(angle).astype(np.float32)


def rotate(x: jax.Array, cos: Array, sin: Array) -> jax.Array:
    """Rotary embedding, half-split convention: x [..., k] turned by angles [..., k / 2], computed in float32."""
    a, b = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).astype(x.dtype)


def _precision(compute: ComputeSpec) -> jax.lax.Precision | None:
    return jax.lax.Precision.HIGHEST if (compute.dtype, compute.precision) == ("float32", "highest") else None


class OrderModel(nnx.Module):
    """The order model as a Flax NNX module: `Params` with every array an `nnx.Param`.

    A thin holder for users of Flax (`nnx.grad`, `nnx.Optimizer`, `nnx.split`); marsjax itself works on `arrays`.
    """

    def __init__(self, spec: ModelSpec, params: Params, compute: ComputeSpec = FLOAT32) -> None:
        self.spec, self.compute = spec, compute
        self.params = nnx.data(jax.tree.map(nnx.Param, params))

    @property
    def arrays(self) -> Params:
        """The parameters as plain arrays."""
        return jax.tree.map(lambda p: p[...], self.params, is_leaf=lambda p: isinstance(p, nnx.Param))

    def __call__(self, tokens: Token) -> jax.Array:
        """Logits [..., T, classes] after each of tokens [..., T]."""
        return logits(self.arrays, self.spec, tokens, self.compute, last_only=False)
