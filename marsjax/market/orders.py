"""Makes `Order` records: by hand, as padding, and from whole columns on the host."""

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID, Array, Kind, Order, Side, Time


def limit_order(kind: Array | int, price: Array | int, volume: Array | int, order_id: Array | int = NO_ID,
                account: Array | int = NO_ACCOUNT, time: Time | None = None) -> Order:
    """A limit order of Kind.BUY or Kind.SELL; arguments broadcast to int32 arrays of one shape."""
    return _make(time, kind, price, volume, order_id, NO_ID, NO_ID, account)


def cancel_order(side: Array | int, cancel_id: Array | int, volume: Array | int, order_id: Array | int = NO_ID,
                 account: Array | int = NO_ACCOUNT, time: Time | None = None) -> Order:
    """A cancel of `volume` shares of the order `cancel_id` that rests on `side`; arguments broadcast."""
    return _make(time, Kind.CANCEL, EMPTY_PRICE, volume, order_id, side, cancel_id, account)


def no_order(time: Time | None = None) -> Order:
    """Padding: the exchange answers Status.NO_ORDER and nothing changes."""
    return _make(time, Kind.NONE, EMPTY_PRICE, 0, NO_ID, NO_ID, NO_ID, NO_ACCOUNT)


def _make(time: Time | None, *fields: Array | int) -> Order:
    time = Time(jnp.int32(0), jnp.int32(0)) if time is None else time
    s, ns, *rest = jnp.broadcast_arrays(*(jnp.asarray(x, jnp.int32) for x in (time.s, time.ns, *fields)))
    return Order(Time(s, ns), *rest)


def from_columns(time_ns: np.ndarray, kind: np.ndarray, price: np.ndarray, volume: np.ndarray, order_id: np.ndarray,
                 cancel_side: np.ndarray, cancel_id: np.ndarray, account: np.ndarray) -> Order:
    """Whole columns (int64 [N], on the host) -> Order of int32 NumPy arrays [N].

    Raises InputError with the column, row and value where a number does not fit.
    """
    columns = {"kind": kind, "price": price, "volume": volume, "order_id": order_id, "cancel_side": cancel_side,
               "cancel_id": cancel_id, "account": account}
    narrow = {}
    for name, column in columns.items():
        column = np.asarray(column, np.int64)
        outside = np.flatnonzero((column < -(2**31)) | (column >= 2**31))
        if outside.size:
            row = int(outside[0])
            raise InputError(f"orders: column {name}, row {row}: expected a 32-bit integer, got {int(column[row])}")
        narrow[name] = column.astype(np.int32)
    return Order(time=times.from_ns(time_ns), **narrow)


def pad(orders: Order, length: int) -> Order:
    """Host Order arrays [N] -> [length], filled up with Kind.NONE at the last order's time; InputError if N is more."""
    count = len(np.asarray(orders.kind))
    if count > length:
        raise InputError(f"orders: cannot pad {count} orders to {length}")
    last = jax.tree.map(lambda x: np.asarray(x)[-1:] if count else np.zeros(1, np.int32), orders.time)
    fill = Order(last, *(np.full(1, x, np.int32) for x in (Kind.NONE, EMPTY_PRICE, 0, NO_ID, NO_ID, NO_ID, NO_ACCOUNT)))
    return jax.tree.map(lambda x, value: np.concatenate([x, np.repeat(value, length - count)]), orders, fill)


def side_of(kind: Kind) -> Side:
    """The side on which an order of this kind rests."""
    return Side(int(kind))
