"""The sides of a book inside a kernel for a GPU: looked at block by block, and changed where they lie.

Written in Pallas, in its form for Triton. A program has one book. Orders fill a side from its first slot on, sorted by
priority, so the first slots of the blocks say in which block something ends: only that block is read.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp

from marsjax.core.records import MAX_VOLUME, Book
from marsjax.market.slots import NOTHING, Row

try:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton
except ImportError:  # a JAX without them: `core.kernels.for_platform` does not choose this way there
    pl = triton = None  # type: ignore[assignment]

BLOCK = 128
"""Slots that are looked at in one go, four to a thread."""
_SCAN = 512
"""The same where a whole side is searched."""
MOST_SLOTS = 2**14
"""Of a side, so that the first slots of its blocks are one block."""
LOW16 = 0xFFFF
_Result = TypeVar("_Result")


class Refs(NamedTuple):
    """As `Row`, of a book [2, C] in a kernel, or of a list."""

    price: Any
    volume: Any
    order_id: Any
    account: Any


@dataclasses.dataclass(frozen=True)
class Sizes:
    """How the sides of a book are cut."""

    capacity: int
    interpret: bool = False
    """Whether JAX's own operations stand in for the GPU's, as in tests."""

    @property
    def block(self) -> int:
        """Slots that are looked at in one go."""
        return min(BLOCK, pl.next_power_of_2(self.capacity))

    @property
    def scan(self) -> int:
        """The same where a whole side is searched."""
        return min(_SCAN, pl.next_power_of_2(self.capacity))

    @property
    def nowhere(self) -> int:
        """A slot behind all others: where interpreted stores put what they are not to store."""
        return -(-self.capacity // self.scan) * self.scan

    def spec(self) -> Any:
        """The `BlockSpec` of a field [B, 2, C]: of each program its own book, filled up to whole blocks."""
        return pl.BlockSpec((None, 2, self.nowhere + 1), lambda b, *_: (b, 0, 0))

    def call(self, program: Callable[..., None], name: str, warps: int = 1, **given: Any) -> Any:
        """A kernel of one program for a book."""
        return pl.pallas_call(lambda *refs: program(*refs), interpret=self.interpret, name=name,
                              compiler_params=triton.CompilerParams(num_warps=warps, num_stages=1), **given)


@dataclasses.dataclass(frozen=True)
class Sides:
    """One book: refs [2, C] of its fields."""

    fields: Refs
    sizes: Sizes

    def barrier(self) -> None:
        """What was written before it is seen by all threads after it.

        Interpreted kernels have no threads, so no test of theirs sees that one is missing. On a GPU,
        `python experiments/throughput/exchange.py --what=same` compares the results with those of plain operations.
        """
        if not self.sizes.interpret:
            triton.debug_barrier()

    def resting(self, side: jax.Array | int) -> jax.Array:
        """Orders of a side, int32 []."""
        return self.leading(self.fields.volume, side, lambda volume, slot: volume > 0)

    def leading(self, ref: Any, side: jax.Array | int, holds: Callable[[jax.Array, jax.Array], jax.Array]
                ) -> jax.Array:
        """How many slots of a side, from the first on, a condition on (value, slot) holds for; then for no more."""
        capacity, block = self.sizes.capacity, self.sizes.block
        blocks, begin = -(-capacity // block), jnp.zeros((), jnp.int32)
        if blocks > 1:
            slot = jnp.arange(pl.next_power_of_2(blocks), dtype=jnp.int32) * block
            first = triton.load(ref.at[side, jnp.minimum(slot, capacity - 1)], mask=slot < capacity, other=0)
            begin = jnp.maximum(count_of(holds(first, slot) & (slot < capacity)) - 1, 0) * block
        slot = begin + jnp.arange(block, dtype=jnp.int32)
        value = triton.load(ref.at[side, pl.ds(begin, block)], mask=slot < capacity, other=0)
        return begin + count_of(holds(value, slot) & (slot < capacity))

    def find(self, side: jax.Array, order_id: jax.Array, count: jax.Array) -> jax.Array:
        """The slot of an id among the first `count` of a side, -1 if it is not there."""
        size = self.sizes.scan
        here = jnp.arange(size, dtype=jnp.int32)

        def one(i: jax.Array, at: jax.Array) -> jax.Array:
            slot = i * size + here
            ids = triton.load(self.fields.order_id.at[side, pl.ds(i * size, size)], mask=slot < count, other=0)
            return jnp.where((ids == order_id) & (slot < count), slot, at)

        # An id rests at most once.
        blocks = (count + (size - 1)) >> (size.bit_length() - 1)
        return jnp.max(jax.lax.fori_loop(0, blocks, one, jnp.full(size, -1, jnp.int32)), axis=0)

    def at(self, side: jax.Array | int, slot: jax.Array | int) -> Row:
        """One slot, scalars."""
        return Row(*(ref[side, slot] for ref in self.fields))

    def close(self, side: jax.Array, first: jax.Array, gap: jax.Array | int, taken: jax.Array | int = 0) -> None:
        """From slot `first` on each slot takes what stood `gap` >= 1 after it; slot 0 then loses `taken` shares."""
        capacity, block = self.sizes.capacity, self.sizes.block
        shift = block.bit_length() - 1

        def one(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            start, _ = carry
            slot = start + jnp.arange(block, dtype=jnp.int32)
            source = slot + gap
            values = [triton.load(ref.at[side, jnp.minimum(source, capacity - 1)], mask=source < capacity,
                                  other=nothing) for ref, nothing in zip(self.fields, NOTHING, strict=True)]
            values[1] = values[1] - jnp.where(slot == 0, taken, 0)
            later = start + block
            # Blocks after this one are as they were.
            more = (later < capacity) & (self.fields.volume[side, jnp.minimum(later, capacity - 1)] > 0)
            self._write(side, start, values, (slot >= first) & (slot < capacity))
            return later, more

        start = (first >> shift) << shift
        jax.lax.while_loop(lambda carry: carry[1], one, (start, start < capacity))

    def insert(self, side: jax.Array, at: jax.Array, new: Row, count: jax.Array) -> None:
        """An order at a slot of a side with `count` orders, at most C - 1; those from there on move one slot on."""
        capacity, block = self.sizes.capacity, self.sizes.block
        shift = block.bit_length() - 1
        last = count >> shift

        def one(i: jax.Array, _: None) -> None:
            # The last block first: what a block takes from the one before it is as it was.
            start = (last - i) << shift
            slot = start + jnp.arange(block, dtype=jnp.int32)
            source, moves = slot - 1, (slot > at) & (slot <= count)
            values = [triton.load(ref.at[side, jnp.clip(source, 0, capacity - 1)], mask=moves, other=nothing)
                      for ref, nothing in zip(self.fields, NOTHING, strict=True)]
            values = [jnp.where(slot == at, x, value) for x, value in zip(new, values, strict=True)]
            self._write(side, start, values, moves | (slot == at))

        jax.lax.fori_loop(0, last - (at >> shift) + 1, one, None)

    def empty(self, side: jax.Array, first: jax.Array, end: jax.Array) -> None:
        """Empties the slots from `first` to before `end`."""
        block = self.sizes.block
        shift = block.bit_length() - 1

        def one(i: jax.Array, _: None) -> None:
            start = i << shift
            slot = start + jnp.arange(block, dtype=jnp.int32)
            for ref, nothing in zip(self.fields, NOTHING, strict=True):
                triton.store(ref.at[side, pl.ds(start, block)], jnp.full(block, nothing, jnp.int32),
                             mask=(slot >= first) & (slot < end))

        jax.lax.fori_loop(first >> shift, (end + (block - 1)) >> shift, one, None)

    def _write(self, side: jax.Array, start: jax.Array, values: Sequence[jax.Array], mask: jax.Array) -> None:
        """One block of all fields; all of it has been read by then."""
        self.barrier()
        for ref, value in zip(self.fields, values, strict=True):
            triton.store(ref.at[side, pl.ds(start, self.sizes.block)], value, mask=mask)
        self.barrier()


def sides_of(refs: Sequence[Any], sizes: Sizes) -> Sides:
    """The sides of a book whose fields these are."""
    return Sides(Refs(*refs), sizes)


def rows(book: Book) -> Row:
    """The fields of a book."""
    return Row(book.price, book.volume, book.order_id, book.account)


def by_batch(alone: Callable[..., _Result], together: Callable[..., Any]) -> Callable[..., _Result]:
    """A function of one book that is `alone`, and under `vmap` `together`, of arguments [B, ...] all of them."""
    def widened(size: int, is_batched: Any, given: Any) -> Any:
        return jax.tree.map(lambda batched, x: x if batched else jnp.broadcast_to(x, (size, *jnp.shape(x))),
                            tuple(is_batched), given)

    @jax.custom_batching.custom_vmap
    def many(*given: Any) -> Any:
        return together(*given)

    @many.def_vmap
    def _of_batches(size: int, is_batched: Any, *given: Any) -> tuple[Any, Any]:
        merged = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), widened(size, is_batched, given))
        found = jax.tree.map(lambda x: x.reshape(size, -1, *x.shape[1:]), many(*merged))
        return found, jax.tree.map(lambda _: True, found)

    @jax.custom_batching.custom_vmap
    def one(*given: Any) -> Any:
        return alone(*given)

    @one.def_vmap
    def _of_batch(size: int, is_batched: Any, *given: Any) -> tuple[Any, Any]:
        found = many(*widened(size, is_batched, given))
        return found, jax.tree.map(lambda _: True, found)

    return lambda *given: one(*jax.tree.map(jnp.asarray, given))


def shares_before(volume: jax.Array) -> jax.Array:
    """Shares before each slot, held at MAX_VOLUME; of at most 2**15 slots."""
    low, high = volume & LOW16, volume >> 16
    low, high = jax.lax.cumsum(low, axis=0) - low, jax.lax.cumsum(high, axis=0) - high
    high = high + (low >> 16)
    return jnp.where(high > MAX_VOLUME >> 16, MAX_VOLUME, (high << 16) | (low & LOW16))


def count_of(x: jax.Array) -> jax.Array:
    """Flags that hold, or the sum of int32 numbers."""
    return jnp.sum(x.astype(jnp.int32), axis=0, dtype=jnp.int32)
