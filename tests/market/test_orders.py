"""Orders are made at the door: what does not fit is refused with its column, row and value."""

import jax
import numpy as np
import pytest

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID, Condition, Kind, Order, Side, Status
from marsjax.core.specs import MarketSpec
from marsjax.market import book, orders

COLUMNS = ("time_ns", "kind", "price", "volume", "order_id", "cancel_side", "cancel_id", "account", "condition")


def three_columns() -> dict[str, np.ndarray]:
    return {name: np.arange(3, dtype=np.int64) + 10 * i for i, name in enumerate(COLUMNS)}


def test_columns_arrive_unchanged_as_32_bit_integers() -> None:
    columns = three_columns()
    columns["time_ns"] = np.array([0, 34_200_000_000_001, 86_399_999_999_999])
    columns["price"] = np.array([-(2**31), 0, 2**31 - 1])
    made = orders.from_columns(**columns)
    assert {x.dtype for x in jax.tree.leaves(made)} == {np.dtype(np.int32)}
    np.testing.assert_array_equal(times.to_ns(made.time), columns.pop("time_ns"))
    for name, column in columns.items():
        np.testing.assert_array_equal(getattr(made, name), column)


@pytest.mark.parametrize("name", COLUMNS[1:])
@pytest.mark.parametrize("value", [2**31, -(2**31) - 1, 10**18])
def test_numbers_past_32_bits_are_refused_with_column_row_and_value(name: str, value: int) -> None:
    columns = three_columns()
    columns[name][1:] = value
    with pytest.raises(ValueError, match=f"column {name}, row 1: expected a 32-bit integer, got {value}"):
        orders.from_columns(**columns)


def test_negative_times_are_refused() -> None:
    columns = three_columns() | {"time_ns": np.array([0, -7, 5])}
    with pytest.raises(ValueError, match="-7"):
        orders.from_columns(**columns)


@pytest.mark.parametrize("length", [3, 4, 64])
def test_padding_keeps_the_orders_and_adds_none_at_the_last_time(length: int) -> None:
    columns = three_columns() | {"time_ns": np.array([1, 2, 3_000_000_004])}
    made = orders.from_columns(**columns)
    padded = orders.pad(made, length)
    for before, after in zip(jax.tree.leaves(made), jax.tree.leaves(padded), strict=True):
        assert (after.shape, after.dtype) == ((length,), np.int32)
        np.testing.assert_array_equal(after[:3], before)
    assert np.all(padded.kind[3:] == Kind.NONE)
    assert np.all(padded.volume[3:] == 0)
    assert np.all(padded.order_id[3:] == NO_ID)
    assert np.all(times.to_ns(padded.time)[3:] == 3_000_000_004)


def test_padding_of_nothing_is_all_none() -> None:
    padded = orders.pad(orders.from_columns(*[np.zeros(0, np.int64)] * len(COLUMNS)), 2)
    assert padded.kind.tolist() == [Kind.NONE, Kind.NONE]
    assert times.to_ns(padded.time).tolist() == [0, 0]


def test_padding_never_drops_orders() -> None:
    with pytest.raises(ValueError, match="cannot pad 3 orders to 2"):
        orders.pad(orders.from_columns(**three_columns()), 2)


def fields(order: Order) -> tuple[int, ...]:
    return tuple(int(x) for x in jax.tree.leaves(order))


def test_orders_made_by_hand_hold_what_was_said_and_nothing_else() -> None:
    time = times.of_ns(5_000_000_006)
    assert fields(orders.limit_order(Kind.BUY, 100_000, 300, 7, 1, time)) == (
        5, 6, 1, 100_000, 300, 7, NO_ID, NO_ID, 1, 0)
    assert fields(orders.limit_order(Kind.SELL, 100, 1)) == (
        0, 0, 0, 100, 1, NO_ID, NO_ID, NO_ID, NO_ACCOUNT, 0)
    assert fields(orders.cancel_order(Side.BID, 7, 50, 9, 1, time)) == (
        5, 6, 2, EMPTY_PRICE, 50, 9, 1, 7, 1, 0)
    assert fields(orders.no_order(time)) == (5, 6, 3, EMPTY_PRICE, 0, NO_ID, NO_ID, NO_ID, NO_ACCOUNT, 0)


def test_arguments_of_different_shapes_broadcast() -> None:
    made = orders.limit_order(Kind.BUY, np.array([100, 200, 300]), np.array([[1], [2]]))
    assert {x.shape for x in jax.tree.leaves(made)} == {(2, 3)}
    np.testing.assert_array_equal(made.price, [[100, 200, 300]] * 2)
    np.testing.assert_array_equal(made.volume, [[1] * 3, [2] * 3])


def test_an_order_rests_on_the_side_of_its_kind() -> None:
    assert (orders.side_of(Kind.BUY), orders.side_of(Kind.SELL)) == (Side.BID, Side.ASK)


