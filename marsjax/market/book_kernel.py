"""Orders to many books at once, and views of them, as kernels of a GPU that change books in place.

A program has one book and takes its orders one after the other. It reads the best slots of a side, those around the
slot that an order goes to, and the ids of orders that rest; it writes the slots that change. Results are those of
`market.book`, to the bit, of books whose ids differ and whose empty slots come last.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.records import Book, Int64, Kind, Order, Side, Status
from marsjax.core.specs import MarketSpec
from marsjax.market.matching import Named
from marsjax.market.slots import Row
from marsjax.market.slots_kernel import (
    BLOCK,
    LOW16,
    MOST_SLOTS,
    Refs,
    Sides,
    Sizes,
    count_of,
    pl,
    rows,
    shares_before,
    sides_of,
    triton,
)

_MOST_ACCOUNTS = 64
_ORDER = ("kind", "price", "volume", "order_id", "cancel_side", "cancel_id", "account", "condition")


class Facts(NamedTuple):
    """What an order did, int32 [...].

    Zeros where it was refused, but for the status, what the book holds, and the order that a cancel of too many shares
    names.
    """

    status: Any
    whole: Any
    """Resting orders filled whole: a prefix of the side."""
    partial: Any
    """Shares of the next one, if it is filled in part."""
    filled: Any
    """Shares in all."""
    fills: Any
    """Resting orders hit."""
    value_hi: Any
    """Sum of price x shares."""
    value_lo: Any
    rest: Any
    """Shares that came to rest."""
    slot: Any
    """Of the order that a cancel names, as are its price and account."""
    price: Any
    account: Any
    last_price: Any
    """Of the book after."""
    asks: Any
    """Orders that rest after, a side."""
    bids: Any
    best_ask: Any
    """After."""
    best_bid: Any


class DoneByKernel(NamedTuple):
    """What orders [B, T] did."""

    book: Book
    facts: Facts
    """[B, T]."""
    listed: Row
    """[B, T, K], the first fills; volume is the shares filled, and 0 past the last, where the others mean nothing."""
    by_account: jax.Array | None
    """int32 [B, T, N + 1, 4]: shares, high and low word, and price x shares, of resting orders hit, by account; only
    where the list is truncated. None if it cannot be."""


StatusOf = Callable[..., jax.Array]
"""`book._status`, but for its spec."""


class _Fills(NamedTuple):
    whole: Any
    partial: Any
    filled: Any
    fills: Any
    value: Int64


def fits(spec: MarketSpec) -> bool:
    """Whether the kernels take markets of these sizes."""
    return (not spec.conditions and spec.capacity <= MOST_SLOTS and spec.trade_width <= BLOCK
            and spec.accounts <= _MOST_ACCOUNTS)


def submit(spec: MarketSpec, status_of: StatusOf, book: Book, order: Order, matching: jax.Array, *,
           interpret: bool = False) -> DoneByKernel:
    """Orders [B, T] to books [B, ...], one after the other; `matching` is bool [B, T].

    `status_of` is the rule of refusal, of scalars. The books are changed in place where nothing else reads them.
    """
    batch, count = order.kind.shape
    sizes, width = Sizes(spec.capacity, interpret), spec.trade_width
    padded = pl.next_power_of_2(width)
    given = jnp.stack([*(getattr(order, name).astype(jnp.int32) for name in _ORDER), matching.astype(jnp.int32)], -1)

    def of_orders(*shape: int) -> Any:
        return pl.BlockSpec((None, count, *shape), lambda b: (b, *[0] * (1 + len(shape))))

    def shape(*sizes: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(sizes, jnp.int32)

    fields, last = [*rows(book), book.last_price], pl.BlockSpec((None,), lambda b: (b,))
    by_account = spec.accounts + 1 if width < spec.capacity else 0
    out_specs = [sizes.spec()] * 4 + [last, of_orders(len(Facts._fields))] + [of_orders(padded)] * 4
    out_shape = [shape(*x.shape) for x in fields] + [shape(batch, count, len(Facts._fields))] + [
        shape(batch, count, width)] * 4
    if by_account:
        out_specs.append(of_orders(by_account, 4))
        out_shape.append(shape(batch, count, by_account, 4))
    found = sizes.call(
        _Program(spec, status_of, sizes, count), "submit", grid=(batch,), out_shape=out_shape, out_specs=out_specs,
        in_specs=[of_orders(given.shape[-1]), *[sizes.spec()] * 4, last],
        input_output_aliases={i + 1: i for i in range(5)})(given, *fields)
    facts = Facts(*(found[5][..., i] for i in range(len(Facts._fields))))
    return DoneByKernel(Book(*found[:5]), facts, Row(*found[6:10]), found[10] if by_account else None)


@dataclasses.dataclass(frozen=True)
class _Program:
    """The orders of one book."""

    spec: MarketSpec
    status_of: StatusOf
    sizes: Sizes
    count: int
    """Orders."""

    def __call__(self, orders: Any, *refs: Any) -> None:
        # What is read of the book is read where it is written.
        book, (last_price, facts_ref, *others) = refs[5:9], refs[9:]
        sides, listed, by_account = sides_of(book, self.sizes), Refs(*others[:4]), others[4:]

        def one(t: jax.Array | int, last: jax.Array) -> jax.Array:
            *words, matching = (orders[t, i] for i in range(len(_ORDER) + 1))
            no_time: Any = None
            order: Any = Order(no_time, **dict(zip(_ORDER, words, strict=True)))
            facts = self._one(sides, order, matching != 0, last, (t, listed, by_account))
            for i, fact in enumerate(facts):
                facts_ref[t, i] = fact
            return facts.last_price

        last = last_price[...]
        is_one, first = self.count == 1, jnp.zeros((), jnp.int32)
        last_price[...] = one(first, last) if is_one else jax.lax.fori_loop(0, self.count, one, last)

    def _one(self, sides: Sides, order: Any, matching: jax.Array, last: jax.Array, out: Any) -> Facts:
        """One order."""
        is_cancel = order.kind == Kind.CANCEL
        is_limit = (order.kind == Kind.SELL) | (order.kind == Kind.BUY)
        own_is_bid = jnp.where(is_cancel, order.cancel_side, order.kind) == Side.BID
        own = own_is_bid.astype(jnp.int32)
        counts = sides.resting(own), sides.resting(1 - own)
        at = sides.find(own, jnp.where(is_cancel, order.cancel_id, order.order_id),
                        jnp.where(is_cancel | is_limit, counts[0], 0))
        elsewhere = sides.find(1 - own, order.order_id, jnp.where(is_limit, counts[1], 0))
        named = _named(sides, own, jnp.where(is_cancel, at, -1))
        wanted = jnp.where(is_limit, jnp.maximum(order.volume, 0), 0)
        match = _match(sides, 1 - own, own_is_bid, order.price, jnp.where(matching, wanted, 0), counts[1])
        rest = wanted - match.filled
        status = self.status_of(order, named, ~matching, match.filled,
                                is_duplicate=is_limit & ((at >= 0) | (elsewhere >= 0)),
                                is_full=(counts[0] == self.spec.capacity) & (rest > 0))
        traded, cancelled = (status == Status.ACCEPTED) & is_limit, (status == Status.ACCEPTED) & is_cancel
        match = jax.tree.map(lambda x: jnp.where(traded, x, jnp.zeros_like(x)), match)
        rest = jnp.where(traded, rest, 0)
        price = sides.fields.price[1 - own, jnp.maximum(match.fills - 1, 0)]
        self._list(sides, 1 - own, match, out)
        sides.barrier()
        counts = self._change(sides, own, order, (counts[0], counts[1], match, rest, named, cancelled))
        sides.barrier()
        asks, bids = (jnp.where(own_is_bid, a, b) for a, b in (counts[::-1], counts))
        return Facts(
            status, match.whole, match.partial, match.filled, match.fills, match.value.hi,
            match.value.lo.astype(jnp.int32), rest, named.slot, named.price, named.account,
            jnp.where(match.fills > 0, price, last), asks, bids,
            sides.fields.price[Side.ASK.value, 0], sides.fields.price[Side.BID.value, 0])

    def _list(self, sides: Sides, opposite: jax.Array, match: _Fills, out: Any) -> None:
        """Writes the first fills, and what each account lost where these are not all."""
        t, listed, by_account = out
        width = self.spec.trade_width
        here = pl.ds(0, pl.next_power_of_2(width))
        slot = jnp.arange(pl.next_power_of_2(width), dtype=jnp.int32)
        is_listed = (slot < match.fills) & (slot < width)

        def read(ref: Any) -> jax.Array:
            return triton.load(ref.at[opposite, here], mask=is_listed, other=0)

        volume = _filled(match, slot, read(sides.fields.volume))
        triton.store(listed.volume.at[t, here], volume, mask=slot < width)
        for ref, field in ((listed.price, sides.fields.price), (listed.order_id, sides.fields.order_id),
                           (listed.account, sides.fields.account)):
            triton.store(ref.at[t, here], read(field), mask=is_listed)
        if by_account:
            @pl.when(match.fills > width)
            def _() -> None:
                jax.lax.fori_loop(0, self.spec.accounts + 1, lambda account, _: self._lost(
                    sides, opposite, match, account, (t, by_account[0])), None)

    def _lost(self, sides: Sides, opposite: jax.Array, match: _Fills, account: jax.Array, out: Any) -> None:
        """Writes what an account's resting orders lose."""
        block, accounts, fields = self.sizes.block, self.spec.accounts, sides.fields
        t, ref = out

        def one(i: jax.Array, sums: tuple[Int64, Int64]) -> tuple[Int64, Int64]:
            at, slot = pl.ds(i * block, block), i * block + jnp.arange(block, dtype=jnp.int32)
            price, volume, owner = (triton.load(ref.at[opposite, at], mask=slot < match.fills, other=0)
                                    for ref in (fields.price, fields.volume, fields.account))
            owner = jnp.where((owner >= 0) & (owner < accounts), owner, accounts)
            mine = jnp.where(owner == account, _filled(match, slot, volume), 0)
            return int64.add(sums[0], int64.total(mine)), int64.add(sums[1], int64.total_product(price, mine))

        none = _zero()
        shares, value = jax.lax.fori_loop(0, (match.fills + (block - 1)) >> (block.bit_length() - 1), one,
                                          (none, none))
        for i, word in enumerate((shares.hi, shares.lo, value.hi, value.lo)):
            ref[t, account, i] = word.astype(jnp.int32)

    def _change(self, sides: Sides, own: jax.Array, order: Any, did: Any) -> tuple[jax.Array, jax.Array]:
        """Changes both sides, and returns how many orders rest on the own and on the opposite one."""
        count, opposite_count, match, rest, named, cancelled = did
        volume = sides.fields.volume
        removes = cancelled & (order.volume == named.volume)

        @pl.when(match.whole > 0)
        def _() -> None:
            sides.close(1 - own, jnp.zeros_like(match.whole), match.whole, match.partial)

        @pl.when((match.whole == 0) & (match.partial > 0))
        def _() -> None:
            volume[1 - own, 0] = volume[1 - own, 0] - match.partial

        @pl.when(rest > 0)
        def _() -> None:
            # Behind all that are as good: of equal prices those that came first stand first.
            is_bid = own == Side.BID
            ahead = sides.leading(sides.fields.price, own, lambda price, slot: (slot < count) & jnp.where(
                is_bid, price >= order.price, price <= order.price))
            sides.insert(own, ahead, Row(order.price, rest, order.order_id, order.account), count)

        @pl.when(removes)
        def _() -> None:
            sides.close(own, named.slot, 1)

        @pl.when(cancelled & ~removes)
        def _() -> None:
            volume[own, named.slot] = named.volume - order.volume

        rests = (rest > 0).astype(jnp.int32) - removes.astype(jnp.int32)
        return count + rests, opposite_count - match.whole


