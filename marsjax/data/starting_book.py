"""The book that a feed starts with, as orders that come before its first: a table of orders, or of levels."""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from marsjax.core.errors import InputError
from marsjax.core.records import MAX_PRICE, MAX_VOLUME, NO_ACCOUNT, NO_ID, Kind
from marsjax.data.csv_rows import first_names, read_rows
from marsjax.data.feed import LARGEST_ID, FeedChunk, PublishedFills
from marsjax.data.named_columns import NamedColumns
from marsjax.data.order_ids import SeenIds
from marsjax.market import orders

FIRST_OWN_ID = 2_000_000_000
"""Orders of a book without ids, and levels, get ids from here on."""
SEQUENCE = -1
"""Of the orders of a starting book."""
SIDES = {"s": Kind.SELL, "sell": Kind.SELL, "ask": Kind.SELL, "a": Kind.SELL, "-1": Kind.SELL, "b": Kind.BUY,
         "buy": Kind.BUY, "bid": Kind.BUY, "1": Kind.BUY}  # fmt: skip
"""What the sides are called in tables."""
_LEVEL = re.compile(r"(ask|bid)_(price|volume|size)_?([0-9]+)")


def read_book(path: Path) -> pd.DataFrame:
    """The table in a CSV file, all of it text, by line; FeedError where it is damaged."""
    names = first_names(path)
    blocks = [pd.DataFrame({name: rows.text(name) for name in names}, index=rows.line)
              for rows in read_rows(path, names, 100_000)]
    return pd.concat(blocks) if blocks else pd.DataFrame(columns=names)


def chunk(frame: pd.DataFrame, where: str, units: tuple[float, int, float], time_ns: int, row_word: str = "row"
          ) -> FeedChunk:
    """Orders that make the book when they are sent to an empty one, best prices first, all at one time.

    Args:
      frame: side (or type), price, volume, and order_id and agent_id if there are any, rows of one price in the order
        of their priority; or one row of levels, ask_price_1, ask_volume_1, bid_price_1 ...
      where: what names the table in errors.
      units: what 1 of a price and of the engine's tick is: currency a unit of price, tick in units, shares a unit of
        volume.
      time_ns: when they are sent.
      row_word: what names a row in errors.

    Raises InputError where it is no such table, an id comes twice, or its sides cross.
    """
    levels = [str(name) for name in frame.columns if _LEVEL.fullmatch(str(name).strip().lower())]
    table = NamedColumns(_of_levels(frame, where, levels) if levels else frame, where, row_word)
    side_name = "side" if "side" in table else "type"
    table.require_columns(side_name, "price", "volume")
    price_unit, tick, volume_unit = units
    kind = table.codes(side_name, SIDES)
    price = table.multiples("price", price_unit, tick, MAX_PRICE, f"a price above 0 in steps of {tick * price_unit:g}")
    volume = table.multiples("volume", volume_unit, 1, MAX_VOLUME, f"a volume above 0 in steps of {volume_unit:g}")
    ids = table.integers("order_id", 0, LARGEST_ID, NO_ID) if "order_id" in table else np.full(len(kind), NO_ID)
    ids = np.where(ids == NO_ID, FIRST_OWN_ID + np.arange(len(kind)), ids)
    account = (table.integers("agent_id", NO_ACCOUNT, LARGEST_ID, NO_ACCOUNT) if "agent_id" in table
               else np.zeros(len(kind), np.int64))
    is_buy = kind == Kind.BUY
    best_ask = price[~is_buy].min(initial=MAX_PRICE + 1)
    table.require(~is_buy | (price < best_ask), "price", f"a bid below the best ask, {best_ask * price_unit:g}")
    order = np.lexsort((np.arange(len(kind)), np.where(is_buy, -price, price), is_buy))
    nothing = np.full(len(kind), NO_ID)
    made = orders.from_columns(np.full(len(kind), time_ns), kind[order], price[order], volume[order], ids[order],
                               nothing, nothing, account[order])
    if SeenIds().add(ids) is not None:
        raise InputError(f"{where}: expected every order_id once")
    return FeedChunk(made, PublishedFills.none(), np.full(len(kind), SEQUENCE, np.int64),
                     is_synthetic=np.ones(len(kind), bool))


def _of_levels(frame: pd.DataFrame, where: str, labels: list[str]) -> pd.DataFrame:
    """One row of levels -> a row an order; a level without volume is none."""
    if len(frame) != 1:
        raise InputError(f"{where}: expected one row of levels, got {len(frame)}: take the row that the feed starts at")
    found: dict[tuple[int, str], dict[str, object]] = {}
    for label in labels:
        match = _LEVEL.fullmatch(label.strip().lower())
        if match:
            what = "price" if match[2] == "price" else "volume"
            found.setdefault((int(match[3]), match[1]), {})[what] = frame[label].iloc[0]
    rows = []
    for (level, side), values in sorted(found.items()):
        if len(values) < 2:
            raise InputError(f"{where}: expected {side}_price_{level} and {side}_volume_{level}, got one of them")
        if str(values["volume"]).strip() not in ("", "0", "0.0", "nan", "None", "<NA>"):
            rows.append({"side": side, **values})
    return pd.DataFrame(rows, columns=["side", "price", "volume"],
                        index=[f"{row['side']} level" for row in rows] if rows else None)

