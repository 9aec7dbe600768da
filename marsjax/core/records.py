"""Frozen records that flow through marsjax, and the named constants that stand in them.

Every record is a JAX pytree. The shapes below are those of one book; `vmap` puts batch axes in front. Integers are
int32 unless said otherwise. Prices are integers in 1e-4 of the currency, volumes are shares, times are exact
nanoseconds since midnight (`Time`), cash and sums of volumes are exact 64-bit integers (`Int64`).
"""

import dataclasses
import enum
from typing import TypeAlias

import jax
import numpy as np

Array: TypeAlias = jax.Array | np.ndarray

NO_ID = -1
"""Stands where there is no order: an empty slot, the absent side of a transaction, an id yet to be given."""
NO_ACCOUNT = -1
"""The account of orders that belong to no account."""
NO_PRICE = -1
"""A price that does not exist yet: `last_price` before the first trade, an undefined mid."""
EMPTY_PRICE = 0
"""Price of an empty slot or level; its volume is 0."""
EMPTY_SIDE_SPREAD = 1000
"""The reference's spread when a side is empty (reference: continuous book)."""
MAX_VOLUME = 2**31 - 1
"""Most shares of one order."""
MAX_PRICE = 2**30 - 1
"""Highest price of one order, so that bid + ask fits in an int32."""


class Kind(enum.IntEnum):
    """What an order asks for; SELL, BUY and CANCEL are numbered as in the order tokens."""

    SELL = 0
    BUY = 1
    CANCEL = 2
    NONE = 3
    """Padding: no order at all."""


class Side(enum.IntEnum):
    """Row of a book's arrays: asks (resting sells) and bids (resting buys); equals the kind of the resting orders."""

    ASK = 0
    BID = 1


class Condition(enum.IntEnum):
    """What a limit order asks for beside its limit; other than REST only where `MarketSpec.conditions` is set."""

    REST = 0
    """What does not trade at once rests: a plain limit order."""
    IMMEDIATE_OR_CANCEL = 1
    """What does not trade at once is dropped."""
    FILL_OR_KILL = 2
    """All of it trades at once, or it is refused."""
    POST_ONLY = 3
    """It rests, or is refused where something of it would trade at once."""
    MARKET = 4
    """No limit, the price is not read; what does not trade at once is dropped."""
    OWN_BEST = 5
    """The limit is the best price of its own side when it comes; the price is not read (Shenzhen: type U)."""
    OPPOSITE_BEST = 6
    """The limit is the best price of the other side when it comes; the price is not read (Shenzhen: type 1)."""


UNPRICED = (Condition.MARKET, Condition.OWN_BEST, Condition.OPPOSITE_BEST)
"""Conditions of orders whose own price is not read."""


