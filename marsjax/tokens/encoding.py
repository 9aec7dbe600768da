"""Orders and book views <-> the tokens that the order model reads (reference: order tokens).

`encode` makes the token of one order inside jit, in integers that give the reference's float64 results exactly;
`encode_stream` those of a whole replayed stretch. This is the only module that knows how a token's number is built
from its type and bins (`pack`, `unpack`) and what the 15 columns of the reference are (`to_array`, `from_array`).
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import (
    NO_ACCOUNT,
    NO_PRICE,
    Array,
    BookView,
    Int64,
    Kind,
    Order,
    Report,
    Status,
    Time,
    Token,
    Trades,
)
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.core.times import SECOND_NS
from marsjax.tokens import bins, signals
from marsjax.tokens.bins import Converter, DrawTable, IndexTable, TimeIndexTable

COLUMNS = 15
"""Of the reference's feature array: token, two ratios, change, seconds, ten levels. Signals come after."""
LEVELS = 10
"""Ticks around the mid in a token."""
CHANGE_LIMIT = 2000
"""Of the change since the open, 1e-4."""
SECONDS_LIMIT = 2881 * 5 - 1
"""Last second of trading that the model can tell from the one before; later ones are clipped and counted."""
_LUNCH_ENDS_NS, _LUNCH_S = 13 * 3600 * SECOND_NS, 5400
_EARLY_TENTHS = (1, 2, 4, 8)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenTables:
    """The bins as integers, and the float64 quirk of the change as a table; NumPy arrays, made by `tables`."""

    price: IndexTable
    volume: IndexTable
    interval: TimeIndexTable
    level: IndexTable
    whole_change: Array
    """int32 [4001], what the reference makes of a change of exactly k - 2000 times 1e-4."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DrawTables:
    """What a sampled token's values are drawn from; made by `draw_tables`."""

    price: DrawTable[Array]
    volume: DrawTable[Array]
    interval: DrawTable[Time]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TokenState:
    """What the token of the next order depends on, of one market; all scalars."""

    started: Array
    """bool, an order of continuous trading was seen."""
    first: Time
    """Of that order."""
    previous: Time
    """Of the last order."""
    open_price: Array
    """Price of the first continuous trade, NO_PRICE before it."""
    last_is_cancel: Array
    """bool, the last order was a cancel, described by the fields below."""
    cancel_price: Array
    cancel_account: Array
    cancel_volume: Int64
    """Shares of all cancels merged into it."""
    cancel_resting: Int64
    """Shares at its price before the first of them."""
    price_bin: Array
    """Of the last order."""
    interval_bin: Array
    count: Array
    """Tokens made so far, merged ones once."""
    clipped: Array
    """Tokens whose seconds were out of range."""
    trend: signals.Trend
    """After the last order."""
    trend_before: signals.Trend
    """Before it, or before the first of the cancels merged into it: several that are one token count once."""


class Encoded(NamedTuple):
    """The token of one order."""

    token: Token
    is_new: Array
    """bool [], the token follows the last one."""
    replaces: Array
    """bool [], the token stands in for the last one (a merged cancel). Neither: the order makes no token."""


class SampledOrder(NamedTuple):
    """An order that a sampled token stands for, before it is sent."""

    kind: Array
    """int32 [...], a `Kind`."""
    offset: Array
    """int32 [...], price less mid, 1e-4 of the currency."""
    volume: Array
    """int32 [...] shares."""
    wait: Time
    """[...], from the decision to the submission."""


def tables(spec: TokenSpec, converters: Mapping[str, Converter]) -> TokenTables:
    """The tables to encode with; InputError where a converter is missing or has another number of bins than `spec`."""
    _check_bins(converters, {"price-level": spec.price_levels, "order-volume": spec.volumes,
                             "order-interval": spec.intervals, "lob-volume": None})
    thousands = np.arange(-CHANGE_LIMIT, CHANGE_LIMIT + 1)
    ratio = (10_000 + thousands) / 10_000
    change = np.trunc(np.clip(ratio - 1, -0.2, 0.2) * 10_000).astype(np.int32)
    return TokenTables(
        price=bins.index_table(converters["price-level"]), volume=bins.index_table(converters["order-volume"]),
        interval=bins.time_index_table(converters["order-interval"]),
        level=bins.index_table(converters["lob-volume"]), whole_change=change)


def draw_tables(spec: TokenSpec, converters: Mapping[str, Converter]) -> DrawTables:
    """The tables to draw with (volumes from pred-order-volume, as the reference does); InputError as `tables`."""
    _check_bins(converters, {"price-level": spec.price_levels, "pred-order-volume": spec.volumes,
                             "order-interval": spec.intervals})
    return DrawTables(bins.draw_table(converters["price-level"]), bins.draw_table(converters["pred-order-volume"]),
                      bins.time_draw_table(converters["order-interval"]))


