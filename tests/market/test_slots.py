"""Arrays of slots: both ways of every kernel against plain NumPy, single and under `vmap`."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.kernels import ACCELERATOR, CPU, Kernels
from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID
from marsjax.market import slots

WAYS = pytest.mark.parametrize("kernels", [CPU, ACCELERATOR], ids=["cpu", "accelerator"])
DEPTHS = (1, 5, slots.HEAD - 1, slots.HEAD, slots.HEAD + 1, 1100)

KEPT = {"any": "".join(map(str, np.random.default_rng(7).integers(0, 2, 24))), "none": "0" * 24, "all": "1" * 24,
        "a run": "000111110000000000000000", "the end": "000000000000000000000011", "gaps": "110100011111100000000000",
        "eight gaps": "00000000" + "1" * 10 + "0" * 6, "nine gaps": "000000000" + "1" * 9 + "0" * 6,
        "early": "101" + "0" * 21}
"""Slots that are kept: what cancels leave, what they take, and more."""


@pytest.mark.parametrize("width", [5, 24, 30])
@pytest.mark.parametrize("names", [("none", "all", "gaps"), ("a run", "the end", "none"), ("eight gaps", "gaps", "all"),
                                   ("any", "a run", "all"), ("nine gaps", "all", "none"), ("early", "none", "none")])
def test_all_ways_to_pack_keep_the_kept_slots_in_order(width: int, names: tuple[str, ...]) -> None:
    rng = np.random.default_rng(width)
    keep = np.stack([np.array([[x == "1" for x in KEPT[name]]] * 2) for name in names])
    row = [rng.integers(1, 2**31 - 1, keep.shape).astype(np.int32) for _ in range(4)]
    for pack in all_ways(width):
        packed = pack(keep, *row)
        for got, x, nothing in zip(packed, row, (EMPTY_PRICE, 0, NO_ID, NO_ACCOUNT), strict=True):
            for b, side in np.ndindex(3, 2):
                kept = x[b, side][keep[b, side]][:width]
                assert np.asarray(got)[b, side].tolist() == [*kept, *[nothing] * (width - len(kept))]


@functools.cache
def all_ways(width: int) -> list[Any]:
    """Compiled once for all slots that are kept."""
    by_scatter = functools.partial(slots._pack_by_scatter, width)
    ways = [by_scatter, *(pack_of(kernels, width) for kernels in (CPU, ACCELERATOR)),
            *(jax.vmap(jax.vmap(pack_of(kernels, width))) for kernels in (CPU, ACCELERATOR))]
    return [jax.jit(pack) for pack in ways]


def pack_of(kernels: Kernels, width: int) -> Any:
    return lambda keep, *row: slots.pack(kernels, keep, slots.Row(*row), width)


@WAYS
@pytest.mark.parametrize("depth", [slots.HEAD - 1, slots.HEAD, slots.HEAD + 1])
def test_deep_sides_are_packed_alike(kernels: Kernels, depth: int) -> None:
    rng = np.random.default_rng(depth)
    keep = rng.random((2, depth)) < 0.7
    row = [rng.integers(1, 2**31 - 1, keep.shape).astype(np.int32) for _ in range(4)]
    packed = jax.jit(pack_of(kernels, depth))(keep, *row)
    for got, x, nothing in zip(packed, row, (EMPTY_PRICE, 0, NO_ID, NO_ACCOUNT), strict=True):
        for side in range(2):
            kept = x[side][keep[side]].tolist()
            assert np.asarray(got)[side].tolist() == kept + [nothing] * (depth - len(kept))


def test_the_record_says_how_slots_are_packed_and_summed() -> None:
    """Programs differ where the record does, and nowhere else: a CPU's packing alone has a branch."""
    keep, row = np.ones((2, 8), bool), [np.ones((2, 8), np.int32)] * 4
    program = {kernels: str(jax.make_jaxpr(pack_of(kernels, 8))(keep, *row)) for kernels in (CPU, ACCELERATOR)}
    assert ("cond[" in program[CPU], "cond[" in program[ACCELERATOR]) == (True, False)
    for depth in (slots.HEAD, slots.HEAD + 1):
        sums = {kernels: str(jax.make_jaxpr(functools.partial(slots.saturating_prefix_sum, kernels))(
            np.ones(depth, np.int32))) for kernels in (CPU, ACCELERATOR)}
        windows = "reduce_window" in sums[CPU], "reduce_window" in sums[ACCELERATOR]
        assert windows == (False, depth <= slots.HEAD)


