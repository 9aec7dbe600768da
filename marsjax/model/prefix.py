"""Slots that many contexts have in common: read once for all of them, by products of matrices.

Trajectories that begin at one start have the same keys and values in the first slots of their contexts until these are
refreshed. Each has its own copy, and later slots of its own. A step reads the common slots here, for the queries of all
trajectories together, and the other slots of each context by `model.cached_attention`, which brings the two parts to
one maximum and adds them up: the same softmax, but for rounding. How many slots of a context are common is a number of
each trajectory (`kv_cache.State.of_prefix`), 0 after its refresh.

On a GPU `model.prefix_kernel` does so in bfloat16. Its programs leave at once where none of their queries has a common
slot, so that no branch waits for an answer in any layer. Where rows are decoded in blocks, as on a CPU, a branch skips
the products of blocks without common slots; elsewhere they are always made.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import jax
import jax.numpy as jnp

from marsjax.core.kernels import Kernels
from marsjax.core.records import Array
from marsjax.core.specs import ComputeSpec
from marsjax.model import attention_kernel, cached_attention, layers, prefix_kernel
from marsjax.model.attention_kernel import Earlier
from marsjax.model.cached_attention import Slots

_BLOCK = 64
"""Slots are filled up to a multiple of it with such as are never common."""
Parts: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
"""Of `Earlier`: most, total and mixed."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Prefix:
    """The first P slots of a start, of L layers with h heads of k; no array has an axis of trajectories."""

    keys: tuple[Array, ...]
    """L arrays [h, k, P] in the dtype of `ComputeSpec`, turned by slot; 8 bits are multiplied by their scales."""
    values: tuple[Array, ...]
    """L arrays [h, P, k]."""


def of_slots(slots: Sequence[Slots], count: int, compute: ComputeSpec) -> Prefix:
    """The first `count` slots of the only context in each layer's slots, [1, h, W, k]."""
    rest = -count % _BLOCK

    def first(x: jax.Array) -> jax.Array:
        return jnp.pad(x[0, :, :count], ((0, 0), (0, rest), (0, 0)))

    both = [[first(x) for x in cached_attention.plain(of_layer, compute.dtype)] for of_layer in slots]
    return Prefix(tuple(jnp.swapaxes(keys, 1, 2) for keys, _ in both), tuple(values for _, values in both))


def attend(prefix: Prefix, layer: int, query: jax.Array, count: jax.Array, slots: Slots, ways: Kernels,
           compute: ComputeSpec) -> Earlier:
    """What turned queries [B, T, h, k] meet in the first `count` [B, T] slots of a prefix, in layer number `layer`.

    In the units of the way that reads the others of `slots`, those of the B contexts.
    """
    keys, values = jnp.asarray(prefix.keys[layer]), jnp.asarray(prefix.values[layer])
    flat, of_query = query.reshape(-1, *query.shape[2:]), count.reshape(-1).astype(jnp.int32)
    by_kernel = cached_attention.by_kernel(ways, slots)
    if by_kernel and prefix_kernel.fits(keys.shape, compute.dtype):
        found = prefix_kernel.attend(flat, keys, values, of_query, interpret=ways.attention == "interpreted")
    else:
        unit, power = (attention_kernel.LOG2_E, jnp.exp2) if by_kernel else (1.0, jnp.exp)
        met = functools.partial(by_products, (keys, values), compute, unit, power)
        # An accelerator's host would have to decide the branch in every layer.
        found = met(flat, of_query) if ways.rows is None else jax.lax.cond(
            jnp.any(of_query > 0), met, lambda query, _: _nothing(query), flat, of_query)
    return Earlier(count.astype(jnp.int32), *(x.reshape(*query.shape[:2], *x.shape[1:]) for x in found))


def by_products(of_layer: tuple[jax.Array, jax.Array], compute: ComputeSpec, unit: float,
                power: Callable[[jax.Array], jax.Array], query: jax.Array, count: jax.Array) -> Parts:
    """Most, total and mixed of `Earlier`, of queries [N, h, k] with `count` [N] slots each, by products of JAX.

    Scores are multiplied by `unit` before the `power`.
    """
    (keys, values), precision = of_layer, layers.precision_of(compute)
    score_HxNxP = jnp.einsum("nhk,hkp->hnp", query, keys, precision=precision,
                             preferred_element_type=jnp.float32) * (unit / math.sqrt(query.shape[-1]))
    seen = jnp.arange(keys.shape[2]) < count[:, None]
    score_HxNxP = jnp.where(seen, score_HxNxP, layers.MASKED)
    most = jnp.max(score_HxNxP, axis=-1)
    weight_HxNxP = jnp.where(seen, power(score_HxNxP - most[..., None]), 0)
    mixed = jnp.einsum("hnp,hpk->nhk", weight_HxNxP.astype(compute.dtype), values, precision=precision,
                       preferred_element_type=jnp.float32)
    return most.T, jnp.sum(weight_HxNxP, axis=-1).T, mixed


def _nothing(query: jax.Array) -> Parts:
    """Of queries without a common slot."""
    zero = jnp.zeros(query.shape, jnp.float32)
    return jnp.full(query.shape[:2], layers.MASKED, jnp.float32), zero[..., 0], zero