def test_a_condition_is_kept_and_rest_where_none_is_given() -> None:
    columns = three_columns()
    given = columns.pop("condition")
    assert orders.from_columns(**columns).condition.tolist() == [Condition.REST] * 3
    np.testing.assert_array_equal(orders.from_columns(*columns.values(), given).condition, given)
    made = orders.limit_order(Kind.BUY, 100, 1, condition=Condition.POST_ONLY)
    assert int(made.condition) == Condition.POST_ONLY
    made = orders.market_order(Kind.SELL, 300, 7, 1)
    assert fields(made) == (0, 0, 0, EMPTY_PRICE, 300, 7, NO_ID, NO_ID, 1, Condition.MARKET)


@pytest.mark.parametrize("columns", [
    three_columns() | {"price_": np.zeros(3)}, {"time_ns": np.zeros(3, np.int64), "kind": np.zeros(3)}])
def test_columns_that_are_missing_or_not_known_are_named(columns: dict[str, np.ndarray]) -> None:
    with pytest.raises(InputError, match=r"expected each of the columns kind, price, volume, .* once"):
        orders.from_columns(**columns)
    with pytest.raises(InputError, match=r"once, got 1 by place and .*kind"):
        orders.from_columns(np.zeros(3, np.int64), np.zeros(3), kind=np.zeros(3))


NOT_WHOLE = [100_100.7, np.float32(0.5), float("nan"), float("inf"), 2**31, -(2**31) - 1, 2**70, 1e10, True,
             np.bool_(False), "100", None, 1j, np.float64(2**31)]


@pytest.mark.parametrize("value", NOT_WHOLE, ids=repr)
@pytest.mark.parametrize("name", ["price", "volume", "order_id", "account", "condition"])
def test_numbers_that_an_int32_cannot_hold_are_refused_by_name(name: str, value: object) -> None:
    given = {"price": 100, "volume": 1} | {name: value}
    with pytest.raises(InputError, match=f"order: {name}: expected a 32-bit integer, got ") as error:
        orders.limit_order(Kind.BUY, **given)
    assert len(str(error.value)) < 200 and "\n" not in str(error.value)
    with pytest.raises(InputError, match="order: volume: expected a 32-bit integer"):
        orders.cancel_order(Side.BID, 7, value)
    with pytest.raises(InputError, match="column volume, row 1: expected a 32-bit integer, got "):
        orders.from_columns(**three_columns() | {"volume": np.array([1, value, 3], object)})


def test_the_place_of_a_fraction_in_an_array_is_named() -> None:
    with pytest.raises(InputError, match=r"order: price\[1, 0\]: expected a 32-bit integer, got 0\.5"):
        orders.limit_order(Kind.BUY, np.array([[1.0, 2.0], [0.5, 3.0]]), 1)
    with pytest.raises(InputError, match=r"column price, row 2: expected a 32-bit integer, got 0\.5"):
        orders.from_columns(**three_columns() | {"price": np.array([1, 2, 0.5])})


@pytest.mark.parametrize("value", [100.0, np.float32(100), np.int64(100), np.uint8(100), np.array(100), np.int32(100)],
                         ids=lambda x: type(x).__name__)
def test_whole_numbers_of_any_type_are_taken(value: object) -> None:
    made = orders.limit_order(Kind.BUY, value, value)
    assert (int(made.price), int(made.volume), made.price.dtype) == (100, 100, np.int32)
    columns = three_columns() | {"price": np.array([value] * 3)}
    assert orders.from_columns(**columns).price.tolist() == [100] * 3


def test_inside_a_compiled_function_whole_numbers_pass_and_fractions_are_refused() -> None:
    make = jax.jit(lambda price: orders.limit_order(Kind.BUY, price, 1))
    assert int(make(np.int32(7)).price) == 7
    with pytest.raises(InputError, match="order: price: expected whole numbers, got float32 inside a compiled"):
        make(np.float32(7))


def test_a_change_keeps_or_loses_the_place_in_the_queue() -> None:
    spec = MarketSpec(capacity=8, trade_width=2)
    now = book.empty(spec)
    for order_id, volume in ((1, 300), (2, 200)):
        now, _, _ = book.submit(spec, now, orders.limit_order(Kind.BUY, 100_000, volume, order_id))
    for keeps, new_id, expected in ((True, NO_ID, [(1, 100), (2, 200)]), (False, 3, [(2, 200), (3, 100)])):
        both = orders.change_order(Side.BID, 1, 300, orders.limit_order(Kind.BUY, 100_000, 100, new_id), keeps)
        after = now
        for i in range(2):
            after, _, status = book.submit(spec, after, jax.tree.map(lambda x, i=i: x[i], both))
            assert int(status) in (Status.ACCEPTED, Status.NO_ORDER)
        got = list(zip(after.order_id[Side.BID, :2].tolist(), after.volume[Side.BID, :2].tolist(), strict=True))
        assert got == expected
