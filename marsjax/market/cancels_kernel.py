"""Cancels by price of many books at once, as kernels of a GPU: which order goes as a whole, or shares of the oldest.

A program has one book. It reads prices and accounts of what rests, and then the orders at one price.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.records import Book, Int64, Side
from marsjax.market.slots_kernel import Refs, Sides, Sizes, count_of, pl, rows, shares_before, sides_of, triton

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


class TakenByKernel(NamedTuple):
    """What cancels took off books [B, ...], int32."""

    sent: Any
    """[B], orders that there are to take shares off, taken or not."""
    taken: Any
    """[B], those that were."""
    side: Any
    """[B], theirs; 0 where there are none."""
    volume: Any
    """[B], shares."""
    price: Any
    """[B], of all of them."""


def nearest(width: int, accounts: tuple[int, int], owners: int, book: Book, named: tuple[jax.Array, ...],
            interpret: bool = False) -> tuple[Book, TakenByKernel, tuple[jax.Array, ...], jax.Array | None]:
    """Takes off what `cancels.nearest` says.

    Args:
      width: orders listed.
      accounts: first and last account whose orders may be taken back.
      owners: accounts that the exchange keeps.
      book: [B, ...], changed in place where nothing else reads it.
      named: price, volume, upper_wins, whether it is asked for at all, and whether it is done; [B] each.
      interpret: whether JAX's own operations stand in for the GPU's, as in tests.

    Returns:
      The books after; what was taken; shares (0 past the last), ids and accounts of the first orders, [B, width]; and
      the shares of each account, [B, owners + 1, 2] (high and low word), only where more were taken than are listed.
    """
    batch, _, capacity = book.price.shape
    sizes, fields = Sizes(capacity, interpret), rows(book)
    words = jnp.stack([jnp.asarray(x).astype(jnp.int32) for x in named], -1)
    each: list[tuple[int, ...]] = [(len(TakenByKernel._fields),), *[(width + 1,)] * 3]
    if width < capacity:
        each.append((owners + 1, 2))
    found = sizes.call(
        functools.partial(_take, width, accounts, owners, sizes), "take_nearest", grid=(batch,),
        in_specs=[pl.BlockSpec((None, len(named)), lambda b: (b, 0)), *[sizes.spec()] * 4],
        out_specs=[sizes.spec()] * 4 + [pl.BlockSpec((None, *x), _own(len(x))) for x in each],
        out_shape=[jax.ShapeDtypeStruct(x.shape, jnp.int32) for x in fields] + [
            jax.ShapeDtypeStruct((batch, *x), jnp.int32) for x in each],
        input_output_aliases={i + 1: i for i in range(4)})(words, *fields)
    taken = TakenByKernel(*(found[4][:, i] for i in range(len(TakenByKernel._fields))))
    price, volume, order_id, account = found[:4]
    return (Book(price, volume, order_id, account, book.last_price), taken, tuple(x[:, :width] for x in found[5:8]),
            found[8] if len(found) > 8 else None)


def _own(axes: int) -> Callable[[Any], tuple[Any, ...]]:
    """Of a program the entry of its book."""
    return lambda b: (b, *[0] * axes)


def _take(width: int, accounts: tuple[int, int], owners: int, sizes: Sizes, words: Any, *refs: Any) -> None:
    """One book."""
    sides, (facts, *lists) = sides_of(refs[4:8], sizes), refs[8:]
    price, volume, upper_wins, asked, goes = (words[i] for i in range(5))
    zero, here = jnp.zeros_like(price), jnp.arange(pl.next_power_of_2(width), dtype=jnp.int32)
    for i in range(len(TakenByKernel._fields)):
        facts[i] = zero
    triton.store(lists[0].at[pl.ds(0, len(here))], jnp.zeros_like(here), mask=here < width)
    sides.barrier()

    @pl.when((asked != 0) & (volume > 0))
    def _() -> None:
        counts = sides.resting(zero), sides.resting(zero + 1)
        target, exists = _nearest(sides, counts, accounts, price, upper_wins != 0)
        # Where a call auction collects, orders of both sides may stand at one price; then nothing is taken.
        sent, left = [], volume
        for number, count in enumerate(counts):
            at = _At(sides, zero + number, jnp.where(exists, count, 0), accounts, target)
            orders, left = at.look(left)
            sent.append(orders)
        side = (sent[Side.ASK] == 0).astype(jnp.int32)
        at = _At(sides, side, jnp.where(side == Side.BID, counts[Side.BID], counts[Side.ASK]), accounts, target)
        facts[0] = sent[0] + sent[1]

        @pl.when((goes != 0) & (sent[0] + sent[1] > 0))
        def _() -> None:
            taken = sent[0] + sent[1]
            for i, fact in enumerate((taken, side, volume - left, target)):
                facts[1 + i] = fact
            if len(lists) > 3:
                pl.when(taken > width)(lambda: at.by_account(volume, owners, lists[3]))
            at.take(volume, width, lists[:3])


class _At(NamedTuple):
    """The own orders of a side at one price."""

    sides: Sides
    side: jax.Array
    resting: jax.Array
    """Orders of the side."""
    accounts: tuple[int, int]
    target: jax.Array
    """The price."""

    def begin(self) -> jax.Array:
        """The first slot of the block in which they begin."""
        first = self.sides.leading(self.sides.fields.price, self.side, lambda price, slot: (slot < self.resting) & (
            jnp.where(self.side == Side.BID, price > self.target, price < self.target)))
        shift = self.sides.sizes.block.bit_length() - 1
        return (first >> shift) << shift

    def block(self, start: jax.Array, left: jax.Array) -> tuple[jax.Array, ...]:
        """Slots of a block, what is taken of each if `left` are to be, accounts, and whether the price goes on."""
        size, fields = self.sides.sizes.block, self.sides.fields
        slot = start + jnp.arange(size, dtype=jnp.int32)
        price, volume, owner = (triton.load(ref.at[self.side, pl.ds(start, size)], mask=slot < self.resting, other=0)
                                for ref in (fields.price, fields.volume, fields.account))
        own = (slot < self.resting) & (owner >= self.accounts[0]) & (owner <= self.accounts[1]) & (price == self.target)
        shares = jnp.where(own, volume, 0)
        take = jnp.minimum(left - jnp.minimum(shares_before(shares), left), shares)
        later = start + size
        more = (later < self.resting) & (
            fields.price[self.side, jnp.minimum(later, self.sides.sizes.capacity - 1)] == self.target)
        return slot, take, owner, more

    def look(self, volume: jax.Array) -> tuple[jax.Array, jax.Array]:
        """How many orders so many shares are taken of, and how many shares are left to be taken."""
        def one(carry: Any) -> Any:
            start, orders, left, _ = carry
            _, take, _, more = self.block(start, left)
            left = left - count_of(take)
            return start + self.sides.sizes.block, orders + count_of(take > 0), left, more & (left > 0)

        begin = (self.begin(), jnp.zeros_like(volume), volume, (self.resting > 0) & (volume > 0))
        _, orders, left, _ = jax.lax.while_loop(lambda carry: carry[-1], one, begin)
        return orders, left

    def by_account(self, volume: jax.Array, owners: int, out: Any) -> None:
        """Writes the shares of each account, before anything is taken."""
        def of(account: jax.Array, _: None) -> None:
            def one(carry: Any) -> Any:
                start, left, total, _ = carry
                _, take, owner, more = self.block(start, left)
                owner = jnp.where((owner >= 0) & (owner < owners), owner, owners)
                total = int64.add(total, int64.total(jnp.where(owner == account, take, 0)))
                left = left - count_of(take)
                return start + self.sides.sizes.block, left, total, more & (left > 0)

            none = Int64(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32))
            total = jax.lax.while_loop(lambda carry: carry[-1], one, (self.begin(), volume, none, volume > 0))[2]
            out[account, 0], out[account, 1] = total.hi, total.lo.astype(jnp.int32)

        jax.lax.fori_loop(0, owners + 1, of, None)

    def take(self, volume: jax.Array, width: int, lists: Any) -> None:
        """Takes them, moves together what is left, and lists the first."""
        sizes, fields = self.sides.sizes, self.sides.fields

        def one(carry: Any) -> Any:
            start, left, orders, gone, _ = carry
            slot, take, _, more = self.block(start, left)
            row = Refs(*(triton.load(ref.at[self.side, pl.ds(start, sizes.block)], mask=slot < self.resting, other=0)
                         for ref in fields))
            is_taken, rests = (take > 0).astype(jnp.int32), (slot < self.resting) & (row.volume > take)
            number = orders + jax.lax.cumsum(is_taken, axis=0) - 1
            place = jnp.where((take > 0) & (number < width), number, width)
            for ref, x in zip(lists, (take, row.order_id, row.account), strict=True):
                triton.store(ref.at[place], x, mask=place < width)
            goes = ((slot < self.resting) & (row.volume == take)).astype(jnp.int32)
            ahead = gone + jax.lax.cumsum(goes, axis=0)
            self.sides.barrier()
            for ref, x in zip(fields, row._replace(volume=row.volume - take), strict=True):
                triton.store(ref.at[self.side, jnp.where(rests, slot - ahead, sizes.nowhere)], x, mask=rests)
            self.sides.barrier()
            left, gone = left - count_of(take), gone + count_of(goes)
            later = start + sizes.block
            return later, left, orders + count_of(is_taken), gone, (later < self.resting) & (
                (more & (left > 0)) | (gone > 0))

        zero = jnp.zeros_like(volume)
        gone = jax.lax.while_loop(lambda carry: carry[-1], one, (self.begin(), volume, zero, zero, volume > 0))[3]
        self.sides.empty(self.side, self.resting - gone, self.resting)


def _nearest(sides: Sides, counts: tuple[jax.Array, jax.Array], accounts: tuple[int, int], price: jax.Array,
             upper_wins: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The own price nearest to the one named, and whether there is any."""
    size = sides.sizes.scan
    here = jnp.arange(size, dtype=jnp.int32)
    price = jnp.maximum(price, 0)  # as `cancels` does

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
        here = count_of((distance == now) & (distance < _FAR))
        return start + block, now, jnp.where(now < least, 0, fits) + here, more

    def pick(carry: Any) -> Any:
        start, reached, at, _ = carry
        slot, distance, more = look(start)
        is_it = ((distance == least) & (distance < _FAR)).astype(jnp.int32)
        number = reached + jax.lax.cumsum(is_it, axis=0)
        at = jnp.maximum(at, jnp.max(jnp.where((is_it > 0) & (number == wanted), slot, -1), axis=0))
        return start + block, reached + count_of(is_it), at, more & (at < 0)

    start, zero = (first >> shift) << shift, jnp.zeros_like(count)
    begin = (start, zero + _FAR, zero, count > 0)
    _, least, fits, _ = jax.lax.while_loop(lambda carry: carry[-1], closest, begin)
    wanted = fits - rank_of(fits)
    at: jax.Array = jax.lax.while_loop(lambda carry: carry[-1], pick, (start, zero, zero - 1, fits > 0))[2]
    return at
