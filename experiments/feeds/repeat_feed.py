"""Makes a long day of a real one: the same messages again and again, each time with ids of their own, in one day.

    python experiments/feeds/repeat_feed.py lobster data/lobster GOOG long/lobster --messages 10000000

Sources: lobster, databento, coinbase, sse. Times are squeezed so that all copies fit into the day. Between two copies
the book is put back to where the day began, by messages of the format: a trading halt (LOBSTER), a clear (Databento),
cancels and new orders (Coinbase). Copies of Shanghai's files follow each other as they are: they can be read, but
make no market, as their call auctions lie in its middle.
"""

import argparse
import csv
import datetime
import gzip
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS


def main(arguments: list[str]) -> None:
    """Writes the files of one source into a new folder."""
    parser = argparse.ArgumentParser(description="a long day of a real one")
    parser.add_argument("source", choices=sorted(_MAKERS))
    parser.add_argument("folder", type=Path)
    parser.add_argument("symbol", help="of the file's name; of coinbase any")
    parser.add_argument("output", type=Path)
    parser.add_argument("--messages", type=int, default=10_000_000)
    given = parser.parse_args(arguments)
    given.output.mkdir(parents=True, exist_ok=False)
    print(f"{_MAKERS[given.source](given.folder, given.symbol, given.output, given.messages)} lines")


class Squeeze:
    """Times of day of K copies that fit between two times."""

    def __init__(self, first_ns: int, last_ns: int, start_ns: int, end_ns: int, copies: int) -> None:
        self._first, self._span = first_ns, last_ns - first_ns + 1
        self._start, self._room, self._copies = start_ns, end_ns - start_ns, copies

    def at(self, copy: int, ns: int) -> int:
        """The time of a message of a copy, nanoseconds since midnight."""
        return self._start + (copy * self._span + ns - self._first) * self._room // (self._copies * self._span)


