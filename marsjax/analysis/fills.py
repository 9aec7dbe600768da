"""Are the fills that a replay computes those that the exchange published? Checked while both stream by."""

import dataclasses
from typing import NamedTuple

import numpy as np

from marsjax.core import int64
from marsjax.core.records import NO_ID, Kind, Report, Uncross
from marsjax.data.feed import AUCTION, PublishedFills

_COLUMNS = ("buy_id", "sell_id", "price", "volume")


class Transactions(NamedTuple):
    """Fills of continuous trading, int64 [N] each."""

    row: np.ndarray
    """Row of the aggressor among the orders."""
    buy_id: np.ndarray
    sell_id: np.ndarray
    price: np.ndarray
    """1e-4 of the currency."""
    volume: np.ndarray
    """Shares."""


def transactions(reports: Report) -> Transactions:
    """The listed fills of reports [N] on the host, in order; cancels are left out."""
    trades = reports.trades
    each, kind = np.asarray(trades.volume_each), np.asarray(trades.kind)
    is_fill = (kind == Kind.BUY) | (kind == Kind.SELL)
    row, number = np.nonzero((each > 0) & is_fill[:, None])
    resting, aggressor = np.asarray(trades.resting_id)[row, number], np.asarray(reports.order_id)[row]
    buys = kind[row] == Kind.BUY
    columns = (row, np.where(buys, aggressor, resting), np.where(buys, resting, aggressor),
               np.asarray(trades.price)[row, number], each[row, number])
    return Transactions(*(column.astype(np.int64) for column in columns))


@dataclasses.dataclass
class FillCheck:
    """Compares the continuous fills of one market one by one, and each call auction as one.

    A side whose id was not published (NO_ID) is not compared.
    """

    compared: int = 0
    """Continuous fills compared."""
    different: int = 0
    first_difference: str | None = None
    auctions_compared: int = 0
    auctions_different: int = 0

    def __post_init__(self) -> None:
        self._published = np.zeros((0, 4), np.int64)
        self._computed = np.zeros((0, 4), np.int64)
        self._auction_fills = np.zeros((0, 5), np.int64)
        self._uncrossed: list[tuple[int, Uncross]] = []

    def publish(self, fills: PublishedFills) -> None:
        """What the exchange says it did."""
        table = np.stack([getattr(fills, name).astype(np.int64) for name in _COLUMNS], axis=1)
        is_auction = fills.aggressor == AUCTION
        self._published = np.concatenate([self._published, table[~is_auction]])
        auction = np.column_stack([table, fills.time_ns])[is_auction]
        self._auction_fills = np.concatenate([self._auction_fills, auction])

    def compute(self, reports: Report) -> None:
        """What the replay did."""
        found = transactions(reports)
        self._computed = np.concatenate([self._computed, np.stack(found[1:], axis=1)])
        size = min(len(self._published), len(self._computed))
        self._compare(self._published[:size], self._computed[:size])
        self._published, self._computed = self._published[size:], self._computed[size:]

    def uncross(self, time_ns: int, result: Uncross) -> None:
        """A call auction that the replay held."""
        self._uncrossed.append((time_ns, result))

    def finish(self) -> None:
        """Counts what one side has and the other has not, and compares the auctions."""
        for rest, what in ((self._published, "published, not computed"), (self._computed, "computed, not published")):
            if len(rest):
                self.different += len(rest)
                self.first_difference = self.first_difference or f"fill {self.compared}: {what}: {_text(rest[0])}"
        first_ns = self._uncrossed[0][0] if self._uncrossed else 2**62
        early = self._auction_fills[self._auction_fills[:, 4] < first_ns]
        if len(early):
            self.auctions_different += 1
            self.first_difference = self.first_difference or (
                f"call auction at {early[0, 4]} ns: published {early[:, 3].sum()} shares, none was held by then")
        for number, (time_ns, result) in enumerate(self._uncrossed):
            until = self._uncrossed[number + 1][0] if number + 1 < len(self._uncrossed) else 2**62
            times = self._auction_fills[:, 4]
            self._compare_auction(time_ns, result, self._auction_fills[(times >= time_ns) & (times < until)])

    @property
    def equal(self) -> bool:
        """Nothing differed so far."""
        return self.different == 0 and self.auctions_different == 0

    def _compare(self, published: np.ndarray, computed: np.ndarray) -> None:
        unknown = (published == NO_ID) & (np.arange(4) < 2)
        bad = ((published != computed) & ~unknown).any(axis=1)
        if bad.any() and self.first_difference is None:
            row = int(np.argmax(bad))
            self.first_difference = (f"fill {self.compared + row}: published {_text(published[row])}, "
                                     f"computed {_text(computed[row])}")
        self.compared += len(bad)
        self.different += int(bad.sum())

    def _compare_auction(self, time_ns: int, result: Uncross, published: np.ndarray) -> None:
        self.auctions_compared += 1
        volume = int(int64.to_numpy(result.volume))
        equal = volume == published[:, 3].sum()
        equal &= not len(published) or bool((published[:, 2] == int(result.price)).all())
        for side, column in ((Kind.BUY, 0), (Kind.SELL, 1)):
            fill = np.asarray(result.fill)[side]
            computed = dict(zip(np.asarray(result.order_id)[side][fill > 0].tolist(), fill[fill > 0].tolist(),
                                strict=True))
            ids, of = np.unique(published[:, column], return_inverse=True)
            shares = np.bincount(of, weights=published[:, 3], minlength=len(ids)).astype(np.int64)
            equal &= computed == dict(zip(ids.tolist(), shares.tolist(), strict=True))
        if not equal:
            self.auctions_different += 1
            self.first_difference = self.first_difference or (
                f"call auction at {time_ns} ns: published {published[:, 3].sum()} shares, computed {volume} at "
                f"{int(result.price)}")


def _text(fill: np.ndarray) -> str:
    return ", ".join(f"{name}={value}" for name, value in zip(_COLUMNS, fill.tolist(), strict=True))