def _named(sides: Sides, side: jax.Array, at: jax.Array) -> Named:
    row = sides.at(side, jnp.maximum(at, 0))
    price, volume, account, slot = (jnp.where(at >= 0, x, 0) for x in (row.price, row.volume, row.account, at))
    return Named(at >= 0, slot, price, volume, account)


def _match(sides: Sides, side: jax.Array, is_buy: jax.Array, limit: jax.Array, wanted: jax.Array, count: jax.Array
           ) -> _Fills:
    """How `wanted` shares up to a price fill the first orders of a side, block by block until they are used up."""
    block, capacity = sides.sizes.block, sides.sizes.capacity
    price_ref, volume_ref = sides.fields.price, sides.fields.volume

    def crosses(price: jax.Array) -> jax.Array:
        return jnp.where(is_buy, price <= limit, price >= limit)

    def one(carry: tuple[jax.Array, _Fills, jax.Array]) -> tuple[jax.Array, _Fills, jax.Array]:
        start, before, _ = carry
        at, slot = pl.ds(start, block), start + jnp.arange(block, dtype=jnp.int32)
        price, volume = (triton.load(ref.at[side, at], mask=slot < count, other=0) for ref in (price_ref, volume_ref))
        reach = jnp.where(crosses(price) & (slot < count), volume, 0)
        left = wanted - before.filled
        left = left - jnp.minimum(shares_before(reach), left)
        fill = jnp.minimum(left, reach)
        is_whole = (reach > 0) & (reach <= left)
        whole = before.whole + count_of(is_whole)
        match = _Fills(whole, before.partial + count_of(jnp.where(is_whole, 0, fill)), before.filled + count_of(fill),
                       before.fills + count_of(fill > 0), int64.add(before.value, int64.total_product(price, fill)))
        later = start + block
        return later, match, (whole == later) & (match.filled < wanted) & (later < capacity)

    zero = jnp.zeros_like(wanted)
    begins = (wanted > 0) & (count > 0) & crosses(price_ref[side, 0])
    return jax.lax.while_loop(lambda carry: carry[2], one, (
        zero, _Fills(zero, zero, zero, zero, _zero()), begins))[1]


