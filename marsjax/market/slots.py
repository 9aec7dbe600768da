"""Arrays of slots, one book's side each, [..., C]: running sums, packing, and looks at their heads alone.

Where there are two ways to one result, `core.kernels.Kernels` says which is taken.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.kernels import Kernels
from marsjax.core.records import EMPTY_PRICE, MAX_VOLUME, NO_ACCOUNT, NO_ID, Array

HEAD = 512
"""Slots at the best price that are looked at first in a deeper book."""
HEAD_OF_MANY = 128
"""The same in a batch of books."""
_Result = TypeVar("_Result")


class Row(NamedTuple):
    """One side of a book, each field [C]."""

    price: Array
    volume: Array
    order_id: Array
    account: Array


_TOGETHER = 8
"""Books of a batch that are looked at as a whole together."""
_FEW_GAPS = 8
"""Most empty slots between kept ones that `pack` closes one by one; more are closed by a scatter."""
NOTHING = (EMPTY_PRICE, 0, NO_ID, NO_ACCOUNT)
"""What the fields of a `Row` hold in an empty slot."""


def on_head(kernels: Kernels, least: int, enough: Callable[..., jax.Array], function: Callable[..., _Result],
            slots: Any, *others: Array) -> _Result:
    """`function(slots, *others)`, computed from the first slots alone where these are enough.

    Args:
      kernels: under `vmap`, `heads_first` takes the heads of all books, and then all slots of those for which that is
        not enough; without it all slots are taken at once, and no kernel waits for the answer.
      least: slots that the head has at least.
      enough: of (slots of the head, slots, *others), bool []: the head gives the result of all slots.
      function: what is computed; its result does not depend on how many slots it is given.
      slots: arrays [..., C].
      others: further arguments of both functions.
    """
    capacity = jax.tree.leaves(slots)[0].shape[-1]

    def of_head(head: int, slots: Any, *others: Array) -> _Result:
        return function(jax.tree.map(lambda x: x[..., :head], slots), *others)

    @jax.custom_batching.custom_vmap
    def chosen(slots: Any, *others: Array) -> _Result:
        head = max(HEAD, least)
        if capacity <= head:
            return function(slots, *others)
        return jax.lax.cond(enough(head, slots, *others), functools.partial(of_head, head), function, slots, *others)

    @chosen.def_vmap
    def _of_batch(size: int, batched: Sequence[Any], *given: Any) -> tuple[_Result, Any]:
        head = max(HEAD_OF_MANY, least)
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))

        if kernels.heads_first and capacity > head:
            is_enough = jax.vmap(functools.partial(enough, head), axes, axis_size=size)(*given)
            found = jax.vmap(functools.partial(of_head, head), axes, axis_size=size)(*given)
            found = _made_anew(function, axes, ~is_enough, found, given)
        else:
            found = jax.vmap(function, axes, axis_size=size)(*given)
        return found, jax.tree.map(lambda _: True, found)

    return chosen(slots, *others)


def _made_anew(function: Callable[..., _Result], axes: tuple[Any, ...], needed: jax.Array, found: _Result,
               given: tuple[Any, ...]) -> _Result:
    """Results [B, ...] with those of function(*given) where `needed` [B], a few of them at a time."""
    size = min(_TOGETHER, len(needed))

    def few(carry: tuple[jax.Array, _Result]) -> tuple[jax.Array, _Result]:
        needed, found = carry
        chosen = jnp.nonzero(needed, size=size, fill_value=len(needed))[0]
        some = jax.tree.map(lambda axis, x: x if axis is None else jnp.take(x, chosen, axis=0, mode="clip"),
                            axes, given, is_leaf=lambda axis: axis is None)
        anew = jax.vmap(function, axes, axis_size=size)(*some)
        return (needed.at[chosen].set(False, mode="drop"),
                jax.tree.map(lambda old, new: old.at[chosen].set(new, mode="drop"), found, anew))

    return jax.lax.while_loop(lambda carry: jnp.any(carry[0]), few, (needed, found))[1]


def if_needed(kernels: Kernels, needed: Array, rare: Callable[..., _Result], usual: Callable[..., _Result],
              *given: Any) -> _Result:
    """`rare(*given)` where it is needed, bool [], else `usual(*given)`, which costs less.

    Under `vmap`, `heads_first` computes `rare` only where a book of the batch needs it; without it both always are, and
    no kernel waits for the answer.
    """
    def chosen_of(needed: jax.Array, *given: Any) -> _Result:
        return jax.tree.map(functools.partial(jnp.where, needed), rare(*given), usual(*given))

    @jax.custom_batching.custom_vmap
    def chosen(needed: jax.Array, *given: Any) -> _Result:
        return jax.lax.cond(needed, rare, usual, *given)

    @chosen.def_vmap
    def _of_batch(size: int, batched: Sequence[Any], needed: jax.Array, *given: Any) -> tuple[_Result, Any]:
        axes = jax.tree.map(lambda is_batched: 0 if is_batched else None, tuple(batched))
        both = jax.vmap(chosen_of, axes, axis_size=size)
        if kernels.heads_first:
            found = jax.lax.cond(jnp.any(needed), both, lambda _, *given: jax.vmap(
                usual, axes[1:], axis_size=size)(*given), needed, *given)
        else:
            found = both(needed, *given)
        return found, jax.tree.map(lambda _: True, found)

    return chosen(jnp.asarray(needed), *given)


def saturating_prefix_sum(kernels: Kernels, volume: Array) -> jax.Array:
    """Shares before each slot: exclusive running sum of int32 [C] >= 0, held at 2**31 - 1 once it would pass it.

    Saturating addition of numbers >= 0 is associative, so a parallel scan does it; a plain sum wraps on deep sides.
    """
    volume = jnp.asarray(volume)
    # Windows take the square of the slots.
    by_windows = kernels.prefix_sum == "windows" and volume.shape[-1] <= HEAD
    return _sum_by_windows(volume) if by_windows else _sum_by_scan(volume)


def _sum_by_scan(volume: jax.Array) -> jax.Array:
    """`saturating_prefix_sum` in few operations."""
    inclusive = jax.lax.associative_scan(_saturating_add, volume.astype(jnp.uint32)).astype(jnp.int32)
    return jnp.concatenate([jnp.zeros_like(inclusive[:1]), inclusive[:-1]])


def _sum_by_windows(volume: jax.Array) -> jax.Array:
    """`saturating_prefix_sum` in one kernel, each slot a sum of its own."""
    inclusive = jax.lax.reduce_window(volume.astype(jnp.uint32), np.uint32(0), _saturating_add, volume.shape, (1,),
                                      [(volume.shape[0] - 1, 0)]).astype(jnp.int32)
    return jnp.concatenate([jnp.zeros_like(inclusive[:1]), inclusive[:-1]])


def _saturating_add(a: jax.Array, b: jax.Array) -> jax.Array:
    return jax.lax.min(a + b, jax.lax.full_like(a, MAX_VOLUME))


def pack(kernels: Kernels, keep: Array, row: Row, width: int) -> Row:
    """The slots [..., C] that are kept, moved together: the first `width` of them, then empty ones, [..., width]."""
    # To gather takes the square of the slots.
    by_indices = _pack_by_scatter if keep.shape[-1] > HEAD else _pack_by_gather
    way = by_indices if kernels.pack == "indices" else _pack_by_steps

    @jax.custom_batching.custom_vmap
    def packed(*given: jax.Array) -> Row:
        return way(width, *given)

    @packed.def_vmap
    def _together(size: int, batched: Sequence[bool], *given: jax.Array) -> tuple[Row, Any]:
        # As one more leading axis: a branch under `vmap` would compute both of its ways.
        whole = (x if is_batched else jnp.broadcast_to(x, (size, *x.shape))
                 for x, is_batched in zip(given, batched, strict=True))
        return packed(*whole), Row._make([True] * len(NOTHING))

    return packed(*(jnp.asarray(x) for x in (keep, *row)))


def _pack_by_steps(width: int, keep: jax.Array, *row: jax.Array) -> Row:
    """`pack` of what few cancels leave or take, without indices; else by scatter."""
    deep = keep.shape[-1]
    here = jnp.arange(deep, dtype=jnp.int32)
    last = jnp.max(jnp.where(keep, here, -1), axis=-1)
    first = last + 1 - jnp.sum(keep, axis=-1, dtype=jnp.int32)  # if there is no gap
    if width < deep:
        is_simple = jnp.all((jnp.min(jnp.where(keep, here, deep), axis=-1) == first) | (last < 0))
        simple = functools.partial(_run, width, first, last)
    else:
        gaps = jnp.max(first)
        is_simple, simple = gaps <= _FEW_GAPS, functools.partial(_close_gaps, width, gaps)
    return Row(*jax.lax.cond(is_simple, simple, functools.partial(_pack_by_scatter, width), keep, *row))


def _run(width: int, first: jax.Array, last: jax.Array, keep: jax.Array, *row: jax.Array) -> Row:
    """The slots from `first` to `last` [...], the only ones kept."""
    slot = first[..., None] + jnp.arange(width, dtype=jnp.int32)
    return Row(*(jnp.where(slot <= last[..., None], jnp.take_along_axis(x, slot, axis=-1, mode="clip"), nothing)
                 for x, nothing in zip(row, NOTHING, strict=True)))


def _close_gaps(width: int, gaps: jax.Array, keep: jax.Array, *row: jax.Array) -> Row:
    """Closes the first gap of every side by one slot, as often as the side with the most needs it."""
    here = jnp.arange(keep.shape[-1], dtype=jnp.int32)

    def close(_: jax.Array, given: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        behind = here >= jnp.min(jnp.where(given[0], keep.shape[-1], here), axis=-1, keepdims=True)
        return tuple(jnp.where(behind, jnp.concatenate([x[..., 1:], jnp.full_like(x[..., :1], nothing)], axis=-1), x)
                     for x, nothing in zip(given, (False, *NOTHING), strict=True))

    packed = jax.lax.fori_loop(jnp.zeros((), jnp.int32), gaps, close, (keep, *row))
    more = [(0, 0)] * (keep.ndim - 1) + [(0, width - keep.shape[-1])]
    return Row(*(jnp.pad(jnp.where(packed[0], x, nothing), more, constant_values=nothing)
                 for x, nothing in zip(packed[1:], NOTHING, strict=True)))


def _pack_by_scatter(width: int, keep: jax.Array, *row: jax.Array) -> Row:
    """`pack` in few operations: each kept slot is written to its place."""
    place = jnp.where(keep, prefix_count(keep) - 1, width)
    others = jnp.indices(keep.shape, dtype=jnp.int32, sparse=True)[:-1]

    def packed(x: jax.Array, nothing: int) -> jax.Array:
        return jnp.full((*keep.shape[:-1], width), nothing, x.dtype).at[(*others, place)].set(x, mode="drop")

    return Row(*(packed(x, nothing) for x, nothing in zip(row, NOTHING, strict=True)))


def _pack_by_gather(width: int, keep: jax.Array, *row: jax.Array) -> Row:
    """`pack` in few kernels: each place counts the slots up to its own, and reads it."""
    reached = prefix_count(keep)[..., None, :]
    slot = jnp.sum(reached <= jnp.arange(width, dtype=jnp.int32)[:, None], axis=-1, dtype=jnp.int32)
    return Row(*(jnp.take_along_axis(x, slot, axis=-1, mode="fill", fill_value=nothing)
                 for x, nothing in zip(row, NOTHING, strict=True)))


def prefix_count(flags: Array) -> jax.Array:
    """How many flags hold up to and with each slot, along the last axis."""
    return jnp.cumsum(flags, axis=-1, dtype=jnp.int32)
