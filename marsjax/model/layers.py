"""The parts of the order model: embedding, decoder layer, norm and head, each a Flax NNX module with its weights.

Their methods are the only definition of the model's arithmetic; training, encoding and the cached step all call them.
Linear maps are stored as [in, out] and applied as x @ w, the transpose of the reference's tensors. In brackets the
names of the reference.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from marsjax.core.records import Array, Token
from marsjax.core.specs import ComputeSpec
from marsjax.model import linear_attention, sampling

Weight: TypeAlias = nnx.Param[Array]

CHANGE_LIMIT = 2000
"""Largest change of the mid since the open with an embedding, 1e-4 either way."""
CHANGE_ROWS = 2 * CHANGE_LIMIT + 1
SECONDS_PER_ROW = 5
TIME_ROWS = 2881
"""Embeddings of time: five seconds each, the last for 4 hours of trading and beyond."""
RATIO_ROWS = 11
LEVELS = 10
SIGNALS = 7
"""Columns of a token beside the reference's."""
_SIGNAL_UNIT = 8
LAYER_NORM_EPSILON = 1e-5
RMS_NORM_EPSILON = 1e-6
ROTARY_BASE = 1e4
FLOAT32 = ComputeSpec()
MASKED = -1e30
"""Score of a key that is not seen."""
_CUDNN_UNIT, _CUDNN_MOST = 8, 128
"""Numbers of a head that cuDNN's attention takes: multiples of the first, up to the second."""
_CALLED: Mapping[str, Literal["cudnn", "xla"]] = {"cudnn": "cudnn", "stand_in": "xla"}
"""What JAX calls the ways of its attention."""


class RmsNorm(nnx.Module):
    """x / sqrt(mean(x^2) + 1e-6) x weight over the last axis, computed in float32."""

    weight: Weight
    """[d]."""

    def __init__(self, weight: Array) -> None:
        self.weight = nnx.Param(weight)

    def __call__(self, x: jax.Array) -> jax.Array:
        """The norm of x [..., d], in its dtype."""
        return (_unit(x) * self.weight[...]).astype(x.dtype)


