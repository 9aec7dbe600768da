"""One symbol's market: orders, the book, call auctions, accounts, and the exchange around them.

All functions are pure and of one market: `vmap` them over thousands.
  `orders`: makes `Order` records: by hand, as padding, from columns on the host.
  `exchange`: order -> report; sessions, ids, accounts and counters around the book. Start here.
  `book`: the limit order book alone: submit, cancel, match, view.
  `conditions`: orders that may not rest, or take their limit from the book.
  `auction`: the price rule of a call auction, and what it trades.
  `accounts`: cash, holdings and what resting orders reserve.
  `deep`: a market of many resting orders in two parts, near the touch and far from it.
  `cancels`: which orders a cancel takes back that names a price and a volume.
Inside: `slots`, array work on a side's slots, in the ways that `MarketSpec.kernels` names; `refusals`, which of
several reasons to refuse an order is the one given.
"""

from marsjax.market import accounts, auction, book, cancels, conditions, exchange, orders

__all__ = ["accounts", "auction", "book", "cancels", "conditions", "exchange", "orders"]
