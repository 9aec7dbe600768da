"""The book file of LOBSTER: N levels after every message, checked against what the messages say."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marsjax.core.records import MAX_PRICE, MAX_VOLUME
from marsjax.data.csv_rows import Rows, first_line, read_rows
from marsjax.data.feed import FeedError
from marsjax.data.lobster_follow import FAR, Levels
from marsjax.data.lobster_stream import CROSS, HALT, HIDDEN, NEW
from marsjax.data.resting import ASK, BID

_DUMMY = 9_999_999_999
"""Where there is no level: its size is 0, its price this, or less this for bids."""
_TOGETHER = 8192
"""Rows compared at a time."""
_SIGN = (1, -1)  # times a price: larger is farther from the touch; of asks, bids


class Messages(NamedTuple):
    """A block of checked messages, int64 [N] each."""

    time_ns: np.ndarray
    kind: np.ndarray
    order_id: np.ndarray
    size: np.ndarray
    price: np.ndarray
    direction: np.ndarray


class WindowMove(NamedTuple):
    """The window of one side has moved by a level."""

    side: int
    left: int
    """Price of the level that went out of sight or is gone, 0: none."""
    entered: int
    """Price of the level that came into sight, 0: none."""
    volume: int
    """What stands there; -1 where the message itself put it there."""
    bound: int
    """Up to where all levels are in sight, times -1 for bids; `FAR` if no more than these stand there."""


class Whole(NamedTuple):
    """All that a row shows, where it cannot be told from the message alone what changed."""

    levels: Levels
    bounds: tuple[int, int]
    is_crossed: bool


Sight = WindowMove | Whole


def read_first(path: Path) -> tuple[Rows, Levels]:
    """The first row of a book file; FeedError where it is damaged or empty."""
    names = _names(path)
    row = next(read_rows(path, names, 1, header=False))
    return row, _Block(row, names).wholes(np.arange(1), np.zeros(1, bool))[0].levels


class BookFile:
    """A book file that is read beside its messages."""

    def __init__(self, path: Path, chunk_rows: int) -> None:
        self._path = path
        self._names = _names(path)
        self._rows = read_rows(path, self._names, chunk_rows, header=False)
        self._held: list[_Block] = []
        self._last: tuple[np.ndarray, np.ndarray] | None = None  # price and volume [2, 1, L]
        self._is_halted = self._was_crossed = False
        self._row = self._line = 0

    def first(self, messages: Messages) -> tuple[Levels, tuple[int, int]]:
        """The levels before the first message, the first row with that message taken back, and their bounds."""
        block = next(self._rows, None)
        if block is None:
            raise FeedError(f"{self._path}: line 1: expected a row a message, got an empty file")
        self._held.append(_Block(block, self._names))
        self._line = int(block.line[-1])
        (whole,) = self._held[0].wholes(np.arange(1), np.zeros(1, bool))
        levels = whole.levels
        kind, size, price, direction = (int(column[0]) for column in messages[1:] if column is not messages.order_id)
        side = BID if direction == 1 else ASK
        if kind >= HIDDEN or price > MAX_PRICE:
            return levels, whole.bounds
        before = levels[side].get(price, 0) + (-size if kind == NEW else size)
        if before < 0:
            raise block.error(0, f"{('ask', 'bid')[side]}_size_1", f"the {size} shares of message 0 or more")
        changed = levels[side] | {price: before}
        kept = {p: changed[p] for p in sorted(changed, reverse=side == BID) if changed[p]}
        return ((kept, levels[BID]) if side == ASK else (levels[ASK], kept)), whole.bounds

    def beside(self, messages: Messages) -> Iterator[Sight | None]:
        """What is seen after each message; None where no level came or went.

        Raises FeedError where the file has no row for a message, or a row in which a level changed otherwise than the
        message says, trading halts and cross trades left out.
        """
        count, blocks = len(messages.time_ns), []
        while count:
            block = self._held.pop() if self._held else self._next()
            here, rest = block.split(count)
            if rest is not None:
                self._held.append(rest)
            blocks.append(here)
            count -= len(here.line)
        at = 0
        for block in blocks:
            for start in range(0, len(block.line), _TOGETHER):
                here = block.part(start, start + _TOGETHER)
                yield from self._sights(here, Messages(*(column[at:at + len(here.line)] for column in messages)))
                at += len(here.line)

    def end(self) -> None:
        """FeedError where there are rows without a message."""
        if self._held or next(self._rows, None) is not None:
            raise FeedError(f"{self._path}: expected one row a message, got more than the {self._row} messages")

    def _next(self) -> "_Block":
        rows = next(self._rows, None)
        if rows is None:
            raise FeedError(f"{self._path}: line {self._line}: expected one more row, one a message, got the end (to "
                            "read the first row alone: follow=False)")
        self._line = int(rows.line[-1])
        return _Block(rows, self._names)

    def _sights(self, block: "_Block", messages: Messages) -> list[Sight | None]:
        loose = self._loose(messages.kind, messages.price)
        price, volume = block.price, block.volume
        before = self._last or (price[:, :1], volume[:, :1])
        self._last = price[:, -1:], volume[:, -1:]
        moves, wrong = [], {}
        for side in (ASK, BID):
            changed = _Change(_SIGN[side], np.concatenate([before[0][side], price[side][:-1]]),
                              np.concatenate([before[1][side], volume[side][:-1]]), price[side], volume[side])
            is_own = (messages.kind < HIDDEN) & ((messages.direction == 1) == (side == BID))
            good = changed.agrees(np.where(is_own, messages.price, 0),
                                  np.where(messages.kind == NEW, messages.size, -messages.size)) | loose
            good[0] |= not self._row  # nothing is known of before
            if not good.all():
                wrong[int(np.argmin(good))] = ("asks", "bids")[side]
            moves.append(changed.moves(side, np.where(is_own & (messages.kind == NEW), messages.price, 0)))
        if wrong:
            row = min(wrong)
            raise FeedError(f"{self._path}: line {block.line[row]}: expected the {wrong[row]} to change as message "
                            f"{self._row + row} says (to read the first row alone: follow=False)")
        crossed = (volume[0][:, 0] > 0) & (volume[1][:, 0] > 0) & (price[0][:, 0] <= price[1][:, 0])
        doubtful = loose | crossed
        doubtful[1:] |= crossed[:-1]
        doubtful[0] |= self._was_crossed
        self._was_crossed = bool(crossed[-1])
        self._row += len(loose)
        sights = [ask or bid for ask, bid in zip(*moves, strict=True)]
        rows = np.flatnonzero(doubtful)
        for row, whole in zip(rows.tolist(), block.wholes(rows, crossed[rows]), strict=True):
            sights[row] = whole
        return sights

    def _loose(self, kind: np.ndarray, price: np.ndarray) -> np.ndarray:
        """bool [N]: rows that need not be explained by their message, while trading is halted or crosses are held."""
        is_change = (kind == HALT) & (np.abs(price) == 1)  # -1 halts, 1 resumes; 0 resumes quoting alone
        last = np.maximum.accumulate(np.where(is_change, np.arange(len(kind)), -1))
        halted = np.where(last >= 0, price[last] == -1, self._is_halted)
        if len(halted):
            self._is_halted = bool(halted[-1])
        return halted | (kind == CROSS) | (kind == HALT)


class _Change:
    """How one side differs from the row before it, N rows of L levels; one message moves a window by one level."""

    def __init__(self, sign: int, old_price: np.ndarray, old_volume: np.ndarray, price: np.ndarray,
                 volume: np.ndarray) -> None:
        self._sign = sign
        self._old_price, self._old_volume, self._price, self._volume = old_price, old_volume, price, volume
        is_level, was_level = volume > 0, old_volume > 0
        self._carried = np.zeros_like(volume)
        found, kept = np.zeros(price.shape, bool), np.zeros(price.shape, bool)
        levels = price.shape[1]
        for step in (-1, 0, 1):
            new, old = slice(max(0, -step), levels - max(0, step)), slice(max(0, step), levels - max(0, -step))
            same = (price[:, new] == old_price[:, old]) & is_level[:, new] & was_level[:, old]
            self._carried[:, new] += np.where(same, old_volume[:, old], 0)
            found[:, new] |= same
            kept[:, old] |= same
        self._found, self._entered, self._left = found, is_level & ~found, was_level & ~kept

    def moves(self, side: int, new: np.ndarray) -> list[Sight | None]:
        """What came and went, where something did; `new`, int64 [N], is the price of the message's own new order."""
        rows = np.flatnonzero((self._entered | self._left).any(axis=1))
        entered, left = self._entered[rows], self._left[rows]
        price, volume = ((column[rows] * entered).sum(axis=1) for column in (self._price, self._volume))
        is_held = price <= MAX_PRICE
        columns = ((self._old_price[rows] * left).sum(axis=1), price * is_held,
                   np.where(price == new[rows], -1, volume), _bounds(side, self._price[rows], self._volume[rows]))
        moves: list[Sight | None] = [None] * len(new)
        for row, *move in zip(rows.tolist(), *(column.tolist() for column in columns), strict=True):
            moves[row] = WindowMove(side, *move)
        return moves

    def agrees(self, at: np.ndarray, change: np.ndarray) -> np.ndarray:
        """bool [N]: only the level at price `at` (0: none) changed, by `change`, and the window moved as it must."""
        at, change = at[:, None], change[:, None]
        is_here, was_here = self._price == at, self._old_price == at
        good = ~self._found | (self._volume - self._carried == np.where(is_here, change, 0))
        good &= ~self._entered | np.where(is_here, self._volume == change, self._beyond(self._price, self._old_price,
                                                                                        self._old_volume))
        good &= ~self._left | np.where(was_here, self._old_volume + change == 0,
                                       self._beyond(self._old_price, self._price, self._volume))
        return good.all(axis=1)

    def _beyond(self, price: np.ndarray, of: np.ndarray, volume: np.ndarray) -> np.ndarray:
        """Prices farther than the last level of another row that is full."""
        return (self._sign * price > self._sign * of[:, -1:]) & (volume[:, -1:] > 0)


