"""Makes `Order` records: by hand, as padding, and from whole columns on the host.

Numbers of Python and NumPy are refused where an int32 cannot hold them as they are: fractions are not cut.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, NO_ACCOUNT, NO_ID, Array, Condition, Kind, Order, Side, Time

_COLUMNS = ("kind", "price", "volume", "order_id", "cancel_side", "cancel_id", "account", "condition")
_NOTHING = (Kind.NONE, EMPTY_PRICE, 0, NO_ID, NO_ID, NO_ID, NO_ACCOUNT, Condition.REST)


def limit_order(kind: Array | int, price: Array | int, volume: Array | int, order_id: Array | int = NO_ID,
                account: Array | int = NO_ACCOUNT, time: Time | None = None,
                condition: Array | int = Condition.REST) -> Order:
    """A limit order of Kind.BUY or Kind.SELL; arguments broadcast to int32 arrays of one shape.

    InputError, as from the other makers, for an argument that is no whole number of 32 bits.

    Examples:
      >>> buy = limit_order(Kind.BUY, price=100_000, volume=[200, 300])
      >>> buy.volume.tolist(), buy.price.tolist()
      ([200, 300], [100000, 100000])
    """
    return _make(time, kind, price, volume, order_id, NO_ID, NO_ID, account, condition)


def market_order(kind: Array | int, volume: Array | int, order_id: Array | int = NO_ID,
                 account: Array | int = NO_ACCOUNT, time: Time | None = None) -> Order:
    """An order that trades at any price, and drops what does not trade at once; needs `MarketSpec.conditions`.

    Examples:
      >>> Condition(int(market_order(Kind.SELL, volume=100).condition)).name
      'MARKET'
    """
    return _make(time, kind, EMPTY_PRICE, volume, order_id, NO_ID, NO_ID, account, Condition.MARKET)


def cancel_order(side: Array | int, cancel_id: Array | int, volume: Array | int, order_id: Array | int = NO_ID,
                 account: Array | int = NO_ACCOUNT, time: Time | None = None) -> Order:
    """A cancel of `volume` shares of the order `cancel_id` that rests on `side`; arguments broadcast.

    Of less than is left it is a reduction: the order keeps its place in the queue.

    Examples:
      >>> cancel = cancel_order(Side.BID, cancel_id=7, volume=100)
      >>> Kind(int(cancel.kind)).name, int(cancel.cancel_id)
      ('CANCEL', 7)
    """
    return _make(time, Kind.CANCEL, EMPTY_PRICE, volume, order_id, side, cancel_id, account, Condition.REST)


def change_order(side: Array | int, old_id: Array | int, left: Array | int, new: Order, keeps_place: Array | bool
                 ) -> Order:
    """A resting order given another size or price, as two messages [..., 2] to be sent one after the other.

    A venue's smaller size at the same price keeps the place in the queue: one cancel of the difference, then
    Kind.NONE. Any other change loses it: a cancel of all that is left, then the new order.

    Args:
      side: int32 [...], `Side` that the old order rests on.
      old_id: int32 [...], its id.
      left: int32 [...], shares of it that still rest.
      new: [...], the order as it shall be; its volume is what rests if nothing trades. Its id must be NO_ID or another
        than `old_id`, unless `keeps_place`.
      keeps_place: bool [...], whether the venue leaves it where it stands; its new size must be below `left`.
    """
    keeps = jnp.broadcast_to(jnp.asarray(keeps_place), jnp.shape(new.kind))
    less = jnp.asarray(left, jnp.int32) - jnp.where(keeps, new.volume, 0)
    first = cancel_order(side, old_id, less, account=new.account, time=new.time)
    nothing = no_order(new.time)
    second = jax.tree.map(lambda none, x: jnp.where(keeps, none, x), nothing, new)
    return jax.tree.map(lambda a, b: jnp.stack([a, b], axis=-1), first, second)


def no_order(time: Time | None = None) -> Order:
    """Padding: the exchange answers Status.NO_ORDER and nothing changes.

    Examples:
      >>> Kind(int(no_order().kind)).name
      'NONE'
    """
    return _make(time, *_NOTHING)


def _make(time: Time | None, *fields: Array | int) -> Order:
    time = Time(jnp.int32(0), jnp.int32(0)) if time is None else time
    whole = (_whole(x, name) for name, x in zip(_COLUMNS, fields, strict=True))
    s, ns, *rest = jnp.broadcast_arrays(*(jnp.asarray(x, jnp.int32) for x in (time.s, time.ns, *whole)))
    return Order(Time(s, ns), *rest)


def _whole(value: Array | int, name: str) -> Array | int:
    """The argument itself; InputError unless it is made of whole numbers of 32 bits, as far as is known yet."""
    if isinstance(value, jax.core.Tracer):
        if not jnp.issubdtype(value.dtype, jnp.integer):
            raise InputError(f"order: {name}: expected whole numbers, got {value.dtype} inside a compiled function: "
                             "round them and give them as int32")
        return value
    if isinstance(value, jax.Array | np.ndarray | np.generic) and value.dtype == np.int32:
        return value
    return _narrow(np.asarray(value), lambda place: f"order: {name}{list(place) if place else ''}")


def from_columns(time_ns: np.ndarray, *columns: np.ndarray, **named: np.ndarray) -> Order:
    """Whole columns [N] on the host -> Order of int32 NumPy arrays [N].

    Args:
      time_ns: int64 [N], nanoseconds since midnight.
      *columns: whole numbers [N], by the order of the fields of `Order`: kind, price, volume, order_id, cancel_side,
        cancel_id, account, condition.
      **named: the rest of them by name. `condition` may be left out: it is REST.

    Raises InputError with the column, row and value where a number is no whole one of 32 bits.

    Examples:
      >>> import numpy as np
      >>> minus = np.full(2, -1)
      >>> seconds, kinds = np.array([34_200, 34_201]), np.array([Kind.BUY, Kind.SELL])
      >>> sent = from_columns(seconds * 10**9, kinds, np.array([100_000, 100_100]), np.array([100, 200]),
      ...                     order_id=minus, cancel_side=minus, cancel_id=minus, account=np.zeros(2, int))
      >>> sent.time.s.tolist(), sent.price.tolist()
      ([34200, 34201], [100000, 100100])
    """
    given = dict(zip(_COLUMNS, columns, strict=False)) | named
    given.setdefault("condition", np.full(np.shape(time_ns), Condition.REST, np.int32))
    odd = sorted(set(given) ^ set(_COLUMNS))
    if odd or len(columns) > len(_COLUMNS) or set(named) & set(_COLUMNS[:len(columns)]):
        raise InputError(f"orders: expected each of the columns {', '.join(_COLUMNS)} once, got {len(columns)} by "
                         f"place and {', '.join(named) or 'none'} by name")
    narrow = {name: _narrow(np.asarray(given[name]), lambda place, name=name: f"orders: column {name}, row {place[0]}")
              for name in _COLUMNS}
    return Order(time=times.from_ns(time_ns), **narrow)


def _narrow(values: np.ndarray, where: Any) -> np.ndarray:
    """Numbers as int32; InputError at the first that is no whole one of 32 bits, at `where(its place)`."""
    if values.dtype.kind in "iu":
        good = (values >= -(2**31)) & (values < 2**31)
    elif values.dtype.kind == "f":
        good = (values >= -(2.0**31)) & (values < 2.0**31) & (values == np.rint(values))
    elif values.dtype.kind == "O":
        good = np.vectorize(_is_whole, otypes=[bool])(values) if values.size else np.ones(values.shape, bool)
    else:
        good = np.zeros(values.shape, bool)
    if not good.all():
        place = tuple(int(i) for i in np.argwhere(~good)[0])
        raise InputError(f"{where(place)}: expected a 32-bit integer, got {_shown(values[place])}")
    return values.astype(np.int32)


def _is_whole(value: object) -> bool:
    """Of what pandas and Python hold: a number, no bool, without a fraction, of 32 bits."""
    if isinstance(value, int | np.integer) and not isinstance(value, bool):
        return -(2**31) <= int(value) < 2**31
    return isinstance(value, float | np.floating) and float(value).is_integer() and abs(float(value)) < 2**31


def _shown(value: Any) -> str:
    text = repr(value.item() if isinstance(value, np.generic) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def pad(orders: Order, length: int) -> Order:
    """Host Order arrays [N] -> [length], filled up with Kind.NONE at the last order's time; InputError if N is more.

    Examples:
      >>> from marsjax import testing
      >>> padded = pad(testing.random_orders(36_000 * 10**9, count=3), 5)
      >>> padded.kind.shape, int((padded.kind == Kind.NONE).sum())
      ((5,), 2)
    """
    count = len(np.asarray(orders.kind))
    if count > length:
        raise InputError(f"orders: cannot pad {count} orders to {length}")
    last = jax.tree.map(lambda x: np.asarray(x)[-1:] if count else np.zeros(1, np.int32), orders.time)
    fill = Order(last, *(np.full(1, x, np.int32) for x in _NOTHING))
    return jax.tree.map(lambda x, value: np.concatenate([x, np.repeat(value, length - count)]), orders, fill)


def side_of(kind: Kind) -> Side:
    """The side on which an order of this kind rests.

    Examples:
      >>> side_of(Kind.SELL).name
      'ASK'
    """
    return Side(int(kind))
