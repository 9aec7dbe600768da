"""Makes many days of a few real ones of Shanghai: other dates, all prices moved by a number of ticks.

    python experiments/token_shards/shift_days.py data/sse long/sse --days 200 --symbols 600536 600761 601825

Day d of a stock is its real day with d ticks more on every price. The files are of the feed's own form, with the
columns that its reader needs.
"""

import argparse
import datetime
import sys
from pathlib import Path

import pandas as pd

_COLUMNS = {"orders": ["MDTime", "OrderType", "OrderPrice", "OrderQty", "OrderBSFlag", "ApplSeqNum", "OrderNO"],
            "trades": ["MDTime", "TradeBuyNo", "TradeSellNo", "TradeBSFlag", "TradePrice", "TradeQty", "ApplSeqNum"]}
_PRICES = {"orders": "OrderPrice", "trades": "TradePrice"}
_TICK = 0.01
"""CNY."""


def main(arguments: list[str]) -> None:
    """Writes the files of so many days into a new folder."""
    parser = argparse.ArgumentParser(description="many days of a few real ones")
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--days", type=int, default=200, help="of all stocks together")
    parser.add_argument("--symbols", nargs="+", default=["600536", "600761", "601825"])
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True)
    rows = 0
    for place, symbol in enumerate(given.symbols):
        (path,) = given.folder.glob(f"{symbol}_*_orders.csv.gz")
        tables = {kind: pd.read_csv(path.with_name(path.name.replace("orders", kind)), usecols=columns, dtype=str)
                  for kind, columns in _COLUMNS.items()}
        for copy in range(len(range(place, given.days, len(given.symbols)))):
            date = datetime.date(2030, 1, 1) + datetime.timedelta(days=copy)
            for kind, table in tables.items():
                rows += len(table)
                name = f"{symbol}_{date:%Y%m%d}_{kind}.csv.gz"
                shifted(table, _PRICES[kind], copy).to_csv(given.output / name, index=False, compression={
                    "method": "gzip", "compresslevel": 1, "mtime": 0})
    print(f"{given.days} days, {rows:,} rows")


def shifted(table: pd.DataFrame, column: str, ticks: int) -> pd.DataFrame:
    """The same rows with so many ticks on every price; 0 stands for none and stays."""
    price = table[column].astype(float)
    return table.assign(**{column: (price + ticks * _TICK).where(price > 0, 0.0).map("{:.2f}".format)})


if __name__ == "__main__":
    main(sys.argv[1:])
