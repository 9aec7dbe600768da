"""The call auction equals a plain-Python twin that tries every price, ties and sides past 2**31 shares included."""

import dataclasses
import functools
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marsjax.core import int64
from marsjax.core.records import MAX_PRICE, MAX_VOLUME, NO_ACCOUNT, NO_PRICE, Side
from marsjax.core.specs import AuctionRule, MarketSpec
from marsjax.market import auction
from tests import twin_auction
from tests.twin_auction import Collected

SPEC = MarketSpec(capacity=16, trade_width=16)
MIDDLE = 100_000
RULES = {rule: dataclasses.replace(SPEC, auction_rule=rule) for rule in (AuctionRule.SHANGHAI, AuctionRule.SHENZHEN)}
BY_RULE = pytest.mark.parametrize("spec", RULES.values(), ids=[rule.value for rule in RULES])
laws = settings(max_examples=300, deadline=None)

uncross = jax.jit(auction.uncross, static_argnums=0)


def books(volume: st.SearchStrategy[int], ticks: int, most: int = 24, centre: int = MIDDLE) -> Any:
    """Orders of both sides around one price, at most 16 a side."""
    price = st.integers(-ticks, ticks).map(lambda x: centre + 100 * x)
    one = st.builds(Collected, st.sampled_from([0, 1]), price, volume, st.integers(NO_ACCOUNT, 2))
    return st.lists(one, max_size=most).filter(lambda x: max(len(side) for side in twin_auction.slots(x)) <= 16)


LOTS = st.integers(1, 3).map(lambda x: 100 * x)
HUGE = st.sampled_from([MAX_VOLUME, MAX_VOLUME - 1, 2**30, 2**30 + 1, 1])
REFERENCES = st.one_of(st.just(NO_PRICE), st.integers(-6, 6).map(lambda x: MIDDLE + 50 * x))


def assert_equals_twin(orders: list[Collected], reference: int, spec: MarketSpec = SPEC) -> twin_auction.Result:
    expected = twin_auction.uncross(orders, reference, spec.auction_rule, spec.tick)
    before = twin_auction.as_book(spec, orders, last_price=77)
    after, result = uncross(spec, before, np.int32(reference))
    assert int(result.price) == expected.price
    assert int(int64.to_numpy(result.volume)) == expected.volume
    fill = np.zeros((2, spec.capacity), np.int64)
    for side, numbers in enumerate(twin_auction.slots(orders)):
        fill[side, :len(numbers)] = [expected.fills[i] for i in numbers]
    np.testing.assert_array_equal(result.fill, fill)
    for got, name in ((result.limit, "price"), (result.order_id, "order_id"), (result.account, "account")):
        np.testing.assert_array_equal(got, getattr(before, name))
    left = twin_auction.as_book(spec, orders, last_price=77, taken=expected.fills)
    assert_bitwise_equal(after, left)
    return expected


