"""A slow plain-Python twin of the tokens, in float64 and unbounded integers, written from the reference's rules."""

import dataclasses
import math

import numpy as np

from marsjax.tokens import bins
from marsjax.tokens.bins import Converter

LUNCH_ENDS_NS = 13 * 3600 * 10**9


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Ten levels a side as (price, volume), and the mid, None where it is undefined."""

    levels: tuple[tuple[int, int], ...]
    mid: int | None


@dataclasses.dataclass(frozen=True)
class Sent:
    """One accepted order: kind 0 sell, 1 buy, 2 cancel; the fills as (price, volume), none for a cancel."""

    time_ns: int
    kind: int
    price: int
    volume: int
    account: int
    fills: tuple[tuple[int, int], ...]


class TokenTwin:
    """Makes the 15 features of each order; `tokens` is the list so far."""

    def __init__(self, converters: dict[str, Converter], tick: int = 100) -> None:
        self.converters, self.tick = converters, tick
        self.tokens: list[list[int]] = []
        self.first_ns: int | None = None
        self.previous_ns = 0
        self.open: int | None = None
        self.run: tuple[Sent, Snapshot, int, int] | None = None  # a run of cancels: its first, what came before it

    def bin(self, name: str, value: float) -> int:
        return int(bins.index(self.converters[name], np.array([value], np.float64))[0])

    def see(self, sent: Sent, before: Snapshot, after: Snapshot) -> None:
        """Adds, merges or leaves out the token of one order."""
        if self.open is None and sent.fills:
            self.open = sent.fills[0][0]
        if self.run is not None and sent.kind == 2:
            first, first_before, interval, so_far = self.run
            if (first.time_ns, first.price, first.account) == (sent.time_ns, sent.price, sent.account):
                merged = dataclasses.replace(first, volume=so_far + sent.volume)
                self.run = (first, first_before, interval, so_far + sent.volume)
                if self.tokens:
                    self.tokens[-1] = self.features(merged, first_before, after, interval)
                return
        interval = sent.time_ns - self.previous_ns
        self.previous_ns = sent.time_ns
        self.run = (sent, before, interval, sent.volume) if sent.kind == 2 else None
        if self.first_ns is None:
            self.first_ns = sent.time_ns
            return
        self.tokens.append(self.features(sent, before, after, interval))

    def features(self, sent: Sent, before: Snapshot, after: Snapshot, interval_ns: int) -> list[int]:
        offset = 0 if before.mid is None else sent.price - before.mid
        counts = [self.converters[name].num_bins for name in ("price-level", "order-volume", "order-interval")]
        number = (sent.kind * counts[0] + self.bin("price-level", offset)) * counts[1]
        number = (number + self.bin("order-volume", sent.volume)) * counts[2]
        number += self.bin("order-interval", bins.interval_seconds(interval_ns))
        resting = sum(volume for price, volume in before.levels if price == sent.price)
        volume_ratio = sent.volume / (sent.volume + resting)
        trade_ratio = 1.0 if sent.kind == 2 else sum(volume for _, volume in sent.fills) / sent.volume
        change = 0
        if self.open is not None and after.mid is not None:
            change = int(min(max(after.mid / self.open - 1, -0.2), 0.2) * 10000)
        assert self.first_ns is not None
        seconds = (sent.time_ns - self.first_ns) // 10**9 - (5400 if sent.time_ns >= LUNCH_ENDS_NS else 0)
        cells = [0] * 10
        for price, volume in after.levels:
            if after.mid is not None and 0 <= (cell := (price - after.mid) // self.tick + 5) < 10:
                cells[cell] = self.bin("lob-volume", volume) + 1
        return [number, math.floor(volume_ratio * 0.99 * 10), math.floor(trade_ratio * 0.99 * 10), change,
                min(max(seconds, 0), 14404), *cells]