def lobster(folder: Path, symbol: str, output: Path, messages: int) -> int:
    """Message and book file, a halt between two copies."""
    (path,) = folder.glob(f"{symbol}_*_message_*.csv*")
    book_path = path.with_name(path.name.replace("_message_", "_orderbook_"))
    rows, books = list(_rows(path)), [",".join(row) for row in _rows(book_path)]
    start, end = (int(x) * 10**6 for x in path.name.split("_")[2:4])
    ids = {number: place for place, number in enumerate(dict.fromkeys(row[2] for row in rows), 1)}
    stamps = [_seconds(row[0]) for row in rows]
    copies = -(-messages // len(rows))
    squeeze = Squeeze(stamps[0], stamps[-1], start, end - 1, copies)
    empty = ",".join(["9999999999,0,-9999999999,0"] * (len(books[0].split(",")) // 4))
    before, count = _before(books[0], rows[0]), 0
    with _written(output / path.name) as out, _written(output / book_path.name) as out_book:
        for copy in range(copies):
            if copy:
                at = _text(squeeze.at(copy, stamps[0]))
                out.write(f"{at},7,0,0,-1,-1\n{at},7,0,0,1,-1\n")
                out_book.write(f"{empty}\n{before}\n")
            for row, stamp, levels in zip(rows, stamps, books, strict=True):
                order_id = ids[row[2]] + copy * len(ids) if int(row[1]) < 5 else 0
                out.write(f"{_text(squeeze.at(copy, stamp))},{row[1]},{order_id},{','.join(row[3:])}\n")
                out_book.write(f"{levels}\n")
                count += 1
    return count


def _before(levels: str, message: list[str]) -> str:
    """The book before a message that is no new order: its shares are put back."""
    numbers = [int(x) for x in levels.split(",")]
    side = 2 if message[5] == "1" else 0
    for at in range(side, len(numbers), 4):
        if numbers[at] == int(message[4]) and int(message[1]) in (2, 3, 4):
            numbers[at + 1] += int(message[3])
    return ",".join(map(str, numbers))


def databento(folder: Path, symbol: str, output: Path, messages: int) -> int:
    """One file, a clear between two copies."""
    (path,) = folder.glob(f"{symbol}_*.csv*")
    head, *rows = _rows(path)
    at = {name: head.index(name) for name in head}
    stamps = [_utc(row[at["ts_event"]]) for row in rows]
    midnight = stamps[0] // DAY_NS * DAY_NS
    copies, count = -(-messages // len(rows)), 0
    # 8 to 20 o'clock of UTC are one day in New York too.
    squeeze = Squeeze(stamps[0], stamps[-1], midnight + 8 * 3600 * SECOND_NS, midnight + 20 * 3600 * SECOND_NS, copies)
    with _written(output / path.name) as out:
        out.write(",".join(head) + "\n")
        for copy in range(copies):
            for number, (row, stamp) in enumerate(zip(rows, stamps, strict=True)):
                ns = squeeze.at(copy, stamp)
                row[at["ts_event"]] = row[at["ts_recv"]] = str(ns)
                if not number and copy:
                    clear = dict(zip(head, row, strict=True)) | {
                        "action": "R", "side": "N", "price": "", "size": "0", "order_id": "0"}
                    out.write(",".join(clear.values()) + "\n")
                out.write(",".join(row) + "\n")
                count += 1
    return count


def coinbase(folder: Path, symbol: str, output: Path, messages: int) -> int:
    """Messages and the book before; after each copy the book is put back, under new names where it must."""
    del symbol
    head, *rows = _rows(next(folder.glob("messages.csv*")))
    book_head, *book = _rows(next(folder.glob("beginning_level_3.csv*")))
    at = {name: head.index(name) for name in head}
    with _written(output / "beginning_level_3.csv.gz") as out:
        out.writelines(",".join(row) + "\n" for row in [book_head, *book])
    began = {row[4]: row for row in book}
    stamps = [_utc(row[at["time"]]) for row in rows]
    midnight = stamps[0] // DAY_NS * DAY_NS
    restoring = _restoring(rows, at, began)
    copies = -(-messages // (len(rows) + len(restoring)))
    squeeze = Squeeze(stamps[0], stamps[-1], midnight, midnight + DAY_NS - 1, copies)
    names, sequence, count = {order: order for order in began}, int(book[0][0]), 0
    with _written(output / "messages.csv.gz") as out:
        out.write(",".join(head) + "\n")
        for copy in range(copies):
            own: dict[str, str] = {}
            for row, stamp in zip([*rows, *restoring], [*stamps, *[stamps[-1]] * len(restoring)], strict=True):
                sequence, count = sequence + 1, count + 1
                row = list(row)
                row[at["time"]], row[at["sequence"]] = str(squeeze.at(copy, stamp)), str(sequence)
                for name in ("order_id", "maker_order_id", "taker_order_id"):
                    old = row[at[name]]
                    if old and row[at["reason"]] == "again":
                        names[old] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{old}{copy}"))
                    if old:
                        row[at[name]] = names.get(old) or own.setdefault(
                            old, str(uuid.uuid5(uuid.NAMESPACE_OID, f"{old}{copy}")))
                out.write(",".join(row) + "\n")
    return count


def _restoring(rows: list[list[str]], at: dict[str, int], began: dict[str, list[str]]) -> list[list[str]]:
    """Messages that bring the book back: cancels of what is new or changed, and what was there, opened again."""
    left = {order: row[3] for order, row in began.items()}
    new: dict[str, list[str]] = {}
    touched: dict[str, None] = {}
    for row in rows:
        kind, order = row[at["type"]], row[at["order_id"]]
        if kind == "open":
            new[order] = row
        elif kind == "done":
            touched |= {order: None} if left.pop(order, None) else {}
            new.pop(order, None)
        elif kind == "match" and row[at["maker_order_id"]] in left:
            touched[row[at["maker_order_id"]]] = None
    found = []
    for order, row in new.items():
        found.append(_message(at, "done", order, row[at["side"]], row[at["price"]], ""))
    for order in touched:
        _, side, price, size, _ = began[order]
        if order in left:
            found.append(_message(at, "done", order, side, price, ""))
        found.append(_message(at, "open", order, side, price, size))
    return found


def _message(at: dict[str, int], kind: str, order: str, side: str, price: str, left: str) -> list[str]:
    row = [""] * len(at)
    for name, value in (("type", kind), ("order_id", order), ("side", side), ("price", price),
                        ("remaining_size", left), ("product_id", "BTC-USD"), ("reason", "again" * (kind == "open"))):
        row[at[name]] = value
    return row


def sse(folder: Path, symbol: str, output: Path, messages: int) -> int:
    """Order and trade files, one copy behind the other."""
    paths = [sorted(folder.glob(f"{symbol}_*_{what}.csv*"))[0] for what in ("orders", "trades")]
    tables = [list(_rows(path)) for path in paths]
    columns = {name for head, *_ in tables for name in head}
    stamps = [[_clock(row[head.index("MDTime")]) for row in rows] for head, *rows in tables]
    numbers = [max(int(row[head.index(name)]) for head, *rows in tables for row in rows if name in head)
               for name in ("ApplSeqNum", "OrderNO")]
    copies, count = -(-messages // sum(map(len, stamps))), 0
    squeeze = Squeeze(min(map(min, stamps)), max(map(max, stamps)), 0, DAY_NS - 1, copies)
    for path, (head, *rows), times in zip(paths, tables, stamps, strict=True):
        steps = {head.index(name): numbers[name != "ApplSeqNum"] + 1 for name in columns & {
            "ApplSeqNum", "OrderNO", "TradeBuyNo", "TradeSellNo"} if name in head}
        with _written(output / path.name) as out:
            out.write(",".join(head) + "\n")
            for copy in range(copies):
                for row, stamp in zip(rows, times, strict=True):
                    seconds, ns = divmod(squeeze.at(copy, stamp), SECOND_NS)
                    text = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{ns:09d}"
                    out.write(",".join(text if name == "MDTime" else str(int(value) + copy * steps[place])
                                       if place in steps and int(value) else value
                                       for place, (name, value) in enumerate(zip(head, row, strict=True))) + "\n")
                    count += 1
    return count


def _rows(path: Path) -> Iterator[list[str]]:
    with gzip.open(path, "rt", newline="") if path.suffix == ".gz" else path.open(newline="") as file:
        yield from csv.reader(file)


def _written(path: Path) -> TextIO:
    """Packed lightly: the time of writing matters more than the size."""
    if path.suffix == ".gz":
        return gzip.open(path, "wt", compresslevel=1)  # type: ignore[return-value]
    return path.open("w")


def _seconds(text: str) -> int:
    whole, _, fraction = text.partition(".")
    return int(whole) * SECOND_NS + int(fraction.ljust(9, "0")[:9])


def _text(ns: int) -> str:
    return f"{ns // SECOND_NS}.{ns % SECOND_NS:09d}"


def _clock(text: str) -> int:
    hours, minutes, seconds = text.split(":")
    return (int(hours) * 3600 + int(minutes) * 60) * SECOND_NS + _seconds(seconds)


def _utc(text: str) -> int:
    """An ISO stamp with Z -> nanoseconds since 1970."""
    day = datetime.date.fromisoformat(text[:10]) - datetime.date(1970, 1, 1)
    return day.days * DAY_NS + _clock(text[11:].removesuffix("Z"))


_MAKERS = {"lobster": lobster, "databento": databento, "coinbase": coinbase, "sse": sse}

if __name__ == "__main__":
    main(sys.argv[1:])