def _filled(match: _Fills, slot: jax.Array, volume: jax.Array) -> jax.Array:
    """Shares of each slot that are filled."""
    return jnp.where(slot < match.whole, volume, jnp.where(slot == match.whole, match.partial, 0))


def _zero() -> Int64:
    return Int64(jnp.zeros((), jnp.int32), jnp.zeros((), jnp.uint32))


def levels(count: int, book: Book, interpret: bool = False) -> tuple[jax.Array, Int64]:
    """Prices [B, 2, L] and volumes of the best `count` levels of books [B, ...]."""
    batch, _, capacity = book.price.shape
    sizes, width = Sizes(capacity, interpret), count + 1
    shape = jax.ShapeDtypeStruct((batch, 2, width), jnp.int32)
    each = pl.BlockSpec((None, None, width), lambda b, side: (b, side, 0))
    price, low, high, found = sizes.call(
        lambda *refs: _levels(count, sizes, refs[:2], refs[2:5], refs[5]), "levels", grid=(batch, 2),
        in_specs=[sizes.spec()] * 2, out_specs=[each] * 3 + [pl.BlockSpec((None, None), lambda b, side: (b, side))],
        out_shape=[shape] * 3 + [jax.ShapeDtypeStruct((batch, 2), jnp.int32)])(book.price, book.volume)
    exists = jnp.arange(count, dtype=jnp.int32) < found[..., None]
    price, low, high = (jnp.where(exists, x[..., :count], 0) for x in (price, low, high))
    # What was written is the sums up to each level and with it.
    low, high = (x - jnp.pad(x, ((0, 0), (0, 0), (1, 0)))[..., :-1] for x in (low, high))
    volume = int64.add(Int64(high >> 16, high.astype(jnp.uint32) << 16), int64.of_int32(low))
    return price, jax.tree.map(lambda x: jnp.where(exists, x, jnp.zeros_like(x)), volume)


