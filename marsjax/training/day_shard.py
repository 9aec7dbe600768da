"""One day of a feed -> what bins are fitted on, then its tokens as files: what one process does of a preparation.

A day is replayed for each of the two: the views after its orders, from which its tokens are made once the bins are
known, are several times as large as the tokens.
"""

import dataclasses
import hashlib
import io
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np

from marsjax.core import files, limits
from marsjax.core.errors import InputError
from marsjax.core.json_text import json_text_of
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.core.unfinished import write_whole
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter
from marsjax.training import days, prepare, split, stored
from marsjax.training.days import DayTokens, ReplayedDay


@dataclasses.dataclass(frozen=True)
class ShardSpec:
    """What all days of a preparation have in common."""

    market: MarketSpec
    tokens: TokenSpec
    level_bins: int
    """Of volumes in the book."""
    validation_from_ns: int
    """Orders of a day from here on, nanoseconds since midnight, decide when to stop."""
    held_from_ns: int
    """And from here on are held out; bins are fitted on those before."""
    length: int
    """Tokens of a window: a day that is trained on has more before `validation_from_ns`."""
    mirror: bool
    """Whether each day that is trained on has a mirror image beside it."""
    bins_days: int = 0
    """Most days that bins are fitted on, spread evenly over all; 0: all. Each of them is replayed twice."""

    def __post_init__(self) -> None:
        limits.check_whole("ShardSpec.level_bins", self.level_bins, 2, 1024)
        limits.check_whole("ShardSpec.length", self.length, 1, 2**20)
        limits.check_whole("ShardSpec.bins_days", self.bins_days, 0, 2**31)
        if not self.validation_from_ns < self.held_from_ns:
            raise InputError("ShardSpec.validation_from_ns: expected a time before held_from_ns="
                             f"{self.held_from_ns}, got {self.validation_from_ns}")


@dataclasses.dataclass(frozen=True)
class DayPlaces:
    """Where what is made of one day lies."""

    values: Path
    """What bins are fitted on, .npz, until they are."""
    tokens: Path
    image: Path
    """Tokens of its mirror image."""
    record: Path
    """JSON, written last: a day that has it is done."""


def write_values(spec: ShardSpec, feed: DayFeed, places: DayPlaces) -> None:
    """Writes `prepare.fit_values` of a day that is trained on, and of its image; raises what that raises."""
    replayed, orders = _replayed(spec, feed, spec.mirror)
    found = [prepare.fit_values(day, spec.held_from_ns, spec.length) for day in replayed]
    held = io.BytesIO()
    named: dict[str, Any] = {f"{name}.{place}": values for place, part in enumerate(found)
                             for name, values in part.items()}
    np.savez_compressed(held, orders=np.array(orders), **named)
    write_whole(places.values, held.getvalue())


def read_values(path: Path, name: str) -> Iterable[np.ndarray]:
    """The values of one quantity in a file of `write_values`: of the day, and of its image if it has one."""
    with np.load(path) as file:
        return [file[key] for key in sorted(file.files) if key.rpartition(".")[0] == name]


def write_tokens(spec: ShardSpec, fitted: Mapping[str, Converter], feed: DayFeed, is_held_out: bool,
                 places: DayPlaces, names: Mapping[str, str] | None = None) -> None:
    """Writes the tokens of a day and of its image, then its record.

    The record has a hash of the day's orders, by which they are known again.

    Args:
      spec: how.
      fitted: the bins.
      feed: the day.
      is_held_out: whether nothing of it is trained on; then it has no image.
      places: where to.
      names: of what would have let refused orders in, as of `Refusals.problems`.

    Raises InputError where the day has too few orders in a part (`split.split`), or other orders than when bins were
    fitted.
    """
    replayed, orders = _replayed(spec, feed, spec.mirror and not is_held_out)
    if places.values.exists():
        with np.load(places.values) as file:
            _check_orders(feed, orders, str(file["orders"]), places.values)
    table = encoding.tables(spec.tokens, fitted)
    made = [days.day_tokens(spec.market, spec.tokens, table, day) for day in replayed]
    own, held = ([], made[:1]) if is_held_out else (made[:1], [])
    split.split(own, held, spec.validation_from_ns, spec.held_from_ns, spec.length)  # for what it raises
    refused = replayed[0].refused
    record: dict[str, Any] = {
        "name": feed.name, "symbol": feed.symbol, "held_out": is_held_out, "orders": orders,
        "tokens": _written(spec, places.tokens, made[0]),
        "image": _written(spec, places.image, made[1]) if len(made) > 1 else None,
        "refused": refused.record(), "told": refused.line(), "problems": refused.problems(names)}
    write_whole(places.record, json_text_of(record).encode())


def check_day(feed: DayFeed, places: DayPlaces) -> None:
    """Reads the orders of a day that is done, without a replay; InputError where they are not those of its record."""
    seen = _OrdersRead(feed.read())
    for _ in seen:
        pass
    _check_orders(feed, seen.digest(), files.read_json(places.record)["orders"], places.record)


class _OrdersRead(Iterator[FeedChunk]):
    """The chunks of a feed, and the hash of the orders that went by; it does not depend on where chunks end."""

    def __init__(self, chunks: Iterator[FeedChunk]) -> None:
        self._chunks = chunks
        self._columns: dict[str, Any] = {}

    def __next__(self) -> FeedChunk:
        chunk = next(self._chunks)
        synthetic = np.zeros(len(chunk.sequence), bool) if chunk.is_synthetic is None else chunk.is_synthetic
        for path, column in jax.tree.leaves_with_path((chunk.orders, synthetic)):
            held = self._columns.setdefault(jax.tree_util.keystr(path), hashlib.sha256())
            held.update(np.asarray(column, "<i8").tobytes())
        return chunk

    def digest(self) -> str:
        """Hexadecimal SHA-256."""
        every = [f"{name}: {held.hexdigest()}" for name, held in sorted(self._columns.items())]
        return hashlib.sha256("\n".join(every).encode()).hexdigest()


def _check_orders(feed: DayFeed, found: str, expected: str, path: Path) -> None:
    if found != expected:
        raise InputError(f"{feed.name}: its orders are not those that {path} was made of: put its files back, or "
                         "remove the whole folder and prepare again")


def _replayed(spec: ShardSpec, feed: DayFeed, has_image: bool) -> tuple[list[ReplayedDay], str]:
    """The day, its image if it is to have one, and the hash of its orders."""
    seen = _OrdersRead(feed.read())
    opened = [seen, *([days.mirrored(feed.read())] if has_image else [])]
    replayed = days.replay_days(spec.market, opened, [feed.name, f"{feed.name} mirrored"][: len(opened)])
    return replayed, seen.digest()


def _written(spec: ShardSpec, path: Path, made: DayTokens) -> dict[str, Any]:
    """Writes a file of tokens; what the index says of it: size and hash, tokens before the two times."""
    of = stored.write(path, made.features)
    return {**of._asdict(), "validation": int(np.searchsorted(made.time_ns, spec.validation_from_ns)),
            "held": int(np.searchsorted(made.time_ns, spec.held_from_ns))}
