"""Databento's market-by-order records, from CSV or DBN, as blocks of checked columns."""

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from marsjax.core.records import MAX_VOLUME
from marsjax.data import csv_fields
from marsjax.data.csv_rows import Rows, read_rows
from marsjax.data.feed import FeedError
from marsjax.data.resting import ASK, BID
from marsjax.data.stamps import utc_ns, whole_numbers

ADD, CANCEL, MODIFY, CLEAR, TRADE, FILL, NONE = range(7)
ACTIONS = {"A": ADD, "C": CANCEL, "M": MODIFY, "R": CLEAR, "T": TRADE, "F": FILL, "N": NONE}
SIDES = {"A": ASK, "B": BID, "N": -1}
COLUMNS = ("ts_recv", "ts_event", "publisher_id", "instrument_id", "action", "side", "price", "size", "order_id",
           "flags")
UNDEFINED = 2**63 - 1
"""Stands for a price that there is none of."""
SNAPSHOT = 32
"""Flag of an order that rested when the feed began."""
_LONGEST = 64
"""Bytes of a symbol."""


@dataclasses.dataclass(frozen=True)
class MboMessages:
    """A block of records, N of them."""

    time_ns: np.ndarray
    """int64 [N], nanoseconds of UTC since 1970."""
    action: np.ndarray
    """int64 [N], of ACTIONS."""
    side: np.ndarray
    """int64 [N], of SIDES."""
    price: np.ndarray
    """int64 [N], 1e-9 of the currency; 0 where there is none."""
    size: np.ndarray
    """int64 [N]."""
    order_id: np.ndarray
    """uint64 [N]."""
    publisher: np.ndarray
    """int64 [N]."""
    symbol: np.ndarray
    """int64 [N], place in `symbols`."""
    symbols: list[str]
    """The instruments' ids where the file has no symbols."""
    error: Callable[[int, str, str], FeedError]
    """The error for a row of the block, a column, and what was expected there."""
    first: int
    """Number of the first record, from 0."""

    def require(self, good: np.ndarray, column: str, expected: str) -> None:
        """FeedError at the first row where `good`, bool [N], does not hold."""
        if not good.all():
            raise self.error(int(np.argmin(good)), column, expected)

    def check(self) -> "MboMessages":
        """Itself; FeedError where a record says what none can."""
        is_order, is_placed = (np.isin(self.action, of) for of in ((ADD, CANCEL, MODIFY, FILL), (ADD, MODIFY)))
        self.require((self.side >= 0) | ~is_placed, "side", "A or B")
        self.require((self.price > 0) | ~is_placed, "price", "a price above 0")
        self.require(((self.size > 0) & (self.size <= MAX_VOLUME)) | ~is_order, "size", f"1 to {MAX_VOLUME}")
        return self


def csv_blocks(path: Path, chunk_rows: int) -> Iterator[MboMessages]:
    """A CSV of records, with a header; prices in the currency or in 1e-9 of it, stamps ISO 8601 or nanoseconds."""
    count = 0
    for rows in read_rows(path, COLUMNS, chunk_rows, optional=("symbol",)):
        flags = rows.integers("flags", 0, 255)
        time_ns = utc_ns(rows, "ts_event")
        if (snapshot := (flags & SNAPSHOT) > 0).any():
            # An order's own time may lie days before; the snapshot is of the time it was taken at.
            time_ns = np.where(snapshot, utc_ns(rows, "ts_recv"), time_ns)
        symbols, symbol = _labels(rows)
        order_id, good = whole_numbers(rows.columns["order_id"].stripped())
        rows.require(good, "order_id", "a whole number from 0 to 2**64 - 1")
        yield MboMessages(
            time_ns, rows.codes("action", ACTIONS), rows.codes("side", SIDES), _prices(rows),
            rows.integers("size", 0, 2**32 - 1), order_id, rows.integers("publisher_id", 0, 2**16 - 1), symbol, symbols,
            rows.error, count).check()
        count += len(flags)
    if not count:
        raise FeedError(f"{path}: line 2: expected records, got only a header")


def _labels(rows: Rows) -> tuple[list[str], np.ndarray]:
    """The symbols of a block, and which of them each row has, int64 [N]."""
    column = "symbol" if "symbol" in rows.columns else "instrument_id"
    fields = rows.columns[column].stripped()
    length = fields.length
    rows.require((length > 0) & (length <= _LONGEST), column, f"a symbol of at most {_LONGEST} bytes")
    width = int(length.max())
    table = np.stack([np.where(length > place, fields.at(place), np.uint8(0)) for place in range(width)], axis=1)
    names, codes = np.unique(table.view(f"S{width}").ravel(), return_inverse=True)
    return [name.decode(errors="replace") for name in names.tolist()], codes.astype(np.int64)


def _prices(rows: Rows) -> np.ndarray:
    """Prices as they stand -> int64 [N] in 1e-9 of the currency; 0 where the field is empty or says so."""
    fields = rows.columns["price"].stripped()
    is_none = (fields.length == 0) | fields.equal(str(UNDEFINED)) | fields.equal("nan")
    digits, behind, good = csv_fields.decimals(fields)
    if behind.any():
        # Digits past the ninth must be zeros; what does not fit in an int64 is no price.
        scale = 10 ** np.clip(9 - behind, 0, 9)
        cut = 10 ** np.clip(behind - 9, 0, 9)
        good &= (np.abs(digits) < 2**62 // scale) & (digits % cut == 0) & (behind <= 18)
        digits = np.where(good, digits // cut, 0) * scale
    rows.require(good | is_none, "price", "a price in steps of 0.000000001")
    return np.where(is_none, 0, digits)
