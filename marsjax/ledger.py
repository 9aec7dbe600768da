"""Accounts of one market: cash, holdings and what resting orders reserve, exact past 2**31 (reference: accounts)."""

import jax
import jax.numpy as jnp

from marsjax import clock
from marsjax.specs import MarketSpec
from marsjax.types import Array, Book, Kind, Ledgers, Order, Side, Trades, Uncross, Wide


def empty(spec: MarketSpec) -> Ledgers:
    """Accounts with nothing in them."""
    nothing = clock.wide(jnp.zeros(spec.owners + 1, jnp.int32))
    return Ledgers(nothing, nothing, nothing, nothing)


def settle(spec: MarketSpec, ledgers: Ledgers, before: Book, order: Order, trades: Trades) -> Ledgers:
    """Books the transactions of one order.

    Args:
      spec: sizes.
      ledgers: the accounts before.
      before: the book before the order.
      order: the order, which was accepted if `trades` says that anything happened or rested.
      trades: its transactions. Fills past the end of a cut list are booked too: they are a prefix of the side.
    """
    slot = jnp.arange(spec.capacity, dtype=jnp.int32)
    is_cancel = order.kind == Kind.CANCEL
    whole = trades.count - (trades.partial > 0)
    side = jnp.where(trades.side == Side.BID, Side.BID, Side.ASK)
    price, volume, owner = (jnp.where(side == Side.BID, x[Side.BID], x[Side.ASK])
                            for x in (before.price, before.volume, before.owner))
    fill = jnp.where(slot < whole, volume, jnp.where(slot == whole, trades.partial, 0))
    took = jnp.where(slot == trades.slot, clock.to_int32(trades.volume), 0)
    taken = jnp.where(is_cancel, took, fill)
    mine = _is_owner(spec, owner)
    shares = clock.total(jnp.where(mine, taken[None, :], 0))
    value = clock.total_product(jnp.broadcast_to(price[None, :], mine.shape), jnp.where(mine, taken[None, :], 0))

    # The resting side gives back what it had reserved; if it traded, it pays or delivers it.
    bids = side == Side.BID
    zero = clock.wide(jnp.zeros(spec.owners + 1, jnp.int32))
    after = _release(ledgers, clock.select(bids, value, zero), clock.select(bids, zero, shares))
    after = _trade(after, clock.select(is_cancel, zero, shares), clock.select(is_cancel, zero, value), buys=bids)

    # The aggressor trades with all of them, and reserves what rests.
    own = _is_owner(spec, order.owner[None])[:, 0]
    after = _trade(after, _only(own & ~is_cancel, trades.volume), _only(own & ~is_cancel, trades.value), buys=~bids)
    buys = order.kind == Kind.BUY
    rest_value = _only(own & buys, clock.multiply(order.price, trades.rest))
    rest_shares = _only(own & (order.kind == Kind.SELL), clock.wide(trades.rest))
    return _release(after, clock.negate(rest_value), clock.negate(rest_shares))


def release(spec: MarketSpec, ledgers: Ledgers, before: Book, take: Array) -> Ledgers:
    """Gives back what cancelled shares, int32 [2, C] of the orders in `before`, had reserved."""
    mine = _is_owner(spec, before.owner[Side.BID])
    bids = jnp.where(mine, take[Side.BID][None, :], 0)
    cash = clock.total_product(jnp.broadcast_to(before.price[Side.BID][None, :], bids.shape), bids)
    asks = jnp.where(_is_owner(spec, before.owner[Side.ASK]), take[Side.ASK][None, :], 0)
    return _release(ledgers, cash, clock.total(asks))


def settle_auction(spec: MarketSpec, ledgers: Ledgers, uncross: Uncross) -> Ledgers:
    """Books a call auction: all trade at its price, and give back what they had reserved at their limits."""
    after = ledgers
    for side in Side:
        mine = _is_owner(spec, uncross.owner[side])
        fill = jnp.where(mine, uncross.fill[side][None, :], 0)
        shares = clock.total(fill)
        value = clock.total_product(jnp.broadcast_to(jnp.maximum(uncross.price, 0), fill.shape), fill)
        zero = clock.wide(jnp.zeros(spec.owners + 1, jnp.int32))
        if side == Side.BID:
            reserved = clock.total_product(jnp.broadcast_to(uncross.limit[side], fill.shape), fill)
            after = _release(after, reserved, zero)
        else:
            after = _release(after, zero, shares)
        after = _trade(after, shares, value, buys=jnp.asarray(side == Side.BID))
    return after


def _is_owner(spec: MarketSpec, owner: Array) -> jax.Array:
    """bool [N + 1, C]: which account each order belongs to; NO_OWNER is the last."""
    account = jnp.where((owner >= 0) & (owner < spec.owners), owner, spec.owners)
    return account[None, :] == jnp.arange(spec.owners + 1, dtype=jnp.int32)[:, None]


def _only(own: jax.Array, amount: Wide) -> Wide:
    """An amount [] for the accounts [N + 1] that the flags name, 0 for the others."""
    return Wide(jnp.where(own, amount.hi, 0), jnp.where(own, amount.lo, 0))


def _trade(ledgers: Ledgers, shares: Wide, value: Wide, buys: jax.Array) -> Ledgers:
    paid = clock.select(buys, clock.negate(value), value)
    got = clock.select(buys, shares, clock.negate(shares))
    return Ledgers(clock.add(ledgers.cash, paid), clock.add(ledgers.holdings, got),
                   ledgers.reserved_cash, ledgers.reserved_shares)


def _release(ledgers: Ledgers, cash: Wide, shares: Wide) -> Ledgers:
    return Ledgers(ledgers.cash, ledgers.holdings, clock.subtract(ledgers.reserved_cash, cash),
                   clock.subtract(ledgers.reserved_shares, shares))