def _levels(count: int, sizes: Sizes, given: Any, out: Any, found: Any) -> None:
    """One side of one book."""
    price_ref, volume_ref = given
    side, block, capacity = pl.program_id(1), sizes.block, sizes.capacity

    def one(carry: Any) -> Any:
        start, level, low, high, _ = carry
        at, slot = pl.ds(start, block), start + jnp.arange(block, dtype=jnp.int32)
        here = slot < capacity
        price, volume = (triton.load(ref.at[side, at], mask=here, other=0) for ref in (price_ref, volume_ref))
        follows = triton.load(price_ref.at[side, jnp.minimum(slot + 1, capacity - 1)], mask=here, other=0)
        ends = (volume > 0) & ((price != follows) | (slot == capacity - 1))
        number = level + jax.lax.cumsum(ends.astype(jnp.int32), axis=0) - 1
        lows = low + jax.lax.cumsum(volume & LOW16, axis=0)
        highs = high + jax.lax.cumsum(volume >> 16, axis=0)
        is_kept = ends & (number < count)
        place = jnp.where(is_kept, number, count)
        for ref, x in zip(out, (price, lows, highs), strict=True):
            triton.store(ref.at[place], x, mask=is_kept)
        level, low, high = level + count_of(ends), low + count_of(volume & LOW16), high + count_of(volume >> 16)
        later = start + block
        more = (level < count) & (later < capacity) & (volume_ref[side, jnp.minimum(later, capacity - 1)] > 0)
        return later, level, low, high, more

    zero = jnp.zeros((), jnp.int32)
    last = jax.lax.while_loop(lambda carry: carry[-1], one, (zero, zero, zero, zero, zero == 0))
    found[...] = jnp.minimum(last[1], count)
