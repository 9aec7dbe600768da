"""Real states for a model to be taught by its own futures (`training.own_futures`), and the teaching."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from marsjax.checkpoint.load import LoadedModel
from marsjax.core.errors import InputError
from marsjax.core.sessions import Period
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.model.layers import FLOAT32
from marsjax.sim.initial import Start, resize
from marsjax.sim.last_token import LastToken
from marsjax.studies import order_model, session_times, starts
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.session_times import MINUTE_NS
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter
from marsjax.training import days, gaps, own_futures, structured
from marsjax.training.gaps import Beginning
from marsjax.training.loss import Factored
from marsjax.training.own_futures import FuturesTraining
from marsjax.training.structured import Structured

_DEPTH = 640
"""Best orders of a side that a book begins with: a future of some 1,000 orders reaches no further."""
_STEP = 128
"""Sizes of books are multiples of it."""


def beginnings(market: MarketSpec, model: LoadedModel, feed: DayFeed, after: np.ndarray, until_ns: int,
               every_minutes: int = 5, is_mirrored: bool = False) -> list[Beginning]:
    """The states of a day at times of continuous trading, with the tokens that came.

    Args:
      market: sizes and session.
      model: bins and length of the context; a state has so many tokens before it.
      feed: the day.
      after: int32 [M, C], all its tokens before `until_ns`, in the model's bins.
      until_ns: nanoseconds since midnight; states are at least `every_minutes` earlier.
      every_minutes: between two times.
      is_mirrored: whether the day's mirror image is taken (`training.days.mirrored`), which `after` is of.

    Of a book the best orders alone are kept. InputError where the day cannot be read, or where the tokens before a
    state are not those of the day: in `after` orders may have accounts, which tell cancels apart that here are merged.
    """
    prepared = order_model.prepare(model)
    hours = session_times.hours(market.session, feed)
    ends = {time: min(period.end_ns, until_ns) for period in session_times.continuous(hours)
            for time in _times(period, every_minutes * MINUTE_NS, until_ns)}
    if not ends:
        return []
    read: Callable[[], Iterator[FeedChunk]] = feed.read
    if is_mirrored:
        feed = dataclasses.replace(feed, read=lambda: days.mirrored(read()))
    stops = sorted({*ends, *ends.values()})
    states = dict(zip(stops, starts.states_of_feed(market, prepared, feed, stops, on_host=True).starts, strict=True))
    counts = {time: int(state.token_state.count) for time, state in states.items()}
    length, found = model.spec.context_length, []
    for time, end in ends.items():
        start, count = states[time], counts[time]
        came = after[count : len(after) if end == until_ns else counts[end]]
        if int(start.count) < length or not len(came):
            continue
        if (np.asarray(encoding.to_array(model.spec.tokens, start.window)) != after[count - length : count]).any():
            raise InputError(f"own futures: {feed.name}: the tokens before {session_times.spell(time)} are not those "
                             "of the day, whose orders may have accounts: train without them (config.futures_rounds 0)")
        found.append(Beginning(feed.symbol, best_orders(start), came, end))
    return found


def of_days(market: MarketSpec, model: LoadedModel, feeds: Sequence[DayFeed], tokens: Sequence[np.ndarray],
            until_ns: int, every_minutes: int = 5) -> list[Beginning]:
    """`beginnings` of days, and of their mirror images where there are twice as many tokens, those of the images last.

    `tokens` are int32 [M, C] each, of the days in their order.
    """
    if len(tokens) not in (len(feeds), 2 * len(feeds)):
        raise InputError(f"own futures: expected tokens of {len(feeds)} days, or of these and their mirror images, got "
                         f"{len(tokens)}")
    found = [one for place, after in enumerate(tokens)
             for one in beginnings(market, model, feeds[place % len(feeds)], after, until_ns,
                                   every_minutes, is_mirrored=place >= len(feeds))]
    if not found:
        raise InputError("own futures: expected real states with orders before and after them, got none: the days are "
                         "too short for the model's context; train without them (config.futures_rounds 0)")
    return found


def _times(period: Period, every_ns: int, until_ns: int) -> range:
    """From one step after the period's begin to one before its end, or before `until_ns`."""
    return range(period.start_ns + every_ns, min(period.end_ns, until_ns) - every_ns + 1, every_ns)


def best_orders(start: Start) -> Start:
    """The state with the best orders of its book."""
    book = start.market.book
    cut = {name: np.asarray(getattr(book, name))[..., :_DEPTH] for name in ("price", "volume", "order_id", "account")}
    return dataclasses.replace(start, market=dataclasses.replace(start.market, book=dataclasses.replace(book, **cut)))


def teach(training: FuturesTraining, market: MarketSpec, converters: Mapping[str, Converter], weights: Structured,
          objective: Factored, given: Sequence[Beginning], tokens: Sequence[np.ndarray]
          ) -> tuple[Structured, list[dict[str, float]]]:
    """The weights after all rounds, and a row of each (`own_futures.train`).

    Args:
      training: how much.
      market: of the futures; its capacity is made large enough, and it needs accounts for the model.
      converters: the model's bins.
      weights: to start from.
      objective: of real orders.
      given: real states, whose orders are account 0's.
      tokens: int32 [M, C] each, real tokens.
    """
    model = LoadedModel(structured.expand(weights).replace(compute=FLOAT32), converters, {})
    capacity = -(-(_DEPTH + training.orders) // _STEP) * _STEP
    given = [one._replace(start=resize(one.start, capacity)) for one in given]
    market = dataclasses.replace(market, capacity=capacity)
    simulator = order_model.prepare(model).simulator(market).replace(observers=(LastToken(),), account=ACCOUNT)
    of = gaps.targets(model.spec.tokens, training.orders, given)
    rows, taught = [], weights
    with tqdm(total=training.rounds, desc="own futures", unit="round", disable=None) as bar:
        for learnt, row in own_futures.train(training, simulator, objective, weights, of, tokens):
            taught = learnt
            rows.append(row)
            bar.update()
            bar.set_postfix(gap=f"{row['gap']:.3f}", loss=f"{row['loss']:.3f}")
    return taught, rows
