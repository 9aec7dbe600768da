"""Replayed days and rollouts -> images of minutes, and what each minute did."""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from marsjax.core import int64, order_images, times
from marsjax.core.errors import InputError
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.records import Kind, Status
from marsjax.core.times import SECOND_NS
from marsjax.model.order_batch.readout import READ
from marsjax.tokens import bins
from marsjax.training.days import ReplayedDay

_PER_DAY = 40_000
"""Volumes that stand for a day's, whatever its number of orders."""


class SeenOrders(NamedTuple):
    """Accepted orders of continuous trading, NumPy arrays [N] in sequence."""

    time_ns: np.ndarray
    """int64, nanoseconds since midnight."""
    kind: np.ndarray
    price: np.ndarray
    """Of a cancel that of the (first) order that it takes back."""
    volume: np.ndarray
    traded: np.ndarray
    """int64, shares that it traded at once."""
    before_twice: np.ndarray
    """Twice the float mid before it, not above 0 where there is none."""
    after_twice: np.ndarray
    spread: np.ndarray
    """After it, 1e-4 of the currency."""
    depth: np.ndarray
    """int64, shares at the levels of the view after it, both sides."""

    def mirrored(self) -> "SeenOrders":
        """The same with buys and sells exchanged, and prices of the other sign: nothing but images is made of these."""
        return self._replace(kind=np.where(self.kind == Kind.CANCEL, self.kind, 1 - self.kind), price=-self.price,
                             before_twice=-self.before_twice, after_twice=-self.after_twice)


class Minutes(NamedTuple):
    """Intervals one after the other, without a break, NumPy arrays [I, ...]."""

    images: np.ndarray
    """uint8 [I, 3, 2 V, P]."""
    read: np.ndarray
    """float32 [I, len(READ)], NaN where nothing can be said."""
    begin_ns: int
    """Of the first, nanoseconds since midnight."""
    source: str
    """The day, or what stands for it."""


def of_day(day: ReplayedDay) -> SeenOrders:
    """The orders of a replayed day."""
    orders, reports, views = day.orders, day.reports, day.views
    keep = day.continuous & (reports.status == Status.ACCEPTED)
    is_cancel = np.asarray(orders.kind) == Kind.CANCEL
    after, traded = np.asarray(views.mid_price_twice), int64.to_numpy(reports.trades.volume)
    before = np.concatenate([[-1], after[:-1]])
    depth = sum(int64.to_numpy(volume).sum(axis=-1) for volume in (views.ask_volume, views.bid_volume))
    found = (times.to_ns(orders.time), orders.kind, np.where(is_cancel, reports.trades.price[:, 0], orders.price),
             orders.volume, np.where(is_cancel, 0, traded), before, after, views.spread, depth)
    return SeenOrders(*(np.asarray(x)[keep] for x in found))


def of_event(event: Any) -> SeenOrders:
    """The orders of events of one trajectory (`market.process.Event` [N] of NumPy arrays, as traces hold)."""
    keep = np.asarray(event.happened) & (np.asarray(event.status) == Status.ACCEPTED)
    orders, view = event.order, event.view
    is_cancel, shares = np.asarray(orders.kind) == Kind.CANCEL, int64.to_numpy(event.trades.volume)
    depth = sum(int64.to_numpy(volume).sum(axis=-1) for volume in (view.ask_volume, view.bid_volume))
    found = (times.to_ns(orders.time), orders.kind, np.where(is_cancel, event.trades.price[:, 0], orders.price),
             np.where(is_cancel, shares, orders.volume), np.where(is_cancel, 0, shares), event.before.mid_price_twice,
             view.mid_price_twice, view.spread, depth)
    return SeenOrders(*(np.asarray(x)[keep] for x in found))


def until(seen: SeenOrders, until_ns: int) -> SeenOrders:
    """The orders before a time, nanoseconds since midnight."""
    return SeenOrders(*(column[seen.time_ns < until_ns] for column in seen))


def fitted_edges(seen: Sequence[SeenOrders], slots: int) -> tuple[int, ...]:
    """`OrderBatchSpec.volume_edges` for so many rows of about equal counts, each day with the same weight.

    InputError where the orders have too few volumes that differ.
    """
    most = min(max(len(day.volume) for day in seen), _PER_DAY)
    at = np.linspace(0, 1, most)
    values = np.concatenate([np.quantile(day.volume, at, method="nearest") for day in seen if len(day.volume)])
    try:
        edges = np.unique(bins.fit(values, slots).edges[1:-1])
    except InputError as error:
        raise InputError(f"order batches: {slots} rows (volume_slots) are too many for the volumes of these orders: "
                         f"{error}") from error
    if len(edges) < slots - 1:
        raise InputError(f"order batches: {slots} rows (volume_slots) are too many for the volumes of these orders, "
                         f"which have {len(edges)} edges")
    return tuple(int(edge) for edge in edges)


