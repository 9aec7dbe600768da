"""Makes other kinds of feed of a day: Shenzhen's files of one of Shanghai, plain CSV and DBN of Databento's CSV.

    python experiments/feeds/convert_feed.py szse long/sse long/szse
    python experiments/feeds/convert_feed.py csv long/databento long/csv
    python experiments/feeds/convert_feed.py dbn long/databento long/dbn

The folder holds one day, as `repeat_feed.py` makes it. Shenzhen publishes orders as they were sent, each followed by
its trades; that is how they are written, under a code of its own.
"""

import argparse
import csv
import datetime
import gzip
import itertools
import sys
import types
from array import array
from collections.abc import Iterator
from pathlib import Path

from marsjax.core import times
from marsjax.core.records import Kind
from marsjax.data import databento, neutral, sources
from marsjax.data.feed import AUCTION, FeedChunk

_ORDER_HEAD = "ChannelNo,ApplSeqNum,SecurityID,TransactTime,OrdType,Side,Price,OrderQty\n"
_TRADE_HEAD = "ChannelNo,ApplSeqNum,SecurityID,TransactTime,ExecType,BidApplSeqNum,OfferApplSeqNum,LastPx,LastQty\n"
_CODE = "000001"


def main(arguments: list[str]) -> None:
    """Writes the files of one kind into a new folder."""
    parser = argparse.ArgumentParser(description="a day as another kind of feed")
    parser.add_argument("kind", choices=sorted(_MAKERS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("output", type=Path)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=False)
    print(f"{_MAKERS[given.kind](given.folder, given.output)} lines")


def plain(folder: Path, output: Path) -> int:
    """Databento's day as plain CSV, which like it knows no call auctions."""
    (day,) = sources.open_days("databento", folder)
    count = 0
    with gzip.open(output / f"{day.name}.csv.gz", "wt", compresslevel=1) as out:
        for chunk in day.read():
            neutral.frame(chunk.orders).to_csv(out, index=False, header=not count)
            count += len(chunk.sequence)
    return count


def shenzhen(folder: Path, output: Path) -> int:
    """Orders as they were sent, trades and cancels, in Shenzhen's files."""
    (day,) = sources.open_days("sse", folder)
    names = (output / f"{_CODE}_{day.date}_{what}.csv.gz" for what in ("orders", "trades"))
    with (gzip.open(next(names), "wt", compresslevel=1) as orders, gzip.open(next(names), "wt", compresslevel=1)
          as trades):
        orders.write(_ORDER_HEAD)
        trades.write(_TRADE_HEAD)
        number_of, number = array("i"), 0
        for chunk in day.read():
            for is_order, own, text in _shenzhen_rows(chunk):
                number += 1
                if is_order and own >= 0:
                    number_of.extend([0] * (own + 1 - len(number_of)))
                    number_of[own] = number
                if is_order:
                    orders.write(f"1,{number},{_CODE},{text}\n")
                else:
                    at, kind, buy, sell, rest = text.split(",", 4)
                    ids = ",".join(str(number_of[int(x)]) if int(x) >= 0 else "0" for x in (buy, sell))
                    trades.write(f"1,{number},{_CODE},{at},{kind},{ids},{rest}\n")
    return number


def _shenzhen_rows(chunk: FeedChunk) -> Iterator[tuple[bool, int, str]]:
    """Rows in the order of their numbers: whether it is an order, its id at Shanghai, and what stands in it."""
    fills = chunk.fills
    of_order: dict[int, list[str]] = {}
    auction: list[tuple[int, str]] = []
    columns = (fills.time_ns, fills.price, fills.volume, fills.buy_id, fills.sell_id, fills.aggressor, fills.sequence)
    for ns, price, volume, buy, sell, aggressor, sequence in zip(*(x.tolist() for x in columns), strict=True):
        text = f"{_clock(ns)},F,{buy},{sell},{price / 10_000:.2f},{volume}"
        if aggressor == AUCTION:
            auction.append((sequence, text))
        else:
            of_order.setdefault(buy if aggressor == Kind.BUY else sell, []).append(text)
    auction.reverse()
    orders = chunk.orders
    sent = (times.to_ns(orders.time), orders.kind, orders.price, orders.volume, orders.order_id, orders.cancel_side,
            orders.cancel_id, chunk.sequence)
    for ns, kind, price, volume, own, side, hit, sequence in zip(*(x.tolist() for x in sent), strict=True):
        while auction and auction[-1][0] < sequence:
            yield False, -1, auction.pop()[1]
        if kind == Kind.CANCEL:
            buy, sell = (hit, -1) if side == Kind.BUY else (-1, hit)
            yield False, -1, f"{_clock(ns)},4,{buy},{sell},0.00,{volume}"
            continue
        yield True, own, f"{_clock(ns)},2,{'1' if kind == Kind.BUY else '2'},{price / 10_000:.2f},{volume}"
        for text in of_order.pop(own, ()):
            yield False, -1, text
    for _, text in reversed(auction):
        yield False, -1, text


def _clock(ns: int) -> str:
    seconds, rest = divmod(ns, 10**9)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:09d}"


def dbn(folder: Path, output: Path) -> int:
    """Databento's CSV as its own binary records."""
    import databento_dbn as library

    (path,) = folder.glob("*.csv*")
    (day,) = databento.days(path)
    of = {"start_date": datetime.date.fromisoformat(day.date),
          "end_date": datetime.date.fromisoformat(day.date) + datetime.timedelta(days=1)}
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as text:
        rows = csv.DictReader(text)
        first = next(rows)
        mapping = types.SimpleNamespace(raw_symbol=day.symbol, intervals=[
            types.SimpleNamespace(symbol=first["instrument_id"], **of)])
        metadata = library.Metadata(
            dataset="XNAS.ITCH", start=0, stype_in=library.SType.RAW_SYMBOL, stype_out=library.SType.INSTRUMENT_ID,
            schema=library.Schema.MBO, symbols=[day.symbol], partial=[], not_found=[], mappings=[mapping])
        with (output / f"{day.name}.dbn").open("wb") as out:
            out.write(metadata.encode())
            for count, row in enumerate(itertools.chain([first], rows), 1):
                price = round(float(row["price"]) * 10**9) if row["price"] else library.UNDEF_PRICE
                out.write(bytes(library.MBOMsg(
                    int(row["publisher_id"]), int(row["instrument_id"]), int(row["ts_event"]), int(row["order_id"]),
                    price, int(row["size"]), library.Action(row["action"]), library.Side(row["side"]),
                    int(row["ts_recv"]), flags=int(row["flags"]), sequence=count)))
    return count


_MAKERS = {"csv": plain, "szse": shenzhen, "dbn": dbn}

if __name__ == "__main__":
    main(sys.argv[1:])
