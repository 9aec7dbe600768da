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
    is_cancel = order.kind == Kind.CANCEL
    bids = trades.side == Side.BID
    listed = trades.price, trades.volume_each, trades.resting_owner
    if spec.trade_width < spec.capacity:
        # The list is all there is unless it was cut: an order to the exchange takes 33 us instead of 63 us,
        # for 4,096 slots on a CPU.
        shares, value = jax.lax.cond(trades.cut, lambda: _by_owner(spec, *_all_fills(spec, before, trades)),
                                     lambda: _by_owner(spec, *listed))
    else:
        shares, value = _by_owner(spec, *listed)

    # The resting side gives back what it had reserved; if it traded, it pays or delivers it.
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
    _, cash = _by_owner(spec, before.price[Side.BID], take[Side.BID], before.owner[Side.BID])
    shares, _ = _by_owner(spec, before.price[Side.ASK], take[Side.ASK], before.owner[Side.ASK])
    return _release(ledgers, cash, shares)


def settle_auction(spec: MarketSpec, ledgers: Ledgers, uncross: Uncross) -> Ledgers:
    """Books a call auction: all trade at its price, and give back what they had reserved at their limits."""
    after = ledgers
    zero = clock.wide(jnp.zeros(spec.owners + 1, jnp.int32))
    price = jnp.maximum(uncross.price, 0)
    for side in Side:
        fill, owner = uncross.fill[side], uncross.owner[side]
        shares, reserved = _by_owner(spec, uncross.limit[side], fill, owner)
        _, value = _by_owner(spec, price, fill, owner)
        is_bid = side == Side.BID
        after = _release(after, reserved if is_bid else zero, zero if is_bid else shares)
        after = _trade(after, shares, value, buys=jnp.asarray(is_bid))
    return after


def _all_fills(spec: MarketSpec, before: Book, trades: Trades) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Price, shares and owner of every slot [C] of the side that a sweep hit."""
    price, volume, owner = (jnp.where(trades.side == Side.BID, x[Side.BID], x[Side.ASK])
                            for x in (before.price, before.volume, before.owner))
    slot = jnp.arange(spec.capacity, dtype=jnp.int32)
    whole = trades.count - (trades.partial > 0)
    return price, jnp.where(slot < whole, volume, jnp.where(slot == whole, trades.partial, 0)), owner


def _by_owner(spec: MarketSpec, price: Array, volume: Array, owner: Array) -> tuple[Wide, Wide]:
    """Shares and price x shares of each account, [N + 1], from orders [C]."""
    mine = jnp.where(_is_owner(spec, owner), volume, 0)
    return clock.total(mine), clock.total_product(jnp.broadcast_to(price, mine.shape), mine)


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
