"""Which resting order a cancel by price takes back, of many books at once, as a kernel of a GPU.

A program has one book. It reads prices and accounts of what rests, and then the orders at one price.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from marsjax.core.records import Book, Side
from marsjax.market.slots_kernel import Sides, Sizes, pl, rows, sides_of, triton

_FAR = 2**31 - 1


def whole(rank_of: Callable[..., jax.Array], table: jax.Array, accounts: tuple[int, int], book: Book,
          named: tuple[jax.Array, ...], interpret: bool = False) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Shares, id and `Side` of the order that `cancels.whole` takes back, int32 [B] each; zeros where there is none.

    Args:
      rank_of: as `cancels.rank_from_newest`, of the word, the count and the table.
      table: uint32, what it looks up.
      accounts: first and last account whose orders may be taken back.
      book: [B, ...], uncrossed.
      named: price, volume, upper_wins, word, and whether it is asked for at all; [B] each.
      interpret: whether JAX's own operations stand in for the GPU's, as in tests.
    """
    batch, _, capacity = book.price.shape
    sizes = Sizes(capacity, interpret)
    words = jnp.stack([jnp.asarray(x).astype(jnp.int32) for x in named], -1)
    found = sizes.call(
        functools.partial(_program, rank_of, accounts, sizes), "find_whole", grid=(batch,),
        in_specs=[pl.BlockSpec((None, len(named)), lambda b: (b, 0)), pl.BlockSpec(table.shape, lambda b: (0,)),
                  *[sizes.spec()] * 4],
        out_specs=pl.BlockSpec((None, 3), lambda b: (b, 0)),
        out_shape=jax.ShapeDtypeStruct((batch, 3), jnp.int32))(words, table, *rows(book))
    return found[:, 0], found[:, 1], found[:, 2]


def _program(rank_of: Callable[..., jax.Array], accounts: tuple[int, int], sizes: Sizes, words: Any, table: Any,
             *refs: Any) -> None:
    """One book."""
    sides, out = sides_of(refs[:4], sizes), refs[4]
    price, volume, upper_wins, word, asked = (words[i] for i in range(5))
    for i in range(3):
        out[i] = jnp.zeros((), jnp.int32)

    @pl.when((asked != 0) & (volume > 0))
    def _() -> None:
        counts = sides.resting(jnp.zeros_like(price)), sides.resting(jnp.ones_like(price))
        target, exists = _nearest(sides, counts, accounts, price, upper_wins != 0)
        # Where bids and asks do not cross, what is not above the best bid is a bid.
        is_bid = (counts[Side.BID] > 0) & (target <= sides.fields.price[1, 0])
        side = is_bid.astype(jnp.int32)
        count = jnp.where(exists, jnp.where(is_bid, counts[Side.BID], counts[Side.ASK]), 0)
        slot = _chosen(sides, side, count, accounts, target, volume, lambda fits: rank_of(
            word.astype(jnp.uint32), fits, table))

        @pl.when(slot >= 0)
        def _() -> None:
            out[0], out[1], out[2] = sides.fields.volume[side, slot], sides.fields.order_id[side, slot], side


def _nearest(sides: Sides, counts: tuple[jax.Array, jax.Array], accounts: tuple[int, int], price: jax.Array,
             upper_wins: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The own price nearest to the one named, and whether there is any."""
    size = sides.sizes.scan
    here = jnp.arange(size, dtype=jnp.int32)

    def of_side(side: int, least: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        def one(i: jax.Array, least: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            is_there = i * size + here < counts[side]
            prices, owner = (triton.load(ref.at[jnp.zeros_like(i) + side, pl.ds(i * size, size)], mask=is_there,
                                         other=0) for ref in (sides.fields.price, sides.fields.account))
            own = is_there & (owner >= accounts[0]) & (owner <= accounts[1])
            distance = jnp.abs(prices - price)
            lower, upper = (jnp.minimum(x, jnp.where(own & is_it, distance, _FAR)) for x, is_it in zip(
                least, (prices <= price, prices > price), strict=True))
            return lower, upper

        return jax.lax.fori_loop(0, (counts[side] + (size - 1)) >> (size.bit_length() - 1), one, least)

    none = jnp.full(size, _FAR, jnp.int32)
    lower, upper = (jnp.min(x, axis=0) for x in of_side(1, of_side(0, (none, none))))
    takes_upper = (upper < lower) | ((upper == lower) & upper_wins)
    return jnp.where(takes_upper, price + upper, price - lower), jnp.minimum(lower, upper) < _FAR


def _chosen(sides: Sides, side: jax.Array, count: jax.Array, accounts: tuple[int, int], target: jax.Array,
            volume: jax.Array, rank_of: Callable[[jax.Array], jax.Array]) -> jax.Array:
    """The slot of the own order at a price of which nearly `volume` shares are left, -1 where there is none."""
    block = sides.sizes.block
    first = sides.leading(sides.fields.price, side, lambda price, slot: (slot < count) & jnp.where(
        side == Side.BID, price > target, price < target))
    shift = block.bit_length() - 1

    def look(start: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Slots of a block, how far their volumes are off, and whether there is another block at this price."""
        slot = start + jnp.arange(block, dtype=jnp.int32)
        price, left, owner = (triton.load(ref.at[side, pl.ds(start, block)], mask=slot < count, other=0) for ref in (
            sides.fields.price, sides.fields.volume, sides.fields.account))
        own = (slot < count) & (owner >= accounts[0]) & (owner <= accounts[1]) & (price == target)
        later = jnp.minimum(start + block, sides.sizes.capacity - 1)
        more = (start + block < count) & (sides.fields.price[side, later] == target)
        return slot, jnp.where(own, jnp.abs(left - volume), _FAR), more

    def closest(carry: Any) -> Any:
        start, least, fits, _ = carry
        _, distance, more = look(start)
        now = jnp.minimum(least, jnp.min(distance, axis=0))
        here = jnp.sum(((distance == now) & (distance < _FAR)).astype(jnp.int32), axis=0)
        return start + block, now, jnp.where(now < least, 0, fits) + here, more

    def pick(carry: Any) -> Any:
        start, reached, at, _ = carry
        slot, distance, more = look(start)
        is_it = ((distance == least) & (distance < _FAR)).astype(jnp.int32)
        number = reached + jax.lax.cumsum(is_it, axis=0)
        at = jnp.maximum(at, jnp.max(jnp.where((is_it > 0) & (number == wanted), slot, -1), axis=0))
        return start + block, reached + jnp.sum(is_it, axis=0), at, more & (at < 0)

    start, zero = (first >> shift) << shift, jnp.zeros_like(count)
    begin = (start, zero + _FAR, zero, count > 0)
    _, least, fits, _ = jax.lax.while_loop(lambda carry: carry[-1], closest, begin)
    wanted = fits - rank_of(fits)
    at: jax.Array = jax.lax.while_loop(lambda carry: carry[-1], pick, (start, zero, zero - 1, fits > 0))[2]
    return at
