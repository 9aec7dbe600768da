"""Orders of real days as amounts to train on: what `studies.scaling` trains, besides orders that a model writes."""

import itertools
from collections.abc import Sequence

import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.scaling import Amount, Orders
from marsjax.training import days
from marsjax.training.split import Span


def of_days(prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed], length: int,
            amounts: Sequence[int], held_from_ns: int) -> Orders:
    """Real days as amounts of orders, in the bins of a model: of each day its first ones, a like share of every day.

    Args:
      prepared: the model whose bins are taken.
      market: sizes and session.
      feeds: the days.
      length: orders of the stretches that days are cut into.
      amounts: stretches to train on, rising; an eighth as many that follow them validate.
      held_from_ns: orders of all days from there on are held out, nanoseconds since midnight. A day that has none is
        left out.

    InputError where the days have too few orders before it, or none has orders from there on.
    """
    replayed = days.replay_days(market, [feed.read() for feed in feeds], [feed.name for feed in feeds])
    early: list[tuple[float, Span]] = []
    held: list[Span] = []
    for each in replayed:
        day = days.day_tokens(market, prepared.model.spec.tokens, prepared.table, each)
        rows = np.concatenate([day.features, day.features[:, :1]], axis=1)
        end = int(np.searchsorted(day.time_ns, held_from_ns))
        if end == len(rows):
            continue
        count = end // length
        early += [(at / count, Span(day.name, rows, at * length, (at + 1) * length)) for at in range(count)]
        edges = np.linspace(end, len(rows), max((len(rows) - end) // length, 1) + 1).astype(int).tolist()
        held += [Span(day.name, rows, *ends) for ends in itertools.pairwise(edges)]
    if not held:
        raise InputError(f"scaling: of {len(feeds)} days none has orders from {times.clock(held_from_ns, 0)} on, "
                         "where the held-out part begins: hold out from an earlier time")
    known = [span for _, span in sorted(early, key=lambda one: one[0])]
    found = []
    for amount in amounts:
        validating = max(amount // 8, 1)
        if amount < 1 or amount + validating > len(known):
            raise InputError(f"scaling: expected 1 to {len(known) * 8 // 9} stretches of {length} orders to train on, "
                             f"of {len(known)} before the held-out part, got {amount}: an eighth as many validate")
        found.append(Amount([span.features[span.first : span.last] for span in known[:amount]],
                            known[amount : amount + validating]))
    return Orders(prepared.model.spec.tokens, found, held)
