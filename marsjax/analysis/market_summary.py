"""What markets did, from the counters of the exchange, as plain numbers."""

from typing import Any

import jax
import numpy as np

from marsjax.core import int64
from marsjax.core.records import NO_PRICE, Market, Side, Status
from marsjax.market import exchange

_conservation = jax.jit(jax.vmap(exchange.conservation))


def is_conserved(markets: Market) -> bool:
    """Whether no share and no cash was lost or made in markets [B]."""
    return not any(np.any(np.asarray(x)) for x in jax.tree.leaves(_conservation(markets)))


def summarize(markets: Market) -> dict[str, Any]:
    """All of markets [B] together: orders, rejections, volume, slots used, conservation."""
    counters = jax.tree.map(np.asarray, markets.counters)
    accepted = int(counters.status[:, Status.ACCEPTED].sum())
    status = {reason.name: int(counters.status[:, reason].sum()) for reason in Status if reason.is_refusal}
    rejected = {name: count for name, count in status.items() if count}
    return {
        "orders": accepted + sum(rejected.values()), "accepted": accepted, "rejected": sum(rejected.values()),
        "rejected_by_status": rejected, "trades": int(counters.fills.astype(np.int64).sum()),
        "volume": int(int64.to_numpy(counters.traded).sum()), "value": int(int64.to_numpy(counters.value).sum()),
        "capacity": markets.book.price.shape[-1],
        "most_resting_asks": int(counters.most_resting[:, Side.ASK].max()),
        "most_resting_bids": int(counters.most_resting[:, Side.BID].max()),
        "cut_transaction_lists": int(counters.truncated_lists.sum()), "conserved": is_conserved(markets)}


def last_price(market: Market) -> int | None:
    """Of the last trade of one market, 1e-4 of the currency; None before any."""
    last = int(np.asarray(market.book.last_price))
    return None if last == NO_PRICE else last


def problems(summary: dict[str, Any]) -> list[str]:
    """Why a summary is not that of all orders that were sent, one line each."""
    found = []
    full = summary["rejected_by_status"].get(Status.SIDE_FULL.name, 0)
    if full:
        found.append(f"{full} orders refused, a side was full: set config.capacity above {summary['capacity']}")
    strangers = summary["rejected_by_status"].get(Status.BAD_ACCOUNT.name, 0)
    if strangers:
        found.append(f"{strangers} orders refused, their agent has no account: raise config.accounts")
    if not summary["conserved"]:
        found.append("shares or cash were not conserved")
    return found