def _check_bins(converters: Mapping[str, Converter], expected: dict[str, int | None]) -> None:
    for name, count in expected.items():
        if name not in converters:
            raise InputError(f"converters: expected {name}, found {', '.join(sorted(converters)) or 'none'}")
        if count is not None and converters[name].num_bins != count:
            raise InputError(f"converter {name}: expected {count} bins, got {converters[name].num_bins}")


def pack(spec: TokenSpec, kind: Array, price_bin: Array, volume_bin: Array, interval_bin: Array) -> Array:
    """The token's number, int32 [...], from its type and bins (any of the same shape, in range)."""
    return ((kind * spec.price_levels + price_bin) * spec.volumes + volume_bin) * spec.intervals + interval_bin


def unpack(spec: TokenSpec, number: Array) -> tuple[Array, Array, Array, Array]:
    """Type, price bin, volume bin and interval bin, int32 [...] each, of a token's number in [0, classes)."""
    rest, interval_bin = number // spec.intervals, number % spec.intervals
    rest, volume_bin = rest // spec.volumes, rest % spec.volumes
    return rest // spec.price_levels, rest % spec.price_levels, volume_bin, interval_bin


def no_tokens(shape: tuple[int, ...]) -> Token:
    """Tokens of zeros, [*shape]: room for others."""
    columns = {field.name: jnp.zeros(shape, jnp.int32) for field in dataclasses.fields(Token)}
    wide = {"levels": LEVELS, "signals": signals.COLUMNS}
    return Token(**{**columns, **{name: jnp.zeros((*shape, count), jnp.int32) for name, count in wide.items()}})


def columns(spec: TokenSpec) -> int:
    """Of a feature array: the reference's, and the signals where the spec has them."""
    return COLUMNS + signals.COLUMNS * spec.signals


def to_array(spec: TokenSpec, token: Token) -> jax.Array:
    """Tokens [...] -> the reference's features, int32 [..., 15], with signals [..., 22] where the spec has them."""
    number = pack(spec, token.kind, token.price_bin, token.volume_bin, token.interval_bin)
    head = (number, token.volume_ratio, token.trade_ratio, token.change, token.seconds)
    parts = [jnp.stack([jnp.asarray(x, jnp.int32) for x in head], axis=-1), token.levels]
    return jnp.concatenate([*parts, token.signals] if spec.signals else parts, axis=-1)


def from_array(spec: TokenSpec, features: Array) -> Token:
    """Features, int32 [..., `columns`] -> tokens [...]; values are taken as they are (see `check_array`)."""
    number, volume_ratio, trade_ratio, change, seconds = (features[..., i] for i in range(COLUMNS - LEVELS))
    levels, more = features[..., COLUMNS - LEVELS:COLUMNS], features[..., COLUMNS:]
    if not spec.signals:
        more = jnp.zeros((*features.shape[:-1], signals.COLUMNS), jnp.int32)
    return Token(*unpack(spec, number), volume_ratio, trade_ratio, change, seconds, levels, more)


def check_array(spec: TokenSpec, features: np.ndarray, level_bins: int) -> np.ndarray:
    """Features from outside, [..., C] or [..., T * C], as int32 [..., T, C]; C is `columns`, 15 for the reference.

    Raises InputError with the place and the value where the shape, the type or a number is out of range.
    """
    features, count = np.asarray(features), columns(spec)
    if features.dtype.kind not in "iu" or not features.ndim or features.shape[-1] % count:
        raise InputError(f"features: expected integers [..., {count}], got {features.dtype} {features.shape}")
    if features.shape[-1] != count:
        features = features.reshape(*features.shape[:-1], -1, count)
    least, most = np.array(signals.LIMITS).T
    low = np.concatenate([[0, 0, 0, -CHANGE_LIMIT, 0], [0] * LEVELS, least])[:count]
    high = np.concatenate([[spec.classes - 1, 10, 10, CHANGE_LIMIT, SECONDS_LIMIT], [level_bins] * LEVELS,
                           most])[:count]
    rows = features.reshape(-1, count)
    # By column, which takes a tenth of the time of a comparison of every number.
    if len(rows) and ((rows.min(axis=0) < low) | (rows.max(axis=0) > high)).any():
        place = tuple(int(i) for i in np.argwhere((features < low) | (features > high))[0])
        raise InputError(f"features{list(place)}: expected {low[place[-1]]} to {high[place[-1]]}, "
                         f"got {features[place]}")
    return features.astype(np.int32, copy=False)


