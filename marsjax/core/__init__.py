"""Records, static sizes, exact integers and times, and the trading day: what every other room speaks in.

Modules:
  `int64`: exact 64-bit integers in two 32-bit words.
  `times`: exact times of day and durations.
  `sessions`: the phases of the trading day.
  `order_images`: the orders of an interval as an image of counts.
  `kernels`: which of several ways to one result a program takes.
  `files`: files from outside, read with care.
  `locks`: a file by which one process at a time uses a folder.
Constants: `NO_ID`, `NO_ACCOUNT`, `NO_PRICE`, `EMPTY_PRICE` stand where there is none; `MAX_PRICE` and `MAX_VOLUME` are
the largest of one order.
Enums:
  `Kind`: what an order asks for.
  `Condition`: what a limit order asks for beside its limit.
  `Side`: row of a book's arrays.
  `Status`: what became of an order.
  `Phase`: what the exchange does with an order that comes at some time.
Records of numbers:
  `Int64`: an exact 64-bit integer.
  `Time`: an exact time of day or duration.
Records of a market:
  `Order`: one message to the exchange.
  `Book`: resting orders.
  `BookView`: what the market sees of a book.
  `Trades`: the transactions of one order.
  `Uncross`: the transaction of a call auction.
  `Report`: the exchange's answer to an order.
  `Ledgers`: the accounts.
  `Counters`: what happened so far.
  `Market`: all of this, of one symbol.
  `Conservation`: what a market has lost or made.
  `Token`: what the order model sees of an order.
Specs, frozen and hashable:
  `MarketSpec`: sizes and units of a market; `AuctionRule` and `Units` are fields of it.
  `Session`, `Period`: the trading day; `chinese_session` and `continuous_session` make two.
  `TokenSpec`, `ModelSpec`: sizes of the order tokens and of the order model.
  `OrderBatchSpec`: sizes of such images.
  `ComputeSpec`, `CacheSpec`: how the order model computes and remembers.
  `Kernels`: which ways are taken; `CPU`, `GPU` and `ACCELERATOR` are three.
Errors:
  `InputError`: what came from outside does not fit.
"""

from marsjax.core import files, int64, kernels, locks, order_images, sessions, times
from marsjax.core.errors import InputError
from marsjax.core.kernels import ACCELERATOR, CPU, GPU, Kernels
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.records import (
    EMPTY_PRICE,
    MAX_PRICE,
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Book,
    BookView,
    Condition,
    Conservation,
    Counters,
    Int64,
    Kind,
    Ledgers,
    Market,
    Order,
    Report,
    Side,
    Status,
    Time,
    Token,
    Trades,
    Uncross,
)
from marsjax.core.sessions import Period, Phase, Session, chinese_session, continuous_session
from marsjax.core.specs import AuctionRule, CacheSpec, ComputeSpec, MarketSpec, ModelSpec, TokenSpec, Units

__all__ = [
    "ACCELERATOR", "CPU", "EMPTY_PRICE", "GPU", "MAX_PRICE", "MAX_VOLUME", "NO_ACCOUNT", "NO_ID", "NO_PRICE",
    "AuctionRule", "Book", "BookView", "CacheSpec", "ComputeSpec", "Condition", "Conservation", "Counters",
    "InputError", "Int64", "Kernels", "Kind", "Ledgers", "Market", "MarketSpec", "ModelSpec", "Order", "OrderBatchSpec",
    "Period", "Phase", "Report", "Session", "Side", "Status", "Time", "Token", "TokenSpec", "Trades", "Uncross",
    "Units", "chinese_session", "continuous_session", "files", "int64", "kernels", "locks", "order_images",
    "sessions", "times",
]  # fmt: skip