@WAYS
@pytest.mark.parametrize("depth", DEPTHS)
def test_both_running_sums_stop_at_the_largest_number(kernels: Kernels, depth: int) -> None:
    rng = np.random.default_rng(depth)
    volume = np.stack([rng.integers(0, 2**31 - 1, depth), rng.integers(0, 2**31 // depth, depth), np.zeros(depth),
                       np.full(depth, 2**31 - 1)]).astype(np.int32)
    expected = np.minimum(np.cumsum(volume, axis=1, dtype=np.int64) - volume, 2**31 - 1)
    prefix_sum = functools.partial(slots.saturating_prefix_sum, kernels)
    np.testing.assert_array_equal(jax.jit(jax.vmap(prefix_sum))(volume), expected)
    np.testing.assert_array_equal(jax.jit(prefix_sum)(volume[0]), expected[0])


def looked(kernels: Kernels, least: int) -> Any:
    """How many slots the sum of the slots above a number was taken of, and the sum; the rest must be 0 or below."""
    def function(x: jax.Array, floor: jax.Array) -> tuple[jax.Array, jax.Array]:
        return jnp.int32(x.shape[-1]), jnp.sum(jnp.where(x > floor, x, 0))

    def enough(head: int, x: jax.Array, floor: jax.Array) -> jax.Array:
        return jnp.all(x[..., head:] <= floor)

    return lambda x, floor: slots.on_head(kernels, least, enough, function, x, floor)


@WAYS
@pytest.mark.parametrize(("least", "filled", "depth", "alone", "batch"), [
    (1, 100, 512, 512, 128), (1, 100, 1024, 512, 128), (1, 128, 1024, 512, 128), (1, 129, 1024, 512, 1024),
    (1, 512, 1024, 512, 1024), (1, 513, 1024, 1024, 1024), (600, 600, 1024, 600, 600), (200, 100, 1024, 512, 200),
    (1, 5, 128, 128, 128), (1, 5, 129, 129, 128)])
def test_heads_are_taken_where_they_are_enough_and_the_record_says_so(
        kernels: Kernels, least: int, filled: int, depth: int, alone: int, batch: int) -> None:
    floor = np.int32(3)
    x = np.where(np.arange(depth) < filled, 7, 3).astype(np.int32)
    look = looked(kernels, least)
    assert [int(found) for found in jax.jit(look)(x, floor)] == [alone, 7 * filled]
    # Of a batch each book is looked at as a whole where its own head is not enough, however many these are.
    short = np.where(np.arange(depth) < 2, 7, 3).astype(np.int32)
    for rows in ([x, short], [x] * 19 + [short] + [x]):
        books = np.stack(rows)
        for axes, floors in (((0, None), floor), ((0, 0), np.stack([floor] * len(rows)))):
            seen, total = jax.jit(jax.vmap(look, axes))(books, floors)
            of_short = min(max(slots.HEAD_OF_MANY, least), depth)
            expected = [of_short if row is short else batch for row in rows] if kernels.heads_first else (
                [depth] * len(rows))
            assert np.asarray(seen).tolist() == expected
            assert np.asarray(total).tolist() == [14 if row is short else 7 * filled for row in rows]


@WAYS
@pytest.mark.parametrize("needs", [(False, False, False), (False, True, False), (True, True, True)])
def test_what_is_rarely_needed_is_given_where_it_is_and_computed_where_a_book_needs_it(
        kernels: Kernels, needs: tuple[bool, ...]) -> None:
    computed: list[int] = []

    def rare(x: jax.Array, y: jax.Array) -> jax.Array:
        jax.debug.callback(lambda: computed.append(1))
        return x + y

    def of(needed: jax.Array, x: jax.Array, y: jax.Array) -> jax.Array:
        return slots.if_needed(kernels, needed, rare, lambda x, y: x - y, x, y)

    x, y = np.arange(3, dtype=np.int32), np.int32(10)
    found = jax.jit(jax.vmap(of, (0, 0, None)))(np.array(needs), x, y)
    jax.effects_barrier()
    assert found.tolist() == [i + 10 if needed else i - 10 for i, needed in enumerate(needs)]
    assert bool(computed) is (any(needs) or not kernels.heads_first)
    assert [int(jax.jit(of)(np.bool_(needed), x[1], y)) for needed in (False, True)] == [-9, 11]