class Status(enum.IntEnum):
    """What became of an order. Anything but ACCEPTED has changed nothing in the book."""

    ACCEPTED = 0
    NO_ORDER = 1
    """The slot held padding."""
    UNKNOWN_ID = 2
    """A cancel of an order that does not rest on the named side."""
    OVER_CANCEL = 3
    """A cancel of more than is left of its order."""
    BAD_VOLUME = 4
    """Zero or negative volume."""
    BAD_PRICE = 5
    """A limit price that is not a positive multiple of the tick, or above MAX_PRICE."""
    BAD_KIND = 6
    """Not a kind of order, or a cancel that names no side."""
    SIDE_FULL = 7
    """Something would be left to rest and the side has no free slot: raise `MarketSpec.capacity`."""
    DUPLICATE_ID = 8
    """An order with this id rests in the book."""
    CLOSED = 9
    """Outside the periods of the session."""
    BAD_ACCOUNT = 10
    """An account that the exchange does not keep (`MarketSpec.accounts`)."""
    BAD_TIME = 11
    """Earlier than the order before it."""
    AUCTION_DUE = 12
    """A call auction should have been held before this order: call `exchange.advance` first, or use `exchange.step`."""
    NOTHING_TO_CANCEL = 13
    """A cancel of many orders that hits none: no message is sent to the exchange (reference: background agent)."""
    BAD_CONDITION = 14
    """Not a `Condition`, or one other than REST in a market that takes none: set `MarketSpec.conditions`."""
    NOT_IN_AUCTION = 15
    """A condition about trading at once, in a call auction: nothing trades before its end."""
    NOT_FILLED = 16
    """FILL_OR_KILL, and less would trade at once than all of it."""
    WOULD_TRADE = 17
    """POST_ONLY, and something of it would trade at once."""
    NO_BEST_PRICE = 18
    """MARKET, OWN_BEST or OPPOSITE_BEST, and the side of the book that its price comes from is empty."""

    @property
    def is_refusal(self) -> bool:
        """Whether the exchange refused an order that was sent."""
        return self not in (Status.ACCEPTED, Status.NO_ORDER, Status.NOTHING_TO_CANCEL)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Int64:
    """An exact signed 64-bit integer, hi * 2**32 + lo, in two 32-bit words (no 64-bit mode needed)."""

    hi: Array
    """int32 [...]."""
    lo: Array
    """uint32 [...]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Time:
    """An exact time of day or duration of at least 0."""

    s: Array
    """int32 [...], whole seconds (since midnight)."""
    ns: Array
    """int32 [...], nanoseconds within the second, 0 to 999,999,999."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Order:
    """One message to the exchange: a limit order or a cancel."""

    time: Time
    """When it reaches the exchange."""
    kind: Array
    """[], a `Kind`."""
    price: Array
    """[], limit price in 1e-4 of the currency; not read for cancels."""
    volume: Array
    """[], shares to trade, or to take off the order that is cancelled."""
    order_id: Array
    """[], NO_ID lets the exchange give the next one."""
    cancel_side: Array
    """[], `Side` that the cancelled order rests on; not read for limit orders."""
    cancel_id: Array
    """[], id of the cancelled order; not read for limit orders."""
    account: Array
    """[], account that the order belongs to, or NO_ACCOUNT."""
    condition: Array
    """[], a `Condition`; not read for cancels."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Book:
    """Resting orders, each side sorted by priority (price, then arrival), empty slots at the end.

    C is `MarketSpec.capacity`; row 0 holds asks and row 1 bids (`Side`).
    """

    price: Array
    """[2, C], EMPTY_PRICE in empty slots."""
    volume: Array
    """[2, C] shares left, 0 in empty slots."""
    order_id: Array
    """[2, C], NO_ID in empty slots."""
    account: Array
    """[2, C], NO_ACCOUNT in empty slots."""
    last_price: Array
    """[], price of the last continuous transaction, NO_PRICE before the first."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trades:
    """The transactions of one order: its fills, or the one transaction of a cancel.

    K is `MarketSpec.trade_width`. A sweep of more than K resting orders is matched in full and its `count`, `volume`
    and `value` are exact; only the list is truncated (`is_truncated`).
    """

    kind: Array
    """[], BUY or SELL: that side was the aggressor; CANCEL; NONE when nothing happened."""
    side: Array
    """[], `Side` of the resting orders listed."""
    price: Array
    """[K], price of the resting order; EMPTY_PRICE past the count."""
    volume_each: Array
    """[K], shares traded, or taken off by a cancel; 0 past the count."""
    resting_id: Array
    """[K], id of the order that was hit or cancelled; NO_ID past the count."""
    resting_account: Array
    """[K], its account; NO_ACCOUNT past the count."""
    count: Array
    """[], number of transactions, listed or not."""
    is_truncated: Array
    """[] bool, count > K: the list holds only the first K."""
    volume: Int64
    """[], shares of all transactions, listed or not."""
    value: Int64
    """[], sum of price x volume over all of them (1e-4 of the currency)."""
    partial: Array
    """[], shares taken off the last resting order hit if something of it still rests, else 0."""
    rest: Array
    """[], shares of the order that came to rest."""
    slot: Array
    """[], slot of `side` that a cancel found, -1 otherwise."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class BookView:
    """What the market sees of a book: its L best levels a side (L is `MarketSpec.levels`), spread and mids."""

    ask_price: Array
    """[L], EMPTY_PRICE where there is no level."""
    ask_volume: Int64
    """[L], shares of all orders at the level."""
    bid_price: Array
    """[L]."""
    bid_volume: Int64
    """[L]."""
    last_price: Array
    """[], NO_PRICE before the first continuous trade."""
    spread: Array
    """[], best ask - best bid, EMPTY_SIDE_SPREAD when a side is empty."""
    mid_price: Array
    """[], a valid tick: bid + (spread // tick // 2) * tick; a lone side's best; else last_price; else NO_PRICE."""
    mid_price_twice: Array
    """[], ask + bid, twice the float mid, with the same fall-backs doubled; NO_PRICE when undefined."""
    has_mid: Array
    """[] bool, False where the mids are undefined."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Uncross:
    """The one transaction of a call auction, and what each order in the book before it traded."""

    price: Array
    """[], clearing price, NO_PRICE when nothing crossed."""
    volume: Int64
    """[], shares matched."""
    fill: Array
    """[2, C], shares of each order, in the slots of the book before."""
    limit: Array
    """[2, C], limit price of each order."""
    order_id: Array
    """[2, C]."""
    account: Array
    """[2, C]."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Ledgers:
    """The accounts of one market, N = `MarketSpec.accounts` of them and one more for orders without an account.

    Row -1 (the last) is that of NO_ACCOUNT, so the sums over all rows are conserved. Cash is in 1e-4 of the currency.
    """

    cash: Int64
    """[N + 1]."""
    holdings: Int64
    """[N + 1] shares."""
    reserved_cash: Int64
    """[N + 1], price x volume of resting bids; tradable cash is cash - reserved_cash."""
    reserved_shares: Int64
    """[N + 1], volume of resting asks; tradable holdings are holdings - reserved_shares."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Counters:
    """What happened in one market so far."""

    status: Array
    """[len(Status)], orders by what became of them."""
    submitted: Int64
    """[2], shares of accepted limit orders by `Side`."""
    cancelled: Int64
    """[2], shares by `Side` that were taken off, or dropped as they neither traded at once nor may rest."""
    traded: Int64
    """[], shares traded, auctions included."""
    value: Int64
    """[], sum of price x volume of all trades, auctions included."""
    fills: Array
    """[], transactions of continuous trading."""
    truncated_lists: Array
    """[], orders whose list of transactions was truncated: raise `MarketSpec.trade_width` to see them whole."""
    most_resting: Array
    """[2], most orders that rested at once, by `Side`: the capacity used."""
    auctions: Array
    """[], call auctions held."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Market:
    """The whole state of one symbol's exchange."""

    book: Book
    ledgers: Ledgers
    counters: Counters
    time: Time
    """Of the last order or call auction."""
    next_id: Array
    """[], id that the next order without one will get."""
    previous_close: Array
    """[], last resort of the auctions' tie-break, NO_PRICE if not known; by Shenzhen's rule the price of an auction
    takes its place."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Conservation:
    """What a market has lost or made; every number is 0 in a correct one."""

    shares: Int64
    """[2], by `Side`: submitted - traded - cancelled - resting."""
    cash: Int64
    """[], sum over all accounts."""
    holdings: Int64
    """[], sum over all accounts."""
    reserved_cash: Int64
    """[], reserved by all accounts - value of resting bids."""
    reserved_shares: Int64
    """[], reserved by all accounts - volume of resting asks."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Report:
    """The exchange's answer to one order."""

    status: Array
    """[], a `Status`."""
    order_id: Array
    """[], id of the order, NO_ID if it was not accepted."""
    trades: Trades
    price: Array
    """[], its limit price: as sent, or that of its `Condition` if it was accepted (MARKET: the worst that it traded
    at)."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Token:
    """What the model sees of one order: its class, split into bins, and its context (reference: order tokens).

    `encoding.to_array` and `encoding.from_array` turn it into the reference's 15 columns, and those of the
    signals where a model has them, and back.
    """

    kind: Array
    """[...], SELL, BUY or CANCEL as in `Kind`."""
    price_bin: Array
    """[...], bin of price less mid before the order."""
    volume_bin: Array
    """[...]."""
    interval_bin: Array
    """[...], bin of the time since the order before."""
    volume_ratio: Array
    """[...], 0 to 9: share of the order in what stands at its price (feature 1)."""
    trade_ratio: Array
    """[...], 0 to 9: share of the order that traded (feature 2)."""
    change: Array
    """[...], mid over open less 1, in 1e-4, -2000 to 2000 (feature 3)."""
    seconds: Array
    """[...], whole seconds since the first order, the lunch break left out (feature 4)."""
    levels: Array
    """[..., 10], lob-volume bin + 1 of the ticks around the mid, 0 where nothing rests (features 5 to 14)."""
    signals: Array
    """[..., 7], what the market looks like (`tokens.signals`): not the reference's, read by models with
    `TokenSpec.signals`."""
