"""Accounts of one market: cash, holdings and what resting orders reserve, exact past 2**31 (reference: accounts)."""

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.kernels import chosen
from marsjax.core.records import Array, Book, Int64, Kind, Ledgers, Order, Side, Trades, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.market.slots import if_needed


def empty(spec: MarketSpec) -> Ledgers:
    """Accounts with nothing in them."""
    nothing = int64.of_int32(jnp.zeros(spec.accounts + 1, jnp.int32))
    return Ledgers(nothing, nothing, nothing, nothing)


def hit(spec: MarketSpec, before: Book, trades: Trades) -> tuple[Int64, Int64]:
    """Shares, and price x shares, that resting orders lost by one order's transactions, by their account, [N + 1].

    `before` is the book before the order: fills past the end of a truncated list count too, they are a prefix of the
    side.
    """
    def by_list(before: Book, trades: Trades) -> tuple[Int64, Int64]:
        return _by_account(spec, trades.price, trades.volume_each, trades.resting_account)

    def by_book(before: Book, trades: Trades) -> tuple[Int64, Int64]:
        return _by_account(spec, *_all_fills(spec, before, trades))

    if spec.trade_width < spec.capacity:
        # The short list is all there is, unless it was truncated.
        return if_needed(chosen(spec.kernels), trades.is_truncated, by_book, by_list, before, trades)
    return by_list(before, trades)


def hit_by(spec: MarketSpec, trades: Trades, words: Array | None) -> tuple[Int64, Int64]:
    """`hit` where the sums are known if the list is truncated: high and low `words` of both, int32 [N + 1, 4]."""
    listed = _by_account(spec, trades.price, trades.volume_each, trades.resting_account)
    if words is None:
        return listed
    low = jnp.asarray(words).astype(jnp.uint32)
    shares, value = (int64.select(trades.is_truncated, Int64(words[:, i], low[:, i + 1]), x)
                     for i, x in zip((0, 2), listed, strict=True))
    return shares, value


def settle(spec: MarketSpec, ledgers: Ledgers, hit: tuple[Int64, Int64], order: Order, trades: Trades) -> Ledgers:
    """Books the transactions of one order.

    Args:
      spec: sizes.
      ledgers: the accounts before.
      hit: what resting orders lost by it (`hit`).
      order: the order, which was accepted if `trades` says that anything happened or rested.
      trades: its transactions.
    """
    is_cancel = order.kind == Kind.CANCEL
    bids = trades.side == Side.BID
    shares, value = hit

    # The resting side gives back what it had reserved; if it traded, it pays or delivers it.
    zero = int64.of_int32(jnp.zeros(spec.accounts + 1, jnp.int32))
    after = _release(ledgers, int64.select(bids, value, zero), int64.select(bids, zero, shares))
    after = _trade(after, int64.select(is_cancel, zero, shares), int64.select(is_cancel, zero, value), buys=bids)

    # The aggressor trades with all of them, and reserves what rests.
    own = _is_account(spec, order.account[None])[:, 0]
    trades_own = own & ~is_cancel
    after = _trade(after, int64.only(trades_own, trades.volume), int64.only(trades_own, trades.value), buys=~bids)
    rest_value = int64.only(own & (order.kind == Kind.BUY), int64.multiply(order.price, trades.rest))
    rest_shares = int64.only(own & (order.kind == Kind.SELL), int64.of_int32(trades.rest))
    return _release(after, int64.negate(rest_value), int64.negate(rest_shares))


def taken(spec: MarketSpec, price: Array, take: Array, account: Array) -> tuple[Int64, Int64]:
    """Shares, and price x shares, that cancels take off orders [C] of a side, by account, [N + 1]."""
    return _by_account(spec, price, take, account)


def give_back(ledgers: Ledgers, is_bid: Array, taken: tuple[Int64, Int64]) -> Ledgers:
    """Gives back what cancelled orders of one side had reserved: shares, and price x shares, by account."""
    shares, value = taken
    return _release(ledgers, int64.only(is_bid, value), int64.only(jnp.logical_not(is_bid), shares))


def settle_auction(spec: MarketSpec, ledgers: Ledgers, uncross: Uncross) -> Ledgers:
    """Books a call auction: all trade at its price, and give back what they had reserved at their limits."""
    after = ledgers
    zero = int64.of_int32(jnp.zeros(spec.accounts + 1, jnp.int32))
    price = jnp.maximum(uncross.price, 0)
    for side in Side:
        fill, account = uncross.fill[side], uncross.account[side]
        shares, reserved = _by_account(spec, uncross.limit[side], fill, account)
        _, value = _by_account(spec, price, fill, account)
        is_bid = side == Side.BID
        after = _release(after, reserved if is_bid else zero, zero if is_bid else shares)
        after = _trade(after, shares, value, buys=jnp.asarray(is_bid))
    return after


def _all_fills(spec: MarketSpec, before: Book, trades: Trades) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Price, shares filled and account of every slot [C] of the opposite side."""
    price, volume, account = (jnp.where(trades.side == Side.BID, x[Side.BID], x[Side.ASK])
                            for x in (before.price, before.volume, before.account))
    slot = jnp.arange(spec.capacity, dtype=jnp.int32)
    whole = jnp.where(trades.partial > 0, trades.count - 1, trades.count)
    return price, jnp.where(slot < whole, volume, jnp.where(slot == whole, trades.partial, 0)), account


def _by_account(spec: MarketSpec, price: Array, volume: Array, account: Array) -> tuple[Int64, Int64]:
    """Shares and price x shares of each account, [N + 1], from orders [C]."""
    mine = jnp.where(_is_account(spec, account), volume, 0)
    return int64.total(mine), int64.total_product(jnp.broadcast_to(price, mine.shape), mine)


def _is_account(spec: MarketSpec, account: Array) -> jax.Array:
    """bool [N + 1, C]: which account each order belongs to; NO_ACCOUNT is the last."""
    account = jnp.where((account >= 0) & (account < spec.accounts), account, spec.accounts)
    return account[None, :] == jnp.arange(spec.accounts + 1, dtype=jnp.int32)[:, None]


def _trade(ledgers: Ledgers, shares: Int64, value: Int64, buys: jax.Array) -> Ledgers:
    """Buyers pay the value and get the shares, sellers the other way round; [N + 1] each."""
    paid = int64.select(buys, int64.negate(value), value)
    got = int64.select(buys, shares, int64.negate(shares))
    return Ledgers(int64.add(ledgers.cash, paid), int64.add(ledgers.holdings, got),
                   ledgers.reserved_cash, ledgers.reserved_shares)


def _release(ledgers: Ledgers, cash: Int64, shares: Int64) -> Ledgers:
    """Takes cash and shares, [N + 1] each, off what the accounts have reserved."""
    return Ledgers(ledgers.cash, ledgers.holdings, int64.subtract(ledgers.reserved_cash, cash),
                   int64.subtract(ledgers.reserved_shares, shares))
