"""Orders are made at the door: what does not fit is refused with its column, row and value."""

import jax
import numpy as np
import pytest

from marsjax.core import times
from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID, Kind, Order, Side
from marsjax.market import orders

COLUMNS = ("time_ns", "kind", "price", "volume", "order_id", "cancel_side", "cancel_id", "account")


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
    assert fields(orders.limit_order(Kind.BUY, 100_000, 300, 7, 1, time)) == (5, 6, 1, 100_000, 300, 7, NO_ID, NO_ID, 1)
    assert fields(orders.limit_order(Kind.SELL, 100, 1)) == (0, 0, 0, 100, 1, NO_ID, NO_ID, NO_ID, NO_ACCOUNT)
    assert fields(orders.cancel_order(Side.BID, 7, 50, 9, 1, time)) == (5, 6, 2, EMPTY_PRICE, 50, 9, 1, 7, 1)
    assert fields(orders.no_order(time)) == (5, 6, 3, EMPTY_PRICE, 0, NO_ID, NO_ID, NO_ID, NO_ACCOUNT)


def test_arguments_of_different_shapes_broadcast() -> None:
    made = orders.limit_order(Kind.BUY, np.array([100, 200, 300]), np.array([[1], [2]]))
    assert {x.shape for x in jax.tree.leaves(made)} == {(2, 3)}
    np.testing.assert_array_equal(made.price, [[100, 200, 300]] * 2)
    np.testing.assert_array_equal(made.volume, [[1] * 3, [2] * 3])


def test_an_order_rests_on_the_side_of_its_kind() -> None:
    assert (orders.side_of(Kind.BUY), orders.side_of(Kind.SELL)) == (Side.BID, Side.ASK)