def draw_plan(spec: TokenSpec, draws: DrawTables, number: Array, bits: Array) -> SampledOrder:
    """Draws the values of a sampled token.

    Args:
      spec: bins.
      draws: the tables.
      number: int32 [...], the token.
      bits: uint32 [..., 3], a random word each for price, volume and interval; zeros draw each bin's first value.
    """
    kind, price_bin, volume_bin, interval_bin = unpack(spec, number)
    return SampledOrder(kind, offset=bins.draw(draws.price, price_bin, bits[..., 0]),
                volume=bins.draw(draws.volume, volume_bin, bits[..., 1]),
                wait=bins.draw(draws.interval, interval_bin, bits[..., 2]))


def start() -> TokenState:
    """The state before the first order of continuous trading. Every array has a buffer of its own."""
    none, no = jnp.zeros((), jnp.int32), jnp.zeros((), bool)
    zero, time = int64.of_int32(none), Time(none, none)
    return jax.tree.map(jnp.array, TokenState(
        started=no, first=time, previous=time, open_price=none + NO_PRICE, last_is_cancel=no,
        cancel_price=none, cancel_account=none + NO_ACCOUNT, cancel_volume=zero, cancel_resting=zero, price_bin=none,
        interval_bin=none, count=none, clipped=none, trend=signals.start(), trend_before=signals.start()))


def encode(market: MarketSpec, table: TokenTables, state: TokenState, order: Order, trades: Trades, before: BookView,
           after: BookView, counts: Array | bool) -> tuple[TokenState, Encoded]:
    """The token of one order; scalars, `vmap` over markets.

    Args:
      market: its tick.
      table: the bins.
      state: of the market, before the order.
      order: as sent.
      trades: what it did.
      before: view before it.
      after: view after it.
      counts: bool []: accepted, in continuous trading; otherwise nothing happens and there is no token.

    Returns:
      The state after, and the token. The first order makes none. A cancel at the time and price and of the account of
      the cancel just before it is merged with that one: its token replaces the last.
    """
    is_cancel = order.kind == Kind.CANCEL
    price = jnp.where(is_cancel, trades.price[0], order.price)
    merges = (is_cancel & state.last_is_cancel & times.equal(order.time, state.previous)
              & (price == state.cancel_price) & (order.account == state.cancel_account))
    volume = int64.add(int64.of_int32(order.volume), int64.only(merges, state.cancel_volume))
    resting = int64.select(merges, state.cancel_resting, _resting_at(before, price))
    has_mid_before = before.has_mid
    offset = jnp.where(has_mid_before, price - before.mid_price, 0)
    price_bin = jnp.where(merges, state.price_bin, bins.lookup(table.price, offset))
    interval = times.subtract(order.time, times.select(state.started, state.previous, order.time))
    interval_bin = jnp.where(merges, state.interval_bin, bins.lookup_time(table.interval, interval))

    is_trade = (trades.count > 0) & ~is_cancel
    open_price = jnp.where((state.open_price == NO_PRICE) & is_trade, trades.price[0], state.open_price)
    first = times.select(state.started, state.first, order.time)
    seconds = times.subtract(order.time, first).s
    seconds -= jnp.where(times.before(order.time, times.of_ns(_LUNCH_ENDS_NS)), 0, _LUNCH_S)
    in_range = jnp.clip(seconds, 0, SECONDS_LIMIT)
    traded = int64.select(is_cancel, volume, trades.volume)
    trend_before = jax.tree.map(lambda x, y: jnp.where(merges, x, y), state.trend_before, state.trend)
    trend, shown = signals.update(market, trend_before, after)
    token = Token(
        kind=order.kind, price_bin=price_bin, volume_bin=bins.lookup_int64(table.volume, volume),
        interval_bin=interval_bin, volume_ratio=_tenths(volume, int64.add(volume, resting)),
        trade_ratio=_tenths(traded, volume), change=_change(table, after, open_price), seconds=in_range,
        levels=_levels(market, table, after), signals=shown)

    is_new = counts & state.started & ~merges
    replaces = counts & merges & (state.count > 0)
    new = TokenState(
        started=state.started | counts, first=first, previous=order.time, open_price=open_price,
        last_is_cancel=is_cancel, cancel_price=price, cancel_account=order.account, cancel_volume=volume,
        cancel_resting=resting, price_bin=price_bin, interval_bin=interval_bin,
        count=state.count + is_new.astype(jnp.int32),
        clipped=state.clipped + (is_new & (seconds != in_range)).astype(jnp.int32), trend=trend,
        trend_before=trend_before)
    kept = jax.tree.map(lambda x, y: jnp.where(counts, x, y), new, state)
    return kept, Encoded(token, is_new, replaces)


