"""The cached step of a model with linear attention: its memories (`linear_attention.LayerMemory`), one a layer.

A memory has the tokens before the newest in its sums, and the newest beside them, which can still be rewritten (a
merged cancel). There is no window: older tokens fade, and nothing is ever made anew. `kv_cache` calls this in the
mode `recurrent`.
"""

import jax
import jax.numpy as jnp

from marsjax.core import kernels
from marsjax.core.records import Array, Token
from marsjax.core.specs import CacheSpec, ModelSpec
from marsjax.model import linear_attention
from marsjax.model.blocks import Part, in_blocks
from marsjax.model.layers import DecoderLayer
from marsjax.model.linear_attention import LayerMemory
from marsjax.model.llama import OrderModel


def empty(spec: ModelSpec, batch: int) -> tuple[LayerMemory, ...]:
    """Of B trajectories without tokens."""
    heads, size = spec.heads, spec.embed_dim // spec.heads
    shapes = (batch, heads, size, size), (batch, heads, size), (batch, heads, size), (batch, heads)
    return tuple(LayerMemory(*(jnp.zeros(shape, jnp.float32) for shape in shapes)) for _ in range(spec.layers))


def append(model: OrderModel, cache: CacheSpec, memories: tuple[LayerMemory, ...], newest: jax.Array, tokens: Token,
           count: jax.Array, again: Array) -> tuple[tuple[LayerMemory, ...], jax.Array]:
    """Memories, and the newest tokens' residual streams [B, d] into the last layer, after tokens [B, M].

    The first `count` [B] of them are appended; where `again` [B] is 1 the first of these takes the newest's place.
    """
    (batch, width), ways = tokens.kind.shape, kernels.chosen(cache.kernels)
    rows = ways.rows if width <= cache.append else cache.block  # of whole windows only some at a time

    def block(part: Part) -> tuple[tuple[LayerMemory, ...], jax.Array]:
        x, some, rewrites = model.embedding(jax.tree.map(part, tokens)), part(count), part(again) > 0
        found = []
        for number in range(model.spec.layers):
            is_last = number == model.spec.layers - 1
            after, mixed = _after(model.layer(number), jax.tree.map(part, memories[number]), x, some, rewrites, is_last)
            found.append(after)
            x = x if mixed is None else model.layer(number).after_attention(x, mixed)
        return tuple(found), jnp.where(some[:, None] > 0, _at_last(x, some), part(newest))

    result: tuple[tuple[LayerMemory, ...], jax.Array] = in_blocks(block, rows, batch)
    return result


def predict(model: OrderModel, cache: CacheSpec, memory: LayerMemory, newest: jax.Array) -> jax.Array:
    """Final hidden states [B, d], of the last layer's memory and what comes into it of the newest tokens, [B, d]."""
    layer = model.layer(model.spec.layers - 1)

    def block(part: Part) -> jax.Array:
        x = part(newest)
        (query,) = layer.project(x, slice(0, 1))
        mixed = linear_attention.read_one(query, jax.tree.map(part, memory))
        return model.norm(layer.after_attention(x, mixed))

    result: jax.Array = in_blocks(block, kernels.chosen(cache.kernels).rows, newest.shape[0])
    return result


def _after(layer: DecoderLayer, memory: LayerMemory, x: jax.Array, count: jax.Array, rewrites: jax.Array, is_last: bool
           ) -> tuple[LayerMemory, jax.Array | None]:
    """A layer's memory after the first `count` [R] of residuals [R, M, d], and what each read, [R, M, h, k].

    Of the last layer nothing is read: `predict` does.
    """
    *query, key, value = layer.project(x, slice(1 if is_last else 0, 3))
    fading, place = layer.fading(x), jnp.arange(x.shape[1])
    sums, any_new = jnp.asarray(memory.sums), count > 0
    before = jnp.where((any_new & ~rewrites)[:, None, None, None], linear_attention.written(memory), sums)
    mine = LayerMemory(before, *(_at_last(each, count).astype(jnp.float32) for each in (key, value, fading)))
    mixed = None
    if x.shape[1] == 1:
        mixed = None if is_last else linear_attention.read_one(query[0][:, 0], mine)[:, None]
    else:
        is_before = (place < count[:, None] - 1)[..., None]
        mixed = None if is_last else linear_attention.read_all(query[0], key, value, fading, sums=before)
        mine = mine._replace(sums=linear_attention.write_all(
            before, jnp.where(is_before[..., None], key, 0), value, jnp.where(is_before, fading, 0)))
    return jax.tree.map(
        lambda new, old: jnp.where(any_new.reshape(-1, *[1] * (new.ndim - 1)), new, old), mine, memory), mixed


def _at_last(x: jax.Array, count: jax.Array) -> jax.Array:
    """Of x [R, M, ...] the last of the first `count` [R], or the first where there are none."""
    return x[jnp.arange(len(count)), jnp.maximum(count - 1, 0)]