def assert_bitwise_equal(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.asarray(x).dtype == np.asarray(y).dtype
        np.testing.assert_array_equal(x, y)


@laws
@given(books(LOTS, ticks=3), REFERENCES)
@example([], NO_PRICE)
@example([Collected(Side.ASK, MIDDLE, 100)], MIDDLE)
@example([Collected(Side.BID, MIDDLE, 100)], NO_PRICE)
def test_uncross_equals_twin(orders: list[Collected], reference: int) -> None:
    assert_equals_twin(orders, reference)


@laws
@given(books(st.sampled_from([1, 2]), ticks=2, most=10), REFERENCES)
def test_uncross_equals_twin_where_ties_are_many(orders: list[Collected], reference: int) -> None:
    assert_equals_twin(orders, reference)


@laws
@given(books(HUGE, ticks=3), REFERENCES)
def test_uncross_equals_twin_on_sides_far_past_2_to_31_shares(orders: list[Collected], reference: int) -> None:
    assert_equals_twin(orders, reference)


@settings(laws, max_examples=60)
@given(books(HUGE, ticks=2, centre=MAX_PRICE // 100 * 100 - 200), st.sampled_from([NO_PRICE, 1, MAX_PRICE]))
def test_uncross_equals_twin_at_the_highest_prices(orders: list[Collected], reference: int) -> None:
    assert_equals_twin(orders, reference)


@BY_RULE
@laws
@given(books(LOTS, ticks=4), REFERENCES)
@example([], NO_PRICE)
@example([Collected(Side.BID, MIDDLE, 100)], NO_PRICE)
def test_rules_of_exchanges_equal_a_twin_that_tries_every_tick(spec: MarketSpec, orders: list[Collected], reference: int
                                                               ) -> None:
    assert_equals_twin(orders, reference, spec)


@BY_RULE
@settings(laws, max_examples=100)
@given(books(HUGE, ticks=3, most=8, centre=MAX_PRICE // 100 * 100 - 300), st.sampled_from([NO_PRICE, 1, MAX_PRICE]))
def test_rules_of_exchanges_equal_twin_at_the_highest_prices_and_volumes(
        spec: MarketSpec, orders: list[Collected], reference: int) -> None:
    assert_equals_twin(orders, reference, spec)


@BY_RULE
def test_rules_of_exchanges_equal_twin_on_thousands_of_small_books(spec: MarketSpec) -> None:
    rng = np.random.default_rng(11)
    between = 0
    for _ in range(2000):
        orders = random_orders(rng, int(rng.integers(1, 7)), 4, [100, 200])
        result = assert_equals_twin(orders, int(rng.choice([NO_PRICE, MIDDLE - 100, MIDDLE + 130])), spec)
        between += result.volume > 0 and result.price not in {order.price for order in orders}
    assert between > 50


def random_orders(rng: np.random.Generator, count: int, ticks: int, volumes: list[int]) -> list[Collected]:
    return [Collected(int(rng.integers(2)), MIDDLE + 100 * int(rng.integers(-ticks, ticks + 1)),
                      int(rng.choice(volumes)), int(rng.integers(NO_ACCOUNT, 3))) for _ in range(count)]


def test_random_books_meet_every_way_to_break_a_tie_and_every_one_equals_twin() -> None:
    rng = np.random.default_rng(1)
    seen = dict.fromkeys(("", "imbalance", "distance", "price"), 0)
    for _ in range(400):
        orders = random_orders(rng, int(rng.integers(2, 12)), 3, [100, 200])
        reference = int(rng.choice([NO_PRICE, MIDDLE, MIDDLE + 150]))
        seen[assert_equals_twin(orders, reference).tie_broken_by] += 1
    assert min(seen.values()) >= 10, seen


def test_deep_books_equal_twin() -> None:
    spec = MarketSpec(capacity=1024, trade_width=16)
    for seed in range(6):
        rng = np.random.default_rng(seed)
        orders = random_orders(rng, 1500, 30, [100, 300, 2**30] if seed % 2 else [100, 200, 500])
        assert_equals_twin(orders, MIDDLE, spec)


def sell(price: int, volume: int) -> Collected:
    return Collected(Side.ASK, price, volume)


def buy(price: int, volume: int) -> Collected:
    return Collected(Side.BID, price, volume)


@pytest.mark.parametrize(("orders", "reference", "price", "volume"), [
    ([buy(99_900, 100), sell(100_000, 100)], NO_PRICE, NO_PRICE, 0),
    ([buy(100_000, 300), buy(100_100, 100)], MIDDLE, NO_PRICE, 0),
    ([sell(100_000, 300), sell(100_100, 100)], MIDDLE, NO_PRICE, 0),
    ([], MIDDLE, NO_PRICE, 0),
    ([buy(100_000, 300)], MIDDLE, NO_PRICE, 0),
    # The most volume wins against the nearer price.
    ([buy(100_300, 100), buy(100_000, 300), sell(100_000, 400)], 100_300, 100_000, 400),
    # 100 trade anywhere from 99,900 to 100,100: no imbalance anywhere, so the reference price decides, then the lower.
    ([buy(100_100, 100), sell(99_900, 100)], 100_100, 100_100, 100),
    ([buy(100_100, 100), sell(99_900, 100)], 99_000, 99_900, 100),
    ([buy(100_100, 100), sell(99_900, 100)], MIDDLE, 99_900, 100),
    ([buy(100_100, 100), sell(99_900, 100)], NO_PRICE, 99_900, 100),
    # The same volume at both prices, but 100 shares are left over at the lower one.
    ([buy(100_100, 100), sell(99_900, 100), buy(99_900, 100)], 99_900, 100_100, 100),
], ids=str)
def test_price_and_volume_of_small_books(orders: list[Collected], reference: int, price: int, volume: int) -> None:
    expected = assert_equals_twin(orders, reference)
    assert (expected.price, expected.volume) == (price, volume)


@pytest.mark.parametrize(("orders", "reference", "shanghai", "shenzhen"), [
    # No order stands between: the middle of an even number of ticks, and of an odd one the lower of both.
    ([buy(100_500, 100), sell(100_100, 100)], NO_PRICE, 100_300, 100_100),
    ([buy(100_400, 100), sell(100_100, 100)], 100_300, 100_200, 100_300),
    ([buy(100_500, 100), sell(100_100, 100)], 100_450, 100_300, 100_400),
    ([buy(100_500, 100), sell(100_100, 100)], 100_460, 100_300, 100_500),
    ([buy(100_500, 100), sell(100_100, 100)], 99_000, 100_300, 100_100),
    ([buy(100_500, 100), sell(100_100, 100)], 101_000, 100_300, 100_500),
    # 50 would be left at the lower end, none at the upper one, and none between.
    ([buy(100_500, 100), buy(100_100, 50), sell(100_100, 100)], 99_000, 100_500, 100_200),
    # 50 would be left at each end: the middle leaves none.
    ([buy(100_500, 100), buy(100_100, 50), sell(100_100, 100), sell(100_500, 50)], 99_000, 100_300, 100_200),
    # Nothing lies between the ends.
    ([buy(100_200, 100), buy(100_100, 50), sell(100_100, 100), sell(100_200, 50)], 100_180, 100_100, 100_200),
    ([buy(100_200, 100), buy(100_100, 50), sell(100_100, 100), sell(100_200, 40)], 99_000, 100_200, 100_200),
    ([buy(99_900, 100), sell(100_000, 100)], MIDDLE, NO_PRICE, NO_PRICE),
], ids=str)
def test_prices_by_the_rules_of_exchanges(orders: list[Collected], reference: int, shanghai: int, shenzhen: int
                                          ) -> None:
    got = [assert_equals_twin(orders, reference, spec).price for spec in RULES.values()]
    assert got == [shanghai, shenzhen]


def test_at_the_price_itself_orders_fill_in_order_of_arrival() -> None:
    orders = [buy(100_000, 100), buy(100_000, 200), buy(100_100, 50), sell(100_000, 120), buy(100_000, 300)]
    assert assert_equals_twin(orders, NO_PRICE).fills == [70, 0, 50, 120, 0]


def test_nothing_happens_where_no_auction_is_held() -> None:
    before = twin_auction.as_book(SPEC, [buy(100_100, 100), sell(99_900, 300)], last_price=5)
    after, result = uncross(SPEC, before, np.int32(MIDDLE), np.bool_(False))
    assert_bitwise_equal(after, before)
    assert (int(result.price), int(int64.to_numpy(result.volume)), int(np.sum(result.fill))) == (NO_PRICE, 0, 0)
    _, result = uncross(SPEC, before, np.int32(MIDDLE), np.bool_(True))
    assert int(int64.to_numpy(result.volume)) == 100


def test_what_is_left_does_not_cross_and_an_auction_at_once_again_trades_nothing() -> None:
    for seed in range(40):
        orders = random_orders(np.random.default_rng(seed), 20, 4, [100, 200, 700])
        after, _ = uncross(SPEC, twin_auction.as_book(SPEC, orders), np.int32(MIDDLE))
        ask, bid = np.asarray(after.price)[:, 0]
        assert min(np.asarray(after.volume)[:, 0]) == 0 or ask > bid
        again, result = uncross(SPEC, after, np.int32(MIDDLE))
        assert int(result.price) == NO_PRICE
        assert_bitwise_equal(again, after)


def test_vmap_equals_loop() -> None:
    rng = np.random.default_rng(7)
    books = [twin_auction.as_book(SPEC, random_orders(rng, int(n), 3, [100, 2**30])) for n in rng.integers(0, 16, 12)]
    held = rng.random(12) < 0.8
    references = np.where(rng.random(12) < 0.3, NO_PRICE, MIDDLE).astype(np.int32)
    batch = jax.tree.map(lambda *x: np.stack(x), *books)
    together = jax.jit(jax.vmap(functools.partial(auction.uncross, SPEC)))(batch, references, held)
    for i, one in enumerate(books):
        alone = uncross(SPEC, one, references[i], held[i])
        assert_bitwise_equal(jax.tree.map(lambda x, i=i: x[i], together), alone)
