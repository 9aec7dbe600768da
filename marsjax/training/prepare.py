"""Feeds -> converters and split tokens: everything that a training needs of its days."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.data.feed import FeedChunk
from marsjax.sim.refusals import Refusals
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter
from marsjax.training import converters, days
from marsjax.training.days import ReplayedDay, Tokens
from marsjax.training.split import Split, bounded, split


@dataclasses.dataclass(frozen=True)
class Feed:
    """One day to train on or to hold out, as it is read; `mirror` is the same one opened again, or None."""

    name: str
    orders: Iterator[FeedChunk]
    mirror: Iterator[FeedChunk] | None
    is_held_out: bool


@dataclasses.dataclass(frozen=True)
class Prepared:
    """What is trained on, and its bins."""

    split: Split
    converters: dict[str, Converter]
    refused: dict[str, Refusals]
    """Of the orders of each day, by its name."""
    names: tuple[str, ...]
    """Of the days that are trained on."""

    def counts(self) -> str:
        """One line on the sizes of the parts."""
        of = self.split
        whole = sum(span.count for span in of.held_out_symbols)
        images = len(of.training) - len(self.names)
        return (f"{sum(map(len, of.training)):,} orders of {len(self.names)} days "
                + (f"and {images} mirror images " if images else "")
                + f"to train on, {sum(span.count for span in of.validation):,} to validate, "
                f"{sum(span.count for span in of.held_out):,} held out"
                + (f", and {whole:,} of {len(of.held_out_symbols)} days held out whole" if whole else ""))

    def bounded(self, most: int, length: int) -> "Prepared":
        """The same with at most `most` orders to validate, and as many held out: `split.bounded`."""
        validation, held_out, unseen = (bounded(spans, most, length) for spans in (
            self.split.validation, self.split.held_out, self.split.held_out_symbols))
        return dataclasses.replace(self, split=dataclasses.replace(
            self.split, validation=validation, held_out=held_out, held_out_symbols=unseen))

    @staticmethod
    def frequencies(spec: TokenSpec, days: Sequence[Tokens]) -> np.ndarray:
        """float64 [classes], of days of tokens int32 [M, 15]."""
        found = np.zeros(spec.classes)
        for day in days:
            found += np.bincount(day[:, 0], minlength=spec.classes)
        return found


def fit_values(day: ReplayedDay, held_from_ns: int, length: int) -> dict[str, np.ndarray]:
    """What bins are fitted on of a day before its held-out part; InputError where it has too few orders there."""
    early = day.quantities(held_from_ns)
    if (count := len(early["order-volume"])) <= length:
        raise InputError(f"{day.name}: {count} orders before the held-out part are too few to train on; "
                         f"expected more than a window's {length}")
    return converters.summary(day.name, early)


def prepare(market: MarketSpec, spec: TokenSpec, feeds: Sequence[Feed], *, level_bins: int, validation_from_ns: int,
            held_from_ns: int, length: int, bins: Mapping[str, Converter] | None = None) -> Prepared:
    """Replays feeds, fits bins on the training days before the held-out part, and splits the tokens.

    With `bins`, by the names of `TOKEN_CONVERTERS`, those are taken in place of fitted ones.
    Mirror images are trained on, and bins are fitted on them too; they are in no other part. Raises InputError where a
    day has too few orders in a part, or no day is left to train on.
    """
    own = [feed for feed in feeds if not feed.is_held_out]
    if not own:
        raise InputError(f"training: every day is held out whole ({', '.join(feed.name for feed in feeds)}), none is "
                         "left to train on")
    opened = [(feed.name, feed.orders) for feed in feeds]
    opened += [(f"{feed.name} mirrored", days.mirrored(feed.mirror)) for feed in own if feed.mirror is not None]
    replayed = days.replay_days(market, [orders for _, orders in opened], [name for name, _ in opened])
    held = {feed.name for feed in feeds if feed.is_held_out}
    to_fit = [day for day in replayed if day.name not in held]
    values = [fit_values(day, held_from_ns, length) for day in to_fit]
    fitted = dict(bins) if bins else converters.fit_summaries(
        lambda name: (part[name] for part in values), len(values), spec, level_bins)
    table = encoding.tables(spec, fitted)
    made = [days.day_tokens(market, spec, table, day) for day in replayed]
    originals, images = made[: len(feeds)], made[len(feeds) :]
    parts = split([day for day in originals if day.name not in held], [day for day in originals if day.name in held],
                  validation_from_ns, held_from_ns, length)
    reflected = [[day.features[: int(np.searchsorted(day.time_ns, until))] for day in images]
                 for until in (validation_from_ns, held_from_ns)]
    return Prepared(dataclasses.replace(parts, training=[*parts.training, *reflected[0]],
                                        refit=[*parts.refit, *reflected[1]]), fitted,
                    {day.name: day.refused for day in replayed[: len(feeds)]}, tuple(feed.name for feed in own))
