"""What an exchange refused of given orders, counted by status, and which setting would have let it through."""

import collections
import math
from collections.abc import Mapping

import numpy as np

from marsjax.core import times
from marsjax.core.records import MAX_PRICE, NO_ID, Array, Kind, Order, Status
from marsjax.core.specs import MarketSpec

SPEC_FIELDS = {"session": "MarketSpec.session", "tick": "MarketSpec.tick", "capacity": "MarketSpec.capacity",
               "accounts": "MarketSpec.accounts", "conditions": "MarketSpec.conditions"}
"""What is to be set, by its name in Python; programs give the names of their keys."""
HARMLESS = ("NOT_FILLED", "WOULD_TRADE", "NO_BEST_PRICE")
"""Refusals by an order's own condition: a real exchange gives them too."""
_KNOWN_BEFORE = "unknown"
"""A feed counts under this reason in `FeedChunk.adapted` the messages that name orders its files do not show."""


class Refusals:
    """Counts what is refused of the orders of one market, stretch by stretch."""

    def __init__(self, market: MarketSpec, publishes_fills: bool = False) -> None:
        """`publishes_fills`: the feed is an exchange's own record, in which no cancel comes too late."""
        self._market, self._strict = market, publishes_fills
        self._counts = np.zeros(len(Status), np.int64)
        self._came: list[np.ndarray] = []
        self._refused: list[np.ndarray] = []
        self._sent = {status: _Seen() for status in Status}
        self.ignored: collections.Counter[str] = collections.Counter()
        self.adapted: collections.Counter[str] = collections.Counter()

    def add(self, orders: Order, status: Array) -> None:
        """Orders [N] of NumPy arrays, as sent, and what became of them, int [N]."""
        status = np.asarray(status)
        self._counts += np.bincount(status, minlength=len(Status))
        is_limit, accepted = np.asarray(orders.kind) != Kind.CANCEL, status == Status.ACCEPTED
        self._came.append(np.asarray(orders.order_id)[is_limit & accepted])
        if accepted.all():
            return
        self._refused.append(np.asarray(orders.order_id)[is_limit & ~accepted])
        for reason in np.unique(status[~accepted]):
            self._sent[Status(int(reason))].add(orders, status == reason)

    def messages(self, ignored: Mapping[str, int], adapted: Mapping[str, int]) -> None:
        """What the feed left out, and what it read otherwise than it says (`FeedChunk`)."""
        self.ignored.update(ignored)
        self.adapted.update(adapted)

    @property
    def counts(self) -> dict[str, int]:
        """Refused orders by the name of their status."""
        return {status.name: int(self._counts[status]) for status in Status
                if status.is_refusal and self._counts[status]}

    def record(self) -> dict[str, dict[str, int]]:
        """For a summary: refusals by status, messages of the feed by reason."""
        return {"refused": self.counts, "ignored_messages": dict(self.ignored),
                "adapted_messages": dict(self.adapted)}

    def line(self) -> str:
        """The same as a few words; empty if there is nothing to tell."""
        named = {"refused": self.counts, "messages without an order": self.ignored, "messages adapted": self.adapted}
        return "; ".join(f"{name}: " + ", ".join(f"{count} {reason}" for reason, count in counts.items())
                         for name, counts in named.items() if counts)

    def problems(self, names: Mapping[str, str] | None = None) -> list[str]:
        """What a right reading could not have refused, one line each, with what is to be set.

        Args:
          names: of what is to be set, `SPEC_FIELDS` by default.
        """
        names = SPEC_FIELDS if names is None else names
        found = [_line(self._market, status, self._counts[status], self._sent[status], names)
                 for status in Status if status.is_refusal and self._counts[status]
                 and status.name not in HARMLESS and status not in (Status.UNKNOWN_ID, Status.OVER_CANCEL)]
        return found + self._cancels()

    def _cancels(self) -> list[str]:
        """Cancels that did not find their order, but for those that the feed has told of."""
        over, unknown = int(self._counts[Status.OVER_CANCEL]), int(self._counts[Status.UNKNOWN_ID])
        follow = 0
        if unknown:
            named = np.concatenate(self._sent[Status.UNKNOWN_ID].cancels)
            follow = int(np.isin(named, np.concatenate([*self._refused, np.zeros(0, np.int32)])).sum())
            late = np.isin(named, np.concatenate(self._came)).sum()
            unknown -= follow + (0 if self._strict else int(late))
        told = self.adapted[_KNOWN_BEFORE]
        unknown, over = max(unknown - told, 0), max(over - max(told - unknown, 0), 0)
        return ([f"{follow} cancels refused as UNKNOWN_ID, of orders that were refused"] * bool(follow)
                + [f"{unknown} cancels refused as UNKNOWN_ID, of orders that do not rest: orders are missing before "
                   "them"] * bool(unknown)
                + [f"{over} cancels refused as OVER_CANCEL, of more than rests"] * bool(over))


class _Seen:
    """The extremes of the orders of one status."""

    def __init__(self) -> None:
        self.first_ns, self.last_ns = 2**63 - 1, -1
        self.steps, self.outside, self.most_account = 0, 0, NO_ID
        self.cancels: list[np.ndarray] = []

    def add(self, orders: Order, which: np.ndarray) -> None:
        ns = times.to_ns(orders.time)[which]
        self.first_ns, self.last_ns = min(self.first_ns, int(ns.min())), max(self.last_ns, int(ns.max()))
        price = np.asarray(orders.price)[which].astype(np.int64)
        inside = (price > 0) & (price <= MAX_PRICE)
        self.outside += int((~inside).sum())
        self.steps = math.gcd(self.steps, int(np.gcd.reduce(price[inside], initial=0)))
        self.most_account = max(self.most_account, int(np.asarray(orders.account)[which].max()))
        self.cancels.append(np.asarray(orders.cancel_id)[which])


def _line(market: MarketSpec, status: Status, count: int, seen: _Seen, names: Mapping[str, str]) -> str:
    if status == Status.CLOSED:
        first, last = (str(times.clock(ns, 3)) for ns in (seen.first_ns, seen.last_ns))
        hours = f"set {names['session']} to the hours of the feed"
        return f"{count} orders refused as CLOSED, of {first} to {last}: {hours}"
    if status == Status.SIDE_FULL:
        return f"{count} orders refused, a side was full: set {names['capacity']} above {market.capacity}"
    if status == Status.BAD_ACCOUNT:
        most = f" to {seen.most_account + 1}" if seen.most_account >= market.accounts else ""
        return f"{count} orders refused, their agent has no account: raise {names['accounts']}{most}"
    if status == Status.BAD_PRICE:
        steps = math.gcd(market.tick, seen.steps)
        inside = (f"not in ticks of {market.tick}: set {names['tick']} to {steps}" if count > seen.outside and
                  steps < market.tick else "")
        outside = f"{seen.outside} of them below 1 or above {MAX_PRICE} units" if seen.outside else ""
        return f"{count} orders refused as BAD_PRICE, " + "; ".join(filter(None, (inside, outside)))
    if "CONDITION" in status.name:
        return f"{count} orders refused as {status.name}: set {names.get('conditions', 'conditions')} to true"
    return f"{count} orders refused as {status.name} (marsjax.core.records.Status says what that is)"