def encode_stream(market: MarketSpec, table: TokenTables, state: TokenState, orders: Order, reports: Report,
                  views: BookView, before: BookView, continuous: Array) -> tuple[TokenState, Encoded]:
    """The tokens of a replayed stretch of one market.

    Args:
      market: its tick.
      table: the bins.
      state: before the stretch.
      orders: [N].
      reports: [N, ...], of a replay.
      views: [N, ...], after each order.
      before: view before the first order.
      continuous: bool [N], which orders came in continuous trading (`sessions.phase_at`).
    """
    earlier = jax.tree.map(lambda first, later: jnp.concatenate([jnp.asarray(first)[None], later[:-1]]), before, views)
    counts = (reports.status == Status.ACCEPTED) & continuous

    def one(state: TokenState, x: tuple[Order, Array, Trades, BookView, BookView, Array]) -> tuple[TokenState, Encoded]:
        order, price, trades, before, after, counts = x
        order = dataclasses.replace(order, price=price)
        return encode(market, table, state, order, trades, before, after, counts)

    return jax.lax.scan(one, state, (orders, reports.price, reports.trades, earlier, views, counts))


def collect(encoded: Encoded) -> tuple[Token, np.ndarray]:
    """Encoded orders [N] on the host -> their tokens [M], merged ones once, and int64 [N], tokens after each order.

    Raises InputError if the first token replaces one that lies before the stretch.
    """
    is_new, replaces = np.asarray(encoded.is_new), np.asarray(encoded.replaces)
    after = np.cumsum(is_new)
    if (replaces & (after == 0)).any():
        raise InputError("tokens: the first order of the stretch is merged with one before it")
    made = np.flatnonzero(is_new | replaces)
    is_last = np.diff(after[made], append=len(is_new) + 1) > 0
    return jax.tree.map(lambda x: np.asarray(x)[made[is_last]], encoded.token), after


def _resting_at(view: BookView, price: Array) -> Int64:
    """Shares at a price in a view, on either side; of an uncrossed book at most one level has it."""
    def of(levels: Array, volume: Array) -> jax.Array:
        return jnp.sum(jnp.where(levels == price, volume, 0), axis=-1, dtype=volume.dtype)

    return Int64(of(view.ask_price, view.ask_volume.hi) + of(view.bid_price, view.bid_volume.hi),
                of(view.ask_price, view.ask_volume.lo) + of(view.bid_price, view.bid_volume.lo))


def _tenths(part: Int64, whole: Int64) -> jax.Array:
    """floor(part / whole x 0.99 x 10) as float64 gives it: a ratio of exactly 10 k / 99 falls short for some k."""
    left = int64.scale(part, 99)
    result = jnp.zeros(jnp.shape(part.hi), jnp.int32)
    for k in range(1, LEVELS):
        right = int64.scale(whole, 10 * k)
        reached = ~int64.less(left, right)
        if k in _EARLY_TENTHS:
            reached &= ~int64.equal(left, right)
        result += reached.astype(jnp.int32)
    return result


def _change(table: TokenTables, view: BookView, open_price: Array) -> Array:
    """int(clip(mid / open - 1, -0.2, 0.2) x 10000), toward zero, as float64 gives it; 0 before there is an open."""
    known = (open_price > 0) & view.has_mid
    base = jnp.where(known, open_price, 1)
    move = jnp.where(known, view.mid_price - open_price, 0)
    size = jnp.abs(move)
    scaled = int64.multiply(size, 10_000)
    # A float32 quotient is less than one off; the exact one is the largest k with k x open <= size x 10000.
    guess = jnp.minimum(size.astype(jnp.float32) / base.astype(jnp.float32) * 10_000, CHANGE_LIMIT).astype(jnp.int32)
    whole = jnp.maximum(guess - 1, 0)
    for step in (0, 1):
        whole += ~int64.less(scaled, int64.multiply(jnp.maximum(guess + step, 1), base)) & (guess + step > 0)
    whole = jnp.minimum(whole, CHANGE_LIMIT)
    signed = jnp.where(move < 0, -whole, whole)
    is_exact = int64.equal(scaled, int64.multiply(whole, base))
    return jnp.where(is_exact, jnp.asarray(table.whole_change)[signed + CHANGE_LIMIT], signed)


def _levels(market: MarketSpec, table: TokenTables, view: BookView) -> jax.Array:
    """int32 [10]: the level bin + 1 at each of ten ticks, five below the mid to four above it; 0 where none is."""
    price = jnp.concatenate([view.ask_price, view.bid_price])
    volume = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), view.ask_volume, view.bid_volume)
    cell = (price - view.mid_price) // market.tick + LEVELS // 2
    shown = jnp.where((price > 0) & view.has_mid, bins.lookup_int64(table.level, volume) + 1, 0)
    at = cell[None, :] == jnp.arange(LEVELS, dtype=jnp.int32)[:, None]
    return jnp.max(jnp.where(at, shown[None, :], 0), axis=-1)
