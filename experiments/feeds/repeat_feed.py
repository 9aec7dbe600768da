"""Makes a long day of a real one: the same messages again and again, each time with ids of their own, in one day.

    python experiments/feeds/repeat_feed.py lobster data/lobster GOOG long/lobster --messages 10000000

Sources: lobster, databento, coinbase, sse. Times are squeezed so that all copies fit into the day. Between two copies
the book is put back to where the day began, by messages of the format: a trading halt (LOBSTER), a clear (Databento),
cancels and new orders (Coinbase, Shanghai). Of Shanghai only continuous trading is repeated; the day begins and ends
with its call auctions, as they were. `convert_feed.py` makes the other kinds of feed of such a day.
"""

import argparse
import csv
import datetime
import gzip
import sys
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple, TextIO

SECOND_NS = 10**9
DAY_NS = 86_400 * SECOND_NS
# Of Shanghai: where continuous trading begins and ends, and its break.
_OPEN_NS, _CLOSE_NS = 34_200 * SECOND_NS, 53_820 * SECOND_NS
_BREAK_NS = 41_400 * SECOND_NS, 46_800 * SECOND_NS
_NAMES = ("OrderNO",), ("TradeBuyNo", "TradeSellNo")
"""Columns of its files of orders and of trades that name orders."""


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
    """Order and trade files: the opening auction, copies of continuous trading, the closing auction."""
    paths = [sorted(folder.glob(f"{symbol}_*_{what}.csv*"))[0] for what in ("orders", "trades")]
    heads, days = zip(*((head, rows) for head, *rows in map(_rows, paths)), strict=True)
    rows = sorted((_ShanghaiRow.of(head, row, file) for file, (head, day) in enumerate(zip(heads, days, strict=True))
                   for row in day), key=lambda row: int(row.values["ApplSeqNum"]))
    opening = next(i for i, row in enumerate(rows) if row.ns >= _OPEN_NS)
    closing = next(i for i, row in enumerate(rows) if row.ns >= _CLOSE_NS)
    trading = rows[opening:closing]
    began, ended = _resting(rows[:opening]), _resting(rows[:closing])
    ids = {name: place for place, name in enumerate(dict.fromkeys(name for row in rows for name in row.ids()), 1)}
    copies = -(-messages // (len(trading) + len(began) + len(ended)))
    squeeze = Squeeze(_in_session(trading[0].ns), _in_session(trading[-1].ns), 0, _in_session(_CLOSE_NS) - 1, copies)
    with _written(output / paths[0].name) as orders, _written(output / paths[1].name) as trades:
        writer = _ShanghaiWriter((orders, trades), heads, ids)
        for row in rows[:opening]:
            writer.write(row, 0, row.ns)
        for copy in range(copies):
            for row in trading:
                writer.write(row, copy, _on_clock(squeeze.at(copy, _in_session(row.ns))))
            if copy < copies - 1:
                for kind, book, of in (("10", ended, copy), ("2", began, copy + 1)):
                    for row in book:
                        writer.write(row.again(kind), of, _on_clock(squeeze.at(copy, _in_session(trading[-1].ns))))
        for row in rows[closing:]:
            writer.write(row, copies - 1, row.ns)
    return writer.count


class _ShanghaiRow(NamedTuple):
    """A row of either file of Shanghai."""

    file: int
    """0 of orders, 1 of trades."""
    ns: int
    values: dict[str, str]

    @classmethod
    def of(cls, head: list[str], row: list[str], file: int) -> "_ShanghaiRow":
        values = dict(zip(head, row, strict=True))
        return cls(file, _clock(values["MDTime"]), values)

    def ids(self) -> list[str]:
        """Of the orders that it names."""
        return [self.values[name] for name in _NAMES[self.file]]

    def again(self, kind: str) -> "_ShanghaiRow":
        """An order as it comes (2) or goes (10)."""
        return self._replace(values=self.values | {"OrderType": kind})


class _ShanghaiWriter:
    """Numbers the rows of both files in one sequence, and the orders of each copy anew."""

    def __init__(self, files: tuple[TextIO, TextIO], heads: Sequence[list[str]], ids: dict[str, int]) -> None:
        self._files, self._ids, self.count = files, ids, 0
        for file, head in zip(files, heads, strict=True):
            file.write(",".join(head) + "\n")

    def write(self, row: _ShanghaiRow, copy: int, ns: int) -> None:
        """A row of a copy, at a time of day."""
        self.count += 1
        seconds, rest = divmod(ns, SECOND_NS)
        clock = f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}.{rest:09d}"
        own = {name: str(self._ids[row.values[name]] + copy * len(self._ids)) for name in _NAMES[row.file]}
        changed = row.values | own | {"MDTime": clock, "ApplSeqNum": str(self.count)}
        self._files[row.file].write(",".join(changed.values()) + "\n")


def _resting(rows: list[_ShanghaiRow]) -> list[_ShanghaiRow]:
    """The orders that rest after rows of both files, as adds of what is left of them, in order of priority."""
    added: dict[str, _ShanghaiRow] = {}
    left: dict[str, int] = {}
    for row in rows:
        values = row.values
        if row.file:
            # 1: the buyer came, the seller rested; 2: the other way round; 0: both rested, in a call auction.
            rested = {"1": ["TradeSellNo"], "2": ["TradeBuyNo"]}.get(values["TradeBSFlag"], list(_NAMES[1]))
            for name in rested:
                left[values[name]] -= int(values["TradeQty"])
        elif values["OrderType"] == "2":
            added[values["OrderNO"]], left[values["OrderNO"]] = row, int(values["OrderQty"])
        else:
            left[values["OrderNO"]] = 0
    return [row._replace(values=row.values | {"OrderQty": str(left[name])}) for name, row in added.items()
            if left[name]]


def _in_session(ns: int) -> int:
    """Nanoseconds of continuous trading before a time of day."""
    return min(ns, _BREAK_NS[0]) - _OPEN_NS + max(ns - _BREAK_NS[1], 0)


def _on_clock(ns: int) -> int:
    """The time of day after so much continuous trading."""
    return ns + _OPEN_NS + (_BREAK_NS[1] - _BREAK_NS[0] if ns + _OPEN_NS >= _BREAK_NS[0] else 0)


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