class Embedding(nnx.Module):
    """Tables that are summed into a token's embedding; d is `ModelSpec.embed_dim`.

    Reference: `order_info_tokenizer`.
    """

    kind: Weight
    """[3, d] (emb_order_type.weight)."""
    price: Weight
    """[price_levels, d] (emb_price_level.weight)."""
    volume: Weight
    """[volumes, d] (emb_pred_order_volume.weight)."""
    interval: Weight
    """[intervals, d] (emb_order_interval.weight)."""
    change: Weight
    """[4001, d] (emb_chg_to_open.weight)."""
    time: Weight
    """[2881, d] (emb_time_to_open.weight)."""
    levels: Weight
    """[10, d] (lob_tokenizer.0.weight, transposed)."""
    levels_bias: Weight
    """[d] (lob_tokenizer.0.bias)."""
    levels_scale: Weight
    """[d] (lob_tokenizer.1.weight)."""
    levels_shift: Weight
    """[d] (lob_tokenizer.1.bias)."""
    volume_ratio: Weight | None
    """[11, d] if `ModelSpec.ratio_embeddings`, else None."""
    trade_ratio: Weight | None
    """[11, d] if `ModelSpec.ratio_embeddings`, else None."""
    signals: Weight | None
    """[7, d] if `TokenSpec.signals`, else None: what the eighth of each of its columns is multiplied by."""

    def __init__(self, tables: Mapping[str, Array], compute: ComputeSpec = FLOAT32) -> None:
        self.compute = compute
        for name in ("volume_ratio", "trade_ratio", "signals", *tables):
            setattr(self, name, nnx.Param(tables[name]) if name in tables else None)

    def __call__(self, tokens: Token) -> jax.Array:
        """Embeddings [..., d] of tokens [...], in the dtype of `compute`.

        A change or time beyond its table takes the last row; who makes the tokens counts these.
        """
        change = jnp.clip(tokens.change, -CHANGE_LIMIT, CHANGE_LIMIT) + CHANGE_LIMIT
        row = jnp.clip(jnp.asarray(tokens.seconds) // SECONDS_PER_ROW, 0, TIME_ROWS - 1)
        found = [(self.kind, tokens.kind), (self.price, tokens.price_bin), (self.volume, tokens.volume_bin),
                 (self.interval, tokens.interval_bin), (self.change, change), (self.time, row),
                 (self.volume_ratio, tokens.volume_ratio), (self.trade_ratio, tokens.trade_ratio)]
        # The barrier keeps XLA from splitting this into a GPU kernel for each table.
        x = jax.lax.optimization_barrier(sum(
            jnp.asarray(table[...])[index].astype(jnp.float32) for table, index in found if table is not None))
        wide = dataclasses.replace(self.compute, dtype="float32")
        if self.signals is not None:
            x = x + dense(jnp.asarray(tokens.signals, jnp.float32) / _SIGNAL_UNIT, self.signals[...], wide)
        levels = dense(jnp.asarray(tokens.levels, jnp.float32), self.levels[...], wide) + self.levels_bias[...]
        return (x + _layer_norm(levels, self.levels_scale[...], self.levels_shift[...])).astype(self.compute.dtype)


class DecoderLayer(nnx.Module):
    """A decoder layer, or a stack of L: then each weight has a leading axis [L].

    h heads of k = d / h. `layer_of(stack, i)` is one layer of a stack, and `jax.lax.scan` over a stack visits each in
    turn. Reference: `decoder.model.layers.N`.
    """

    attention_norm: RmsNorm
    """[d] (input_layernorm.weight)."""
    qkv: Weight
    """[d, 3, h, k] (self_attn.q_proj.weight, k_proj and v_proj: each transposed, then split into heads)."""
    out: Weight
    """[h, k, d] (self_attn.o_proj.weight, transposed, then split into heads)."""
    mlp_norm: RmsNorm
    """[d] (post_attention_layernorm.weight)."""
    gate_up: Weight
    """[d, 2, 4d] (mlp.gate_proj.weight and mlp.up_proj.weight, transposed)."""
    down: Weight
    """[4d, d] (mlp.down_proj.weight, transposed)."""
    decay: Weight | None
    """[d, h] if `ModelSpec.mixer` is linear, else None: how fast each head forgets (`fading`)."""
    decay_bias: Weight | None
    """[h], or None, alike."""
    gate: Weight | None
    """[d, h, k], or None, alike: how much of what a head reads is taken."""

    def __init__(self, weights: Mapping[str, Array], compute: ComputeSpec = FLOAT32) -> None:
        self.compute = compute
        for name in ("decay", "decay_bias", "gate"):
            setattr(self, name, nnx.Param(weights[name]) if name in weights else None)
        self.attention_norm, self.mlp_norm = RmsNorm(weights["attention_norm"]), RmsNorm(weights["mlp_norm"])
        self.qkv, self.out = nnx.Param(weights["qkv"]), nnx.Param(weights["out"])
        self.gate_up, self.down = nnx.Param(weights["gate_up"]), nnx.Param(weights["down"])

    def project(self, x: jax.Array, part: slice = slice(None)) -> tuple[jax.Array, ...]:
        """Queries, keys and values [..., h, k], or those in `part`, not yet rotated, of residuals [..., d]."""
        chosen = jnp.asarray(self.qkv[...])[:, part]
        width, _, heads, size = chosen.shape
        qkv = dense(self.attention_norm(x), chosen.reshape(width, -1), self.compute)
        qkv = qkv.reshape(*x.shape[:-1], chosen.shape[1], heads, size)
        return tuple(qkv[..., i, :, :] for i in range(chosen.shape[1]))

    def fading(self, x: jax.Array) -> jax.Array:
        """Of linear attention the logarithm of what is left of the memory, float32 [..., h], of residuals [..., d].

        -softplus(x w + b) / (half-life of the head): where x w + b is 0, half is left after as many tokens.
        """
        if self.decay is None or self.decay_bias is None:
            raise ValueError("DecoderLayer.fading: the layer has no linear attention")
        wide = dataclasses.replace(self.compute, dtype="float32")
        speed = dense(self.attention_norm(x), self.decay[...], wide) + self.decay_bias[...]
        return -jax.nn.softplus(speed) / linear_attention.half_lives(speed.shape[-1])

    def after_attention(self, x: jax.Array, mixed: jax.Array) -> jax.Array:
        """The rest of the layer: residuals [..., d] plus attention's output from [..., h, k], then plus the MLP's.

        What linear attention read has any size: it is made 1 in each head and gated before.
        """
        width = x.shape[-1]
        if self.gate is not None:
            gate = dense(self.attention_norm(x), self.gate[...].reshape(width, width), self.compute)
            mixed = (_unit(mixed) * jax.nn.silu(gate.astype(jnp.float32)).reshape(mixed.shape)).astype(x.dtype)
        x = x + dense(mixed.reshape(x.shape), self.out[...].reshape(width, width), self.compute)
        gate_up = dense(self.mlp_norm(x), self.gate_up[...].reshape(width, -1), self.compute)
        gate, up = jnp.split(gate_up, 2, axis=-1)
        return x + dense(jax.nn.silu(gate) * up, self.down[...], self.compute)


class Head(nnx.Module):
    """Hidden states to logits over the next token's class."""

    weight: Weight
    """[d, classes] (decoder.lm_head.weight, transposed)."""

    def __init__(self, weight: Array, compute: ComputeSpec = FLOAT32) -> None:
        self.compute = compute
        self.weight = nnx.Param(weight)

    def __call__(self, hidden: jax.Array) -> jax.Array:
        """Logits [..., classes], float32, of hidden states [..., d].

        class = ((kind x price_levels + price_bin) x volumes + volume_bin) x intervals + interval_bin.
        """
        return self.project(hidden, self.weight[...])

    def draw(self, hidden: jax.Array, words: Array, temperature: float, most_logits: int = sampling.MOST_LOGITS
             ) -> tuple[jax.Array, jax.Array]:
        """A class drawn at each of the hidden states [B, d], int32 [B], and whether there is a law, bool [B].

        By two random words, uint32 [B, 2]; `most_logits` are held at a time (`sampling.sample_head`).
        """
        return sampling.sample_head(hidden, self.weight[...], words, temperature, self.project, most_logits)

    def project(self, hidden: jax.Array, columns: Array) -> jax.Array:
        """Logits [..., n], float32, of hidden states [..., d] for some columns [..., d, n] of the weight."""
        return dense(hidden, columns, self.compute, out=jnp.float32)


def layer_of(stack: DecoderLayer, layer: int | jax.Array) -> DecoderLayer:
    """One layer of a stack."""
    if isinstance(layer, int):
        return jax.tree.map(lambda w: jax.lax.index_in_dim(jnp.asarray(w), layer, keepdims=False), stack)
    return jax.tree.map(lambda w: jnp.asarray(w)[layer], stack)


def attend(q: jax.Array, keys: jax.Array, values: jax.Array, seen: Array, compute: ComputeSpec) -> jax.Array:
    """Softmax attention [..., T, h, k] of rotated q [..., T, h, k] to keys and values [..., h, S, k].

    `seen` says which of the S each of the T sees, bool, broadcast to [..., h, T, S].
    """
    score_HxTxS = jnp.einsum("...thk,...hsk->...hts", q, keys, precision=precision_of(compute),
                             preferred_element_type=jnp.float32) / math.sqrt(q.shape[-1])
    weight_HxTxS = jax.nn.softmax(jnp.where(seen, score_HxTxS, MASKED), axis=-1).astype(compute.dtype)
    return jnp.einsum("...hts,...hsk->...thk", weight_HxTxS, values, precision=precision_of(compute))


def attend_to_earlier(q: jax.Array, keys: jax.Array, values: jax.Array, compute: ComputeSpec, way: str = "xla"
                      ) -> jax.Array:
    """Softmax attention of each of rotated q [..., T, h, k] to those of keys and values [..., T, h, k] up to itself.

    `way` is `Kernels.encode`; what the kernel does not take, other dtypes than bfloat16 and some sizes, goes by `xla`.
    The ways differ by rounding.
    """
    size = q.shape[-1]
    if way == "xla" or q.dtype != jnp.bfloat16 or size % _CUDNN_UNIT or size > _CUDNN_MOST:
        seen_TxS = np.tril(np.ones((q.shape[-3], q.shape[-3]), bool))
        return attend(q, jnp.swapaxes(keys, -3, -2), jnp.swapaxes(values, -3, -2), seen_TxS, compute)
    one_batch = (x.reshape(-1, *x.shape[-3:]) for x in (q, keys, values))
    return jax.nn.dot_product_attention(*one_batch, is_causal=True, implementation=_CALLED[way]).reshape(q.shape)


def dense(x: jax.Array, w: Array, compute: ComputeSpec, out: jax.typing.DTypeLike | None = None) -> jax.Array:
    """x [..., n] @ w [n, m] in the dtype of `compute`, or accumulated and returned in `out`."""
    x, w = x.astype(compute.dtype), jnp.asarray(w).astype(compute.dtype)
    return jnp.matmul(x, w, precision=precision_of(compute), preferred_element_type=out)


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


def _unit(x: jax.Array) -> jax.Array:
    """x / sqrt(mean(x^2) + 1e-6) over the last axis, in float32."""
    wide = x.astype(jnp.float32)
    return wide * jax.lax.rsqrt(jnp.mean(wide * wide, axis=-1, keepdims=True) + RMS_NORM_EPSILON)


def _layer_norm(x: jax.Array, scale: Array, shift: Array) -> jax.Array:
    x = x - jnp.mean(x, axis=-1, keepdims=True)
    x = x * jax.lax.rsqrt(jnp.mean(x * x, axis=-1, keepdims=True) + LAYER_NORM_EPSILON)
    return x * scale + shift


def precision_of(compute: ComputeSpec) -> jax.lax.Precision | None:
    """Of matrix products, as JAX names it."""
    return jax.lax.Precision.HIGHEST if (compute.dtype, compute.precision) == ("float32", "highest") else None
