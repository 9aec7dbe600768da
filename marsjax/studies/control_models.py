"""The models that lead controlled futures, as a checkpoint holds them, and the time before a start as they see it."""

import dataclasses
from typing import Any

import numpy as np

from marsjax.checkpoint import ensemble, order_batch
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.sim.control import ControlModels
from marsjax.studies import order_model, session_times, starts
from marsjax.studies.order_model import PreparedModel
from marsjax.training import days
from marsjax.training.order_batch import data


def load(source: str, prepared: PreparedModel) -> tuple[ControlModels, dict[str, Any]]:
    """The order-batch model and the ensemble of a checkpoint, and what their writers had to say of each.

    Args:
      source: `default`, or a checkpoint folder of marsjax.
      prepared: the order model of that checkpoint, in any dtype, not taught by a day.

    Raises FileNotFoundError, which says what trains them, where the checkpoint has none; InputError where they do not
    fit one another, or the order model.
    """
    batches, of_batches = order_batch.load(source)
    found, of_ensemble = ensemble.load(source, ensemble.trained_with(
        prepared.model.model, batches.tokenizer, source))
    return ControlModels(batches, found), {"order_batch": of_batches, "ensemble": of_ensemble}


def describe(models: ControlModels) -> dict[str, str]:
    """Which models they were: a hash of the parameters of each."""
    batches = models.batches
    return {name: order_model.parameters_hash(model) for name, model in (
        ("tokenizer", batches.tokenizer), ("batch_model", batches.model), ("ensemble", models.ensemble))}


def with_past(models: ControlModels, market: MarketSpec, feed: DayFeed, time_ns: int) -> ControlModels:
    """The models with images of a day's whole intervals before a start, nanoseconds since midnight.

    Of the period of continuous trading that the start lies in; as many as they read. It replays the day up to there.
    """
    spec, most = models.batches.tokenizer.spec.images, models.batches.model.spec.batches
    periods = session_times.continuous(session_times.hours(market.session, feed))
    begins = [period.start_ns for period in periods if period.start_ns <= time_ns <= period.end_ns]
    every_ns = spec.every_s * SECOND_NS
    count = min((time_ns - begins[0]) // every_ns, most) if begins else 0
    if not count:
        return dataclasses.replace(models, before=np.zeros((0, *spec.shape), np.uint8))
    (day,) = days.replay_days(market, [starts.chunks_before(feed, time_ns)], [feed.name])
    seen = data.until(data.of_day(day), time_ns)
    made = data.minutes(spec, seen, market.tick, (time_ns - count * every_ns, time_ns), feed.name)
    return dataclasses.replace(models, before=made.images)
