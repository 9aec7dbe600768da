"""The batch model: codes of the minutes before -> the law of the next minute's codes, and draws of it.

It is a Llama decoder, as in the paper. A sequence is the codes of up to K minutes and of the next one, one after the
other, each drawn from those before it. What is read in place of a code is the code before it (at the beginning a mark),
with what says which code of a minute comes next. Layers are those of the order model (`model.layers`).
"""

import math
import operator
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from marsjax.core import keys
from marsjax.core.records import Array
from marsjax.model import sampling
from marsjax.model.layers import (
    FLOAT32,
    MASKED,
    DecoderLayer,
    Head,
    RmsNorm,
    Weight,
    attend,
    rotary_table,
    rotate,
)
from marsjax.model.order_batch import fresh
from marsjax.model.order_batch.fresh import FreshWeight
from marsjax.model.order_batch.specs import BatchModelSpec


class BatchModel(nnx.Module):
    """The batch model of given sizes and weights.

    Examples:
      >>> import jax
      >>> found = init(BatchModelSpec(batches=2, places=4, codes=8, width=8, heads=2), jax.random.key(0))
      >>> found.logits(jnp.zeros((5, 12), jnp.int32)).shape
      (5, 12, 8)
    """

    code: Weight
    """[codes + 1, d], the last of them for the mark at the beginning."""
    place: Weight
    """[C, d], of the code that comes next."""
    layers: DecoderLayer
    """All L layers, stacked."""
    norm: RmsNorm
    """[d]."""
    head: Head
    """[d, codes]."""

    def __init__(self, spec: BatchModelSpec, weights: Mapping[str, Array]) -> None:
        """Takes every array of `weights`, by the names and in the shapes of `shapes(spec)`."""
        self.spec = spec
        self.code, self.place = nnx.Param(weights["code"]), nnx.Param(weights["place"])
        self.layers = DecoderLayer({name.removeprefix("layers."): x for name, x in weights.items()
                                    if name.startswith("layers.")})
        self.norm, self.head = RmsNorm(weights["norm"]), Head(weights["head"])

    def weights(self) -> dict[str, Array]:
        """Every weight by its name: the names and the order of `shapes`."""
        found: dict[str, Array] = {}
        for name in _plan(self.spec):
            part = operator.attrgetter(name)(self)
            found[name] = (part if isinstance(part, nnx.Param) else part.weight)[...]
        return found

    def logits(self, codes: Array) -> jax.Array:
        """Logits over each of codes int32 [..., N] given those before it, float32 [..., N, codes].

        The first of them is the first code of a minute; N is at most `BatchModelSpec.length`.
        """
        codes = jnp.asarray(codes)
        x, _ = self._encode(self._read(codes[..., :-1], self.mark(codes.shape[:-1])))
        return self.head(self.norm(x))

    def mark(self, shape: tuple[int, ...]) -> jax.Array:
        """What is read before the first code, int32 [...]."""
        return jnp.full(shape, self.spec.codes, jnp.int32)

    def sample(self, history: Array, known: Array, key: Array, count: int, temperature: float = 1.0) -> jax.Array:
        """Draws of the next minute, int32 [B, count, C].

        Args:
          history: codes of the K minutes before it, int32 [B, K, C], oldest first.
          known: int32 [B], how many of them are known, the last ones; the others are not read.
          key: a typed key for each trajectory, [B]: what one gets does not depend on the others.
          count: draws of each.
          temperature: of the draws.
        """
        def of_one(history: jax.Array, known: jax.Array, key: jax.Array) -> jax.Array:
            words = jax.random.bits(key, (self.spec.places, count, 2), jnp.uint32)
            return self._drawn(self._before(history, known), words, temperature)

        return jax.vmap(of_one)(jnp.asarray(history), jnp.asarray(known), keys.typed(key))

    def _read(self, codes: jax.Array, first: jax.Array, at: int | jax.Array = 0) -> jax.Array:
        """Embeddings [..., N + 1, d] of `first` [...] and codes [..., N] after it, from position `at` on."""
        rows = jnp.concatenate([first[..., None], codes], axis=-1)
        place = (at + jnp.arange(rows.shape[-1])) % self.spec.places
        return jnp.asarray(self.code[...])[rows] + jnp.asarray(self.place[...])[place]

    def _encode(self, x: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Residuals [..., T, d] after all layers, and their keys (rotated) and values [L, 2, ..., T, h, k]."""
        length, size = x.shape[-2], self.spec.width // self.spec.heads
        cos, sin = rotary_table(length, size)
        seen_TxT = np.tril(np.ones((length, length), bool))

        def run(x: jax.Array, layer: DecoderLayer) -> tuple[jax.Array, jax.Array]:
            q, k, v = layer.project(x)
            q, k = rotate(q, cos[:, None], sin[:, None]), rotate(k, cos[:, None], sin[:, None])
            mixed = attend(q, jnp.swapaxes(k, -3, -2), jnp.swapaxes(v, -3, -2), seen_TxT, FLOAT32)
            return layer.after_attention(x, mixed), jnp.stack([k, v])

        return jax.lax.scan(run, x, self.layers)

    def _before(self, history: jax.Array, known: jax.Array) -> "_Before":
        """Keys and values of one trajectory's history [K, C]."""
        batches, places = history.shape
        codes = jnp.roll(history, known - batches, axis=0).reshape(-1)  # those that are known come first
        x = self._read(codes[:-1], self.mark(()))
        _, kept = self._encode(x)
        length = known * places
        newest = jnp.where(known > 0, codes[jnp.maximum(length - 1, 0)], self.spec.codes)
        return _Before(kept, length, newest)

    def _drawn(self, before: "_Before", words: jax.Array, temperature: float) -> jax.Array:
        """Codes [count, C] by random words uint32 [C, count, 2]."""
        places, count = words.shape[:2]
        size = self.spec.width // self.spec.heads
        shape = (self.spec.layers, 2, count, places, self.spec.heads, size)
        fresh_codes = jnp.broadcast_to(before.newest, (count,))

        def one(carry: tuple[jax.Array, jax.Array], step: tuple[jax.Array, jax.Array]
                ) -> tuple[tuple[jax.Array, jax.Array], jax.Array]:
            newest, own = carry
            number, word = step
            hidden, own = self._step(before, own, newest, number)
            drawn = sampling.sample(self.head(self.norm(hidden)), word, temperature)
            return (drawn, own), drawn

        (_, _), found = jax.lax.scan(one, (fresh_codes, jnp.zeros(shape, jnp.float32)), (jnp.arange(places), words))
        return found.T

    def _step(self, before: "_Before", own: jax.Array, newest: jax.Array, number: jax.Array
              ) -> tuple[jax.Array, jax.Array]:
        """Residuals [n, d] after reading code `newest` [n] before place `number` of the minute.

        And `own` [L, 2, n, C, h, k] with its keys and values.
        """
        cos_T, sin_T = rotary_table(self.spec.length, self.spec.width // self.spec.heads)
        at = before.length + number
        cos, sin = jnp.asarray(cos_T)[at], jnp.asarray(sin_T)[at]
        x = jnp.asarray(self.code[...])[newest] + jnp.asarray(self.place[...])[number]
        is_past = jnp.arange(before.kept.shape[2]) < before.length
        is_own = jnp.arange(own.shape[3]) <= number

        def run(x: jax.Array, of: tuple[DecoderLayer, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            layer, past, mine = of
            q, k, v = layer.project(x)
            q, k = rotate(q, cos, sin), rotate(k, cos, sin)
            mine = mine.at[:, :, number].set(jnp.stack([k, v]))
            scores = jnp.concatenate([jnp.where(is_past, jnp.einsum("nhk,shk->nhs", q, past[0]), MASKED),
                                      jnp.where(is_own, jnp.einsum("nhk,nshk->nhs", q, mine[0]), MASKED)], axis=-1)
            weight = jax.nn.softmax(scores / math.sqrt(q.shape[-1]), axis=-1)
            of_past, of_own = jnp.split(weight, [past.shape[1]], axis=-1)
            mixed = jnp.einsum("nhs,shk->nhk", of_past, past[1]) + jnp.einsum("nhs,nshk->nhk", of_own, mine[1])
            return layer.after_attention(x, mixed), mine

        return jax.lax.scan(run, x, (self.layers, before.kept, own))


class _Before(NamedTuple):
    """What one trajectory's draws read of its history."""

    kept: jax.Array
    """[L, 2, K C, h, k], keys and values; those past `length` belong to no code."""
    length: jax.Array
    """int32 [], codes that are known."""
    newest: jax.Array
    """int32 [], the last of them, or the mark."""


def _plan(spec: BatchModelSpec) -> dict[str, FreshWeight]:
    """How every weight starts, by its name."""
    d, n, h = spec.width, spec.layers, spec.heads
    into = 0.02 / math.sqrt(2 * n)
    return {
        "code": FreshWeight((spec.codes + 1, d), 0.5), "place": FreshWeight((spec.places, d), 0.5),
        "layers.attention_norm": FreshWeight((n, d), fill=1), "layers.qkv": FreshWeight((n, d, 3, h, d // h), 0.05),
        "layers.out": FreshWeight((n, h, d // h, d), into), "layers.mlp_norm": FreshWeight((n, d), fill=1),
        "layers.gate_up": FreshWeight((n, d, 2, 4 * d), 0.05), "layers.down": FreshWeight((n, 4 * d, d), into),
        "norm": FreshWeight((d,), fill=1), "head": FreshWeight((d, spec.codes), 0.02)}


def shapes(spec: BatchModelSpec) -> dict[str, tuple[int, ...]]:
    """The shape of every weight, by its name."""
    return {name: one.shape for name, one in _plan(spec).items()}


def init(spec: BatchModelSpec, key: jax.Array) -> BatchModel:
    """A model with fresh weights."""
    return BatchModel(spec, fresh.drawn(_plan(spec), key))
