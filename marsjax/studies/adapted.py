"""An order model taught by the day so far of a market that it was not trained on."""

import dataclasses

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.studies import order_model, starts
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import spell
from marsjax.training import adapt, days
from marsjax.training.adapt import AdaptSpec


def to_day(prepared: PreparedModel, market: MarketSpec, feed: DayFeed, before_ns: int, steps: int
           ) -> tuple[PreparedModel, str]:
    """The model after `steps` on a day's orders before a time, and a line that says so.

    The model as it is, and no line, where `steps` is 0, the model names no days that it was trained on (its head is
    then no structured one), or it names this day. The model as it is, and why, where the orders are too few or its head
    is not structured.

    Args:
      prepared: the model.
      market: to replay the day in.
      feed: the day.
      before_ns: nanoseconds since midnight.
      steps: of `marsjax.training.adapt`.
    """
    known = order_model.trained_days(prepared.model.about)
    if not steps or not known or feed.name in known:
        return prepared, ""
    (day,) = days.replay_days(market, [starts.chunks_before(feed, before_ns)], [feed.name])
    tokens = days.day_tokens(market, prepared.model.spec.tokens, prepared.table, day)
    earlier = tokens.features[:int(np.searchsorted(tokens.time_ns, before_ns))]
    try:
        model = adapt.adapt(prepared.model.model, [earlier], AdaptSpec(steps=steps))
    except InputError as error:
        return prepared, f"{feed.name}: the model is not adapted: {error}"
    said = f"{feed.name}: the model is adapted in {steps} steps to {len(earlier):,} orders before {spell(before_ns)}"
    return dataclasses.replace(prepared, model=dataclasses.replace(prepared.model, model=model)), said
