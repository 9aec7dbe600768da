"""Days written by an order model from a real state: nothing of the exchange's own is left in them.

The model goes on from the state until most of what rests is its own; what is not is taken off; from that book on it
writes the day, which begins under a clock of its own.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from marsjax.analysis import forecast
from marsjax.core import int64, limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Status
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import DAY_NS, SECOND_NS
from marsjax.data import neutral, starting_book
from marsjax.data.feed import DayFeed, Venue
from marsjax.market import book as books
from marsjax.observers import market_tables
from marsjax.observers.trace import TraceObserver
from marsjax.sim import initial, replayed, rollout
from marsjax.sim.initial import Start
from marsjax.sim.result import Rollout
from marsjax.sim.specs import BACKGROUND_ACCOUNT, RolloutSpec
from marsjax.studies import rollout_summary
from marsjax.studies.checks import check_numbers
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS
from marsjax.tokens import encoding

ACCOUNTS = BACKGROUND_ACCOUNT + 1
"""Of the market of a day while it is made."""
_SESSION_HOURS = 4
_BOOK = ("side", "price", "volume", "order_id")


@dataclasses.dataclass(frozen=True)
class MakingSpec:
    """How a day is made."""

    settle_minutes: int = 60
    """That the model goes on from the real state before the day begins."""
    minutes: int = 30
    """Of the day before futures start, at most: it ends at an ordinary minute of its last third (`ordinary_minute`)."""
    candidates: int = 8
    """Days that are tried; the one nearest to the middle of them is kept (`_typical`)."""
    begin_ns: int = 34_200 * SECOND_NS
    """Of the day, nanoseconds since midnight."""
    seed: int = 0
    trace_room: int = 512

    def __post_init__(self) -> None:
        check_numbers(self, settle_minutes=(1, limits.MINUTES), minutes=(1, limits.MINUTES),
                      candidates=(1, limits.TRAJECTORIES))


class Made(NamedTuple):
    """A day, ready to be written."""

    venue: Venue
    start_ns: int
    tables: tuple[pd.DataFrame, pd.DataFrame]
    """Its book and the orders after it."""
    end: Start
    """The state that they lead to."""
    about: dict[str, Any]


def make(prepared: PreparedModel, market: MarketSpec, start: Start, spec: MakingSpec) -> Made:
    """A day from a real state.

    Args:
      prepared: the order model.
      market: of the state; its tick and sizes are those of the day.
      start: the state.
      spec: how long.

    InputError where every candidate was lost or a book got empty, where a day has fewer orders than the model reads, or
    where an order of the exchange's own is left.
    """
    # The market's own hours end somewhere; those of a day that is made do not matter to the model.
    long = dataclasses.replace(market, session=continuous_session(0, DAY_NS - 1), capacity=2 * market.capacity)
    whole = initial.resize(start, long.capacity)
    settled = _run(prepared, long, whole, RolloutSpec(spec.candidates, spec.settle_minutes, spec.seed), spec)
    cleaned, left_out = _begun(long, settled, whole, spec.begin_ns)
    begun = jax.tree.map(lambda *x: np.stack([np.asarray(each) for each in x]), *cleaned)
    run = _run(prepared, long, begun, RolloutSpec(len(cleaned), spec.minutes, spec.seed + 1), spec)
    chosen = _typical(run, prepared.model.spec.context_length)
    minutes = _last_minute(run, chosen, spec, prepared.model.spec.context_length)
    if minutes < spec.minutes:  # the same trajectory, not so long
        run = _run(prepared, long, _one(cleaned[chosen]), RolloutSpec(1, minutes, spec.seed + 1, chosen), spec)
    number = chosen if minutes == spec.minutes else 0
    end = initial.after_rollout(run, cleaned[chosen], number)
    tables = _book(cleaned[chosen]), _orders(run, number)
    check(*tables)
    start_ns = spec.begin_ns + minutes * MINUTE_NS
    venue = Venue(continuous_session(spec.begin_ns, spec.begin_ns + _SESSION_HOURS * 60 * MINUTE_NS), market.tick,
                  units=market.units, capacity=market.capacity, trade_width=market.trade_width)
    about = {"settle_minutes": spec.settle_minutes, "minutes": minutes, "candidates": spec.candidates,
             "seed": spec.seed, "others_left_out": left_out[chosen],
             "orders": len(tables[1]), "orders_a_minute": round(len(tables[1]) / minutes, 1),
             **describe(long, end)}
    return Made(venue, start_ns, tables, end, about)


def _run(prepared: PreparedModel, market: MarketSpec, start: Start, rolled: RolloutSpec, spec: MakingSpec) -> Rollout:
    simulator = prepared.simulator(market)
    traced = dataclasses.replace(simulator, spec=dataclasses.replace(
        simulator.spec, observers=(TraceObserver(market, spec.trace_room),)))
    return rollout.rollout(traced, start, rolled)


def _begun(market: MarketSpec, settled: Rollout, start: Start, begin_ns: int
           ) -> tuple[list[Start], list[dict[str, Any]]]:
    """The states of all candidates that are of use, with the model's own orders alone, and what was left out of each.

    InputError where none is.
    """
    found = [_without_others(market, initial.after_rollout(settled, start, int(number)), int(start.market.next_id),
                             begin_ns) for number in np.flatnonzero(~rollout_summary.is_lost(settled))]
    kept = [each for each in found if each is not None]
    if not kept:
        raise InputError(f"made day: of {len(settled.mid_twice_start)} candidates none has orders of the model's own "
                         "on both sides after its time to settle: lengthen that, or try more")
    return [each for each, _ in kept], [each for _, each in kept]


def _without_others(market: MarketSpec, start: Start, first_own: int, begin_ns: int
                    ) -> tuple[Start, dict[str, Any]] | None:
    """A state in which only orders from an id on rest, at another time of day, and what was left out.

    The book is made as a reader of the day will make it: by orders to an empty market. None where a side has none.
    """
    rests = pd.DataFrame(market_tables.resting(_one(start.market.book)))
    own = rests[rests["order_id"] >= first_own]
    if own["side"].nunique() < 2:
        return None
    table = own.assign(order_id=np.arange(len(own)))[list(_BOOK)].reset_index(drop=True)
    chunk = starting_book.chunk(table, "the book", (1.0, 1, 1.0), begin_ns)
    made = replayed.replay_day(DayFeed("the book", "", lambda: iter([chunk])), market).closing
    left_out = {"orders": len(rests) - len(own), "of": len(rests),
                "shares": int(rests["volume"].sum() - own["volume"].sum()), "of_shares": int(rests["volume"].sum())}
    # The model reads on; the day's own orders are the first of the market for its other columns.
    return dataclasses.replace(start, market=made, token_state=encoding.start(), time=times.from_ns(begin_ns)), left_out


def _book(start: Start) -> pd.DataFrame:
    table = pd.DataFrame(market_tables.resting(_one(start.market.book)))
    return table[list(_BOOK)].reset_index(drop=True)


def _orders(run: Rollout, trajectory: int) -> pd.DataFrame:
    table = run.orders(market_tables.INTEGER)
    mine = table[(table["trajectory"] == trajectory) & (table["status"] == Status.ACCEPTED.name)]
    return mine[list(neutral.COLUMNS)].assign(agent_id=0).reset_index(drop=True)


def _one(tree: Any) -> Any:
    """A batch of one."""
    return jax.tree.map(lambda x: np.asarray(x)[None], tree)


def _typical(run: Rollout, least: int) -> int:
    """The trajectory nearest to the middle one in range of the mid and shares at both best prices, by ranks.

    Of those with enough tokens for a whole context; InputError where there is none.
    """
    tokens = np.asarray(run.bars.orders).sum(axis=1)
    mids = forecast.mids_of_bars(run.bars, run.mid_twice_start)
    ranges = np.ptp(mids, axis=1) / mids[:, 0]
    fit = np.flatnonzero(~rollout_summary.is_lost(run) & (tokens > least) & np.isfinite(ranges))
    if not len(fit):
        raise InputError(f"made day: expected over {least} orders in a candidate, got at most {tokens.max()}: lengthen "
                         "the day")
    touch = [int64.to_numpy(side)[:, 0] for side in (run.state.view.bid_volume, run.state.view.ask_volume)]
    ranks = np.stack([np.argsort(np.argsort(each[fit], kind="stable"), kind="stable") for each in (ranges, *touch)])
    return int(fit[np.argmin(np.abs(ranks - (len(fit) - 1) / 2).sum(axis=0))])


def _last_minute(run: Rollout, trajectory: int, spec: MakingSpec, least: int) -> int:
    """The minute after which a trajectory's day ends, of its last third and with more than `least` orders before it."""
    table = run.orders(market_tables.INTEGER)
    table = table[(table["trajectory"] == trajectory) & (table["status"] == Status.ACCEPTED.name)]
    ends = spec.begin_ns + MINUTE_NS * np.arange(1, spec.minutes + 1)
    place = np.searchsorted(table["time_ns"].to_numpy(), ends, side="right") - 1
    seen = {name: table[name].to_numpy()[np.maximum(place, 0)].astype(np.float64)
            for name in ("mid_price", "ask_volume", "bid_volume")}
    # Cancels merge with each other in tokens: some more orders than a context holds.
    allowed = (np.arange(1, spec.minutes + 1) > spec.minutes * 2 // 3) & (place + 1 > 1.2 * least)
    allowed[-1] = True
    mid = np.where(seen["mid_price"] > 0, seen["mid_price"], np.nan)
    return ordinary_minute(mid, (seen["ask_volume"], seen["bid_volume"]), allowed) + 1


def ordinary_minute(mid: np.ndarray, volumes: Sequence[np.ndarray], allowed: np.ndarray) -> int:
    """The minute of a day at which least goes on, by ranks: an index of arrays [M], `allowed`, the first of equals.

    Ranked are how far the mid is from its mean over the last five minutes, and how far, in ratios, the shares at each
    best price are from the day's median. A mid of NaN, where a side is empty, is the farthest.
    """
    before = np.array([mid[max(minute - 4, 0):minute + 1].mean() for minute in range(len(mid))])
    shares = [np.log(np.maximum(each, 1)) for each in volumes]
    apart = [np.nan_to_num(np.abs(mid - before), nan=np.inf), *(np.abs(each - np.median(each)) for each in shares)]
    fit = np.flatnonzero(allowed)
    ranks = sum(np.unique(each[fit], return_inverse=True)[1] for each in apart)
    return int(fit[np.argmin(ranks)])


def check(book: pd.DataFrame, orders: pd.DataFrame) -> None:
    """InputError unless a day is a model's alone: its book numbered from 0, its orders from there on, cancels of these.

    An order of an exchange's would have an id of its own, or would be cancelled by one that is not there.
    """
    known = set(book["order_id"].tolist())
    if known != set(range(len(book))):
        raise InputError(f"made day: expected a book of ids 0 to {len(book) - 1}")
    ids = orders["order_id"].to_numpy()
    if not (np.diff(ids, prepend=len(book) - 1) > 0).all():
        raise InputError(f"made day: expected orders of rising ids from {len(book)} on")
    known.update(ids[orders["type"].to_numpy() != "C"].tolist())
    strange = sorted(set(orders.loc[orders["type"] == "C", "cancel_id"].tolist()) - known)
    if strange:
        raise InputError(f"made day: expected cancels of its own orders, got one of {strange[0]}")


def describe(market: MarketSpec, start: Start) -> dict[str, Any]:
    """The market at a start: mid, spread, orders that rest, shares at the best prices; prices in `Units.price`."""
    view = jax.jit(books.view, static_argnums=0)(market, start.market.book)
    asks, bids = (np.asarray(start.market.book.volume) > 0).sum(axis=1)
    shares = {name: int(int64.to_numpy(x)[0]) for name, x in (("bid_volume", view.bid_volume),
                                                              ("ask_volume", view.ask_volume))}
    return {"mid": int(view.mid_price_twice) / 2, "spread": int(view.spread), "bids": int(bids), "asks": int(asks),
            **shares}
