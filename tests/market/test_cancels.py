"""Cancels that name a price and a volume take the same shares off the same orders as those of plain-Python twins.

By both rules; and of orders alike one is taken by the law that is promised.
"""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats

from marsjax.core.kernels import ACCELERATOR, CPU
from marsjax.core.records import MAX_VOLUME, Book, Side
from marsjax.core.specs import MarketSpec
from marsjax.market import cancels
from tests.twin_auction import Collected, as_book

SPECS = MarketSpec(capacity=12, kernels=CPU), MarketSpec(capacity=12, kernels=ACCELERATOR)
SPEC = SPECS[0]
MIDDLE = 100_000
nearest = jax.jit(cancels.nearest, static_argnums=0)


def twin(orders: list[Collected], account: int, price: int, volume: int, upper_wins: bool) -> dict[int, int]:
    """Shares to take off each order, by its number."""
    own = [i for i, order in enumerate(orders) if order.account == account]
    if not own:
        return {}
    distance = min(abs(orders[i].price - price) for i in own)
    prices = sorted({orders[i].price for i in own if abs(orders[i].price - price) == distance})
    chosen, taken = prices[-1 if upper_wins else 0], {}
    for i in own:
        if orders[i].price == chosen and volume:
            taken[i] = min(volume, orders[i].volume)
            volume -= taken[i]
    return taken


class Case(NamedTuple):
    orders: list[Collected]
    account: int
    price: int
    volume: int
    upper_wins: bool


def uncrossed(huge: bool) -> st.SearchStrategy[list[Collected]]:
    """Orders of two accounts, bids below the middle and asks at it or above."""
    size = st.sampled_from([MAX_VOLUME, MAX_VOLUME - 1, 2**30]) if huge else st.integers(1, 5).map(lambda x: 100 * x)
    tick = st.integers(-4, 3)
    one = st.builds(lambda x, *rest: Collected(Side.ASK if x >= 0 else Side.BID, MIDDLE + 100 * x, *rest),
                    tick, size, st.integers(0, 1))
    return st.lists(one, max_size=12)


CASES = st.booleans().flatmap(lambda huge: st.builds(
    Case, uncrossed(huge), st.just(0), st.integers(-14, 14).map(lambda x: MIDDLE + 50 * x),
    st.sampled_from([1, MAX_VOLUME]) if huge else st.sampled_from([1, 100, 300, 700, 2000, MAX_VOLUME]), st.booleans()))


@pytest.mark.parametrize("volume", [0, 1, 100, 750, MAX_VOLUME])
def test_both_ways_take_the_first_shares(volume: int) -> None:
    rng = np.random.default_rng(volume)
    few, huge = rng.integers(0, 3, 20) * 100, rng.integers(0, 2, 20) * MAX_VOLUME
    shares = np.stack([few, huge, np.zeros(20)]).astype(np.int32)
    before = np.cumsum(shares, axis=1, dtype=np.int64) - shares
    expected = np.clip(volume - before, 0, shares)
    for kernels in (CPU, ACCELERATOR):
        first = functools.partial(cancels._first_shares, kernels)
        np.testing.assert_array_equal(jax.vmap(first, (0, None))(shares, np.int32(volume)), expected)
        for row, one in zip(shares, expected, strict=True):
            np.testing.assert_array_equal(jax.jit(first)(row, np.int32(volume)), one)


def ask(book: Book, case: Case) -> np.ndarray:
    """What is taken, by either way."""
    by_steps, by_sum = (np.asarray(nearest(spec, book, book.account == case.account, np.int32(case.price),
                                           np.int32(case.volume), np.bool_(case.upper_wins))) for spec in SPECS)
    np.testing.assert_array_equal(by_steps, by_sum)
    return by_steps


def by_number(book: Book, take: np.ndarray) -> dict[int, int]:
    ids = np.asarray(book.order_id)
    assert not np.any(take[ids < 0])
    return {int(i): int(t) for i, t in zip(ids[take != 0], take[take != 0], strict=True)}


@settings(max_examples=300, deadline=None)
@given(CASES)
def test_nearest_equals_twin(case: Case) -> None:
    book = as_book(SPEC, case.orders)
    assert by_number(book, ask(book, case)) == twin(*case)


BIDS = [Collected(Side.BID, 99_900, 300, 0), Collected(Side.BID, 99_900, 200, 1), Collected(Side.BID, 99_900, 500, 0)]
ASKS = [Collected(Side.ASK, 100_100, 100, 0), Collected(Side.ASK, 100_300, 400, 0)]


@pytest.mark.parametrize(("price", "volume", "upper_wins", "taken"), [
    (99_900, 100, False, {0: 100}), (99_900, 300, False, {0: 300}), (99_900, 400, True, {0: 300, 2: 100}),
    (99_500, 10_000, True, {0: 300, 2: 500}),  # the rest of the volume is lost
    (100_000, 200, True, {3: 100}), (100_000, 200, False, {0: 200}), (100_001, 200, False, {3: 100}),
    (100_200, 1000, True, {4: 400}), (100_200, 1000, False, {3: 100}), (2**30, 1, False, {4: 1}), (0, 1, True, {0: 1}),
])
def test_small_book(price: int, volume: int, upper_wins: bool, taken: dict[int, int]) -> None:
    book = as_book(SPEC, BIDS + ASKS)
    case = Case(BIDS + ASKS, 0, price, volume, upper_wins)
    assert by_number(book, ask(book, case)) == taken == twin(*case)


