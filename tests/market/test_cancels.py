"""Cancels that name a price and a volume take the same shares off the same orders as a plain-Python twin's."""

import functools
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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