def minutes(spec: OrderBatchSpec, seen: SeenOrders, tick: int, period_ns: tuple[int, int], source: str,
            is_mirrored: bool = False) -> Minutes:
    """The whole intervals in a period of orders, from its begin on; InputError where it holds none.

    Args:
      spec: of the images.
      seen: orders; those outside the period are left out.
      tick: 1e-4 of the currency.
      period_ns: first nanosecond since midnight, and the first that is no more in it.
      source: the day's name.
      is_mirrored: whether the images are those of the market with buys and sells exchanged; where the mid is a
        whole tick, a price between two columns goes to the other one of them then.
    """
    begin, end = period_ns
    count = (end - begin) // (spec.every_s * SECOND_NS)
    if count < 1:
        raise InputError(f"order batches: {source}: expected a period of at least {spec.every_s} s, got "
                         f"{(end - begin) / SECOND_NS:g} s")
    interval = (seen.time_ns - begin) // (spec.every_s * SECOND_NS)
    inside = (interval >= 0) & (interval < count)
    seen, interval = SeenOrders(*(x[inside] for x in seen)), interval[inside]
    bounds = np.searchsorted(interval, np.arange(count + 1))
    has_orders = bounds[1:] > bounds[:-1]
    begins = np.zeros(count, np.int64)
    begins[has_orders] = seen.before_twice[bounds[:-1][has_orders]]
    of, shift = (seen.mirrored(), _shift(tick)) if is_mirrored else (seen, 0)
    before = np.where(seen.before_twice > 0, of.before_twice + 2 * shift, 0)
    first = np.where(begins > 0, (-begins if is_mirrored else begins) + 2 * shift, 0)
    columns = (of.kind.astype(np.int32), (of.price + shift).astype(np.int32), of.volume.astype(np.int32))
    mids_twice = before.astype(np.int32), first[interval].astype(np.int32)
    images = order_images.of_orders(spec, columns, mids_twice, tick, interval, count)
    read = np.stack([_read(SeenOrders(*(x[low:high] for x in seen)), tick, is_mirrored)
                     for low, high in itertools.pairwise(bounds)])
    return Minutes(images, read, begin, source)


def _shift(tick: int) -> int:
    """Far above all prices, a whole number of ticks: a mirror image has prices of the other sign, mids are above 0."""
    return 2**29 // tick * tick


def _read(seen: SeenOrders, tick: int, is_mirrored: bool) -> np.ndarray:
    """float32 [len(READ)] of the orders of one interval."""
    if not len(seen.kind) or seen.before_twice[0] <= 0 or (seen.after_twice <= 0).any():
        return np.full(len(READ), np.nan, np.float32)
    mids = np.concatenate([seen.before_twice[:1], seen.after_twice]) / (2 * tick)
    bought, sold = (int(seen.traded[seen.kind == kind].sum()) for kind in (Kind.BUY, Kind.SELL))
    sign = -1 if is_mirrored else 1
    return np.array([sign * (mids[-1] - mids[0]), np.sqrt(np.sum(np.diff(mids) ** 2)), bought + sold,
                     sign * (bought - sold) / max(bought + sold, 1), seen.spread.mean() / tick, seen.depth.mean(),
                     len(seen.kind)], np.float32)


class BatchData(NamedTuple):
    """Runs of intervals: what is trained on, what decides when to stop, and what is held out."""

    training: tuple[Minutes, ...]
    validation: tuple[Minutes, ...]
    held_out: tuple[Minutes, ...]


class DayPart(NamedTuple):
    """A period of continuous trading of a day, and the day's orders."""

    seen: SeenOrders
    begin_ns: int
    end_ns: int
    """The first nanosecond that is no more in it, one after the last that `core.sessions.Period` names."""
    tick: int
    source: str


def split(spec: OrderBatchSpec, parts: Sequence[DayPart], validation_from_ns: int, held_from_ns: int,
          phases: int = 6) -> BatchData:
    """Intervals of days, by the time of day.

    Of what is trained on there are several runs, whose intervals begin at `phases` places of the first, each with its
    mirror image; the other two are as they are. InputError where nothing is left to one of the three.
    """
    found = BatchData(
        tuple(run for part in parts for run in _runs(spec, part, (0, validation_from_ns), phases, (False, True))),
        tuple(run for part in parts for run in _runs(spec, part, (validation_from_ns, held_from_ns))),
        tuple(run for part in parts for run in _runs(spec, part, (held_from_ns, part.end_ns))))
    for name, runs in zip(("training", "validation", "held-out"), found, strict=True):
        if not runs:
            raise InputError(f"order batches: expected at least an interval of {spec.every_s} s in the {name} part, "
                             "got none; check validation_from and held_from")
    return found


def _runs(spec: OrderBatchSpec, part: DayPart, hours_ns: tuple[int, int], phases: int = 1,
          mirrored: tuple[bool, ...] = (False,)) -> Iterator[Minutes]:
    """The runs of a period of a day within some hours; none where no interval fits."""
    step = spec.every_s * SECOND_NS
    low, high = max(hours_ns[0], part.begin_ns), min(hours_ns[1], part.end_ns)
    for phase in range(phases):
        begin = low + phase * step // phases
        if high - begin >= step:
            for is_mirrored in mirrored:
                yield minutes(spec, part.seen, part.tick, (begin, high), part.source, is_mirrored)


def images(runs: Sequence[Minutes]) -> np.ndarray:
    """The images of runs, uint8 [N, 3, 2 V, P]."""
    return np.concatenate([run.images for run in runs])