def test_nothing_is_taken_where_the_agent_has_nothing() -> None:
    for orders in ([], BIDS, BIDS + ASKS):
        assert not np.any(ask(as_book(SPEC, orders), Case(orders, 7, MIDDLE, 500, True)))


def test_no_volume_takes_nothing() -> None:
    assert not np.any(ask(as_book(SPEC, BIDS), Case(BIDS, 0, MIDDLE, 0, True)))


def test_vmap_equals_loop() -> None:
    rng = np.random.default_rng(3)
    cases = []
    for _ in range(8):
        ticks = rng.integers(-4, 4, rng.integers(0, 12)).tolist()
        orders = [Collected(Side.ASK if x >= 0 else Side.BID, MIDDLE + 100 * x, 100, i % 2)
                  for i, x in enumerate(ticks)]
        cases.append(Case(orders, 0, MIDDLE + 50 * int(rng.integers(-9, 9)), 300, bool(rng.integers(2))))
    books = [as_book(SPEC, case.orders) for case in cases]
    stacked: Any = functools.partial(jax.tree.map, lambda *x: np.stack(x))
    batch = stacked(*books)
    columns = [np.array([getattr(case, name) for case in cases]) for name in ("price", "volume", "upper_wins")]
    for spec in SPECS:
        together = jax.vmap(functools.partial(cancels.nearest, spec))(
            batch, batch.account == 0, *(x.astype(np.int32) for x in columns[:2]), columns[2])
        for i, case in enumerate(cases):
            np.testing.assert_array_equal(together[i], ask(books[i], case))


# --- one whole order


whole = jax.jit(cancels.whole, static_argnums=0)
rank_of = jax.jit(jax.vmap(cancels.rank_from_newest))
NEWEST, OLDEST = 0, 2**32 - 1
"""Words that take the newest and the oldest of orders alike."""
LEAST_P = 1e-4


def candidates(case: Case) -> list[int]:
    """Numbers of the orders of which one is taken back, by arrival."""
    if not case.volume:
        return []
    at_price = twin(case.orders, case.account, case.price, MAX_VOLUME * len(case.orders), case.upper_wins)
    off = {i: abs(case.orders[i].volume - case.volume) for i in at_price}
    return sorted(i for i in off if off[i] == min(off.values()))


def take_whole(case: Case, word: int) -> dict[int, int]:
    book = as_book(SPEC, case.orders)
    halving, by_count = (by_number(book, np.asarray(whole(
        spec, book, book.account == case.account, np.int32(case.price), np.int32(case.volume),
        np.bool_(case.upper_wins), np.uint32(word)))) for spec in SPECS)
    assert halving == by_count
    return halving


@settings(max_examples=300, deadline=None)
@given(CASES, st.integers(0, 2**32 - 1))
@example(Case([Collected(Side.BID, 99_900, 100, 0)] * 12, 0, 99_900, 100, True), 2**31)
@example(Case([Collected(Side.BID, 99_900, MAX_VOLUME, 0)] * 3, 0, 99_900, 1, True), 2**30)
@example(Case([Collected(Side.ASK, 99_900, 100, 0), Collected(Side.ASK, 99_900, 300, 0)], 0, 2**30, 200, True), NEWEST)
def test_one_whole_order_of_the_twins_candidates_is_taken(case: Case, word: int) -> None:
    alike = candidates(case)
    if not alike:
        assert take_whole(case, word) == {}
        return
    # A rank that the table's rounding might move goes either way.
    exact = len(alike) * (word / 2**32) ** 1.25
    ranks = {min(max(int(exact + slack), 0), len(alike) - 1) for slack in (-1e-4, 1e-4)}
    assert take_whole(case, word) in [{alike[-1 - rank]: case.orders[alike[-1 - rank]].volume} for rank in ranks]
    for extreme, number in ((NEWEST, alike[-1]), (OLDEST, alike[0])):
        assert take_whole(case, extreme) == {number: case.orders[number].volume}


SAME = [Collected(Side.ASK, 100_100, *order) for order in ((200, 0), (100, 0), (200, 0), (200, 1), (50, 0))]
"""At one price: two orders of 200 of account 0, one of another account behind them."""