class _Block:
    """Checked rows of a book file: price and volume [2, N, L], 0 shares where there is no level."""

    def __init__(self, rows: Rows, names: list[str]) -> None:
        columns = np.stack([rows.integers(name, 0, MAX_VOLUME) if "size" in name else
                            rows.integers(name, -_DUMMY, _DUMMY) for name in names])
        table = columns.reshape(len(names) // 4, 4, -1).transpose(1, 2, 0)
        self.line = rows.line
        self.price, self.volume = np.ascontiguousarray(table[0::2]), np.ascontiguousarray(table[1::2])
        for side, name in enumerate(("ask", "bid")):
            price, is_level = self.price[side], self.volume[side] > 0
            rows.require((~is_level | (price > 0)).all(axis=1), f"{name}_price_1", "prices above 0")
            in_order = ~is_level[:, 1:] | (is_level[:, :-1] & (_SIGN[side] * np.diff(price, axis=1) > 0))
            rows.require(in_order.all(axis=1), f"{name}_price_1", "levels from the best on")

    def split(self, count: int) -> "tuple[_Block, _Block | None]":
        """The first `count` rows and the rest."""
        if count >= len(self.line):
            return self, None
        return self.part(0, count), self.part(count, len(self.line))

    def part(self, start: int, end: int) -> "_Block":
        """The rows from `start` to before `end`."""
        block = object.__new__(_Block)
        block.line, block.price, block.volume = (self.line[start:end], self.price[:, start:end],
                                                 self.volume[:, start:end])
        return block

    def wholes(self, rows: np.ndarray, crossed: np.ndarray) -> list[Whole]:
        """All that some rows, int64 [M], show."""
        bounds = (_bounds(side, self.price[side][rows], self.volume[side][rows]).tolist() for side in (ASK, BID))
        return [Whole((asks, bids), (ask, bid), is_crossed) for asks, bids, ask, bid, is_crossed in zip(
            self._levels(ASK, rows), self._levels(BID, rows), *bounds, crossed.tolist(), strict=True)]

    def _levels(self, side: int, rows: np.ndarray) -> list[dict[int, int]]:
        """Volume by price of these rows, up to the first level above the highest price of the exchange."""
        price, volume = self.price[side][rows], self.volume[side][rows]
        is_level = (volume > 0) & (price <= MAX_PRICE)
        count = is_level.sum(axis=1).tolist()
        return [dict(zip(p[:n], v[:n], strict=True))
                for p, v, n in zip(price.tolist(), volume.tolist(), count, strict=True)]


def _bounds(side: int, price: np.ndarray, volume: np.ndarray) -> np.ndarray:
    """`WindowMove.bound` of levels [M, L], int64 [M]."""
    is_full = (volume[:, -1] > 0) & (price[:, -1] <= MAX_PRICE)
    return np.where(is_full, _SIGN[side] * price[:, -1], FAR)


def _names(path: Path) -> list[str]:
    width = first_line(path).count(",") + 1
    if width % 4:
        raise FeedError(f"{path}: line 1: expected four columns a level, got {width} columns")
    return [f"{name}_{level + 1}" for level in range(width // 4)
            for name in ("ask_price", "ask_size", "bid_price", "bid_size")]