@pytest.mark.parametrize(("price", "volume", "upper_wins", "word", "taken"), [
    (100_100, 200, True, NEWEST, {2: 200}), (100_100, 200, True, OLDEST, {0: 200}),
    (100_100, 210, True, NEWEST, {2: 200}),  # the nearest volume, be it less
    (100_100, 90, True, NEWEST, {1: 100}),  # or more than the one named
    (100_100, 150, True, NEWEST, {2: 200}), (100_100, 150, True, OLDEST, {0: 200}),  # two distances alike, one order
    (100_100, 75, False, NEWEST, {4: 50}), (100_100, 75, False, OLDEST, {1: 100}),  # either of two volumes
    (100_100, MAX_VOLUME, True, OLDEST, {0: 200}), (100_100, 1, True, OLDEST, {4: 50}),
    (100_000, 300, False, NEWEST, {5: 300}), (100_000, 300, True, NEWEST, {2: 200}),  # of two prices the one told
    (0, 500, True, NEWEST, {5: 300}), (100_100, 0, True, NEWEST, {}),
])
def test_whole_orders_of_a_small_book(price: int, volume: int, upper_wins: bool, word: int, taken: dict[int, int]
                                      ) -> None:
    case = Case([*SAME, Collected(Side.BID, 99_900, 300, 0)], 0, price, volume, upper_wins)
    assert take_whole(case, word) == taken
    assert take_whole(case._replace(account=7), word) == {}


def test_whole_cancels_of_a_batch_equal_those_of_one_book() -> None:
    rng = np.random.default_rng(4)
    cases = [Case([Collected(Side.ASK if x >= 0 else Side.BID, MIDDLE + 100 * x, int(rng.integers(1, 3)) * 100, i % 2)
                   for i, x in enumerate(rng.integers(-2, 2, rng.integers(0, 13)).tolist())],
                  0, MIDDLE + 50 * int(rng.integers(-5, 5)), int(rng.integers(1, 4)) * 100, bool(rng.integers(2)))
             for _ in range(64)]
    words = rng.integers(0, 2**32, len(cases), np.uint32)
    books = [as_book(SPEC, case.orders) for case in cases]
    batch = jax.tree.map(lambda *x: np.stack(x), *books)
    columns = [np.array([getattr(case, name) for case in cases]) for name in ("price", "volume", "upper_wins")]
    for spec in SPECS:
        together = np.asarray(jax.vmap(functools.partial(cancels.whole, spec))(
            batch, batch.account == 0, *(x.astype(np.int32) for x in columns[:2]), columns[2], words))
        got = [by_number(book, take) for book, take in zip(books, together, strict=True)]
        assert got == [take_whole(case, int(word)) for case, word in zip(cases, words, strict=True)]
        assert sum(map(bool, got)) > 40


@pytest.mark.parametrize("capacity", [1, 2, 5, 8, 33])
def test_both_ways_find_the_slot_of_every_rank(capacity: int) -> None:
    rng = np.random.default_rng(capacity)
    ways = [jax.jit(jax.vmap(functools.partial(cancels._of_rank, kernels))) for kernels in (CPU, ACCELERATOR)]
    for side in (0, 1):
        fits = np.zeros((64, 2, capacity), bool)
        fits[:, side] = rng.random((64, capacity)) < rng.random((64, 1))
        count = fits.sum((1, 2)).astype(np.int32)
        for rank in range(capacity + 1):
            expected = fits & (np.cumsum(fits[..., ::-1], axis=-1)[..., ::-1] == rank + 1)
            for way in ways:
                found, enough = np.asarray(way(fits, count, np.full(64, rank, np.int32))), count > rank
                np.testing.assert_array_equal(found[enough], expected[enough])
                assert not found[count == 0].any()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 20, 100, 1000, 2**17])
def test_the_chance_of_every_rank_is_that_of_the_law(count: int) -> None:
    """The least word of each rank, found by halving: words below it are the chance of the ranks below."""
    ranks = np.unique(np.linspace(0, count, min(count, 400) + 1).astype(np.int64))[:-1]
    low, high = np.full(len(ranks), -1, np.int64), np.full(len(ranks), 2**32 - 1, np.int64)
    while (high - low > 1).any():
        middle = (low + high) // 2
        reached = np.asarray(rank_of(middle.clip(0).astype(np.uint32), np.full(len(ranks), count, np.int32))) >= ranks
        low, high = np.where(reached, low, middle), np.where(reached, middle, high)
    error = np.abs(high / 2**32 - (ranks / count) ** 0.8).max()
    assert error < (2e-6 if count <= 100 else 4e-5)
    last, = rank_of(np.array([OLDEST], np.uint32), np.array([count], np.int32))
    assert last == count - 1


def test_random_words_choose_by_the_law() -> None:
    words = np.asarray(jax.random.bits(jax.random.key(5, impl="threefry2x32"), (2**16,), np.uint32))
    for count in (2, 5, 30):
        # Among words with either last bit, which chooses between two prices, the same law.
        for bit in (0, 1):
            mine = words[words % 2 == bit]
            found = np.bincount(np.asarray(rank_of(mine, np.full(len(mine), count, np.int32))), minlength=count)
            law = np.diff((np.arange(count + 1) / count) ** 0.8)
            assert stats.chisquare(found, law * len(mine)).pvalue > LEAST_P


def test_the_least_moves_of_the_table_are_exact() -> None:
    u = np.arange(1025) / 1024
    assert np.abs(cancels._RANKS - u**1.25 * 2**24).max() < 1 + 1e-6
