"""One training of an ensemble: futures of the order model, real orders that decide when to stop, gains held out."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.sessions import Period
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.model import ensemble as ensembles
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.observers.order_images import OrderImageObserver
from marsjax.sim.initial import Start, resize
from marsjax.studies import futures, own_futures, session_times, starts, told_futures
from marsjax.studies.futures import ACCOUNT, FuturesSpec
from marsjax.studies.order_batch_data import OwnMinutes
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS
from marsjax.training import days, ensemble, ensemble_report
from marsjax.training.days import DayTokens
from marsjax.training.ensemble import EnsembleTraining, ToldOrders, ToldSpan
from marsjax.training.ensemble_report import Gain
from marsjax.training.order_batch import data
from marsjax.training.order_batch.data import SeenOrders
from marsjax.training.split import Span

HALF = 0.5
"""A strength of the change that is measured beside 1."""
_DRAWS = 2**31
"""Draws of the batch model for a span are keyed by the study's seed and this + the span's number."""
_TOGETHER = 1000
"""Images whose codes are made at a time."""


@dataclasses.dataclass(frozen=True)
class EnsembleStudy:
    """What an ensemble is trained on, and how."""

    validation_from_ns: int
    """Of each day, nanoseconds since midnight: real orders from here decide when to stop; futures end before."""
    held_from_ns: int
    """Of each day: orders from here are for the report alone."""
    own: OwnMinutes = dataclasses.field(default_factory=lambda: OwnMinutes(10, 10, 10))
    """Futures that are trained on."""
    training: EnsembleTraining = dataclasses.field(default_factory=EnsembleTraining)
    width: int = 32
    heads: int = 4
    layers: int = 2
    seed: int = 0

    def __post_init__(self) -> None:
        limits.check_whole("EnsembleStudy.seed", self.seed, 0, limits.SEED)
        if not self.validation_from_ns < self.held_from_ns:
            raise InputError("EnsembleStudy.validation_from_ns: expected a time before held_from_ns="
                             f"{self.held_from_ns}, got {self.validation_from_ns}")
        EnsembleSpec(1, 1, 1, 1, self.width, self.heads, self.layers)


class TrainedEnsemble(NamedTuple):
    """What came of a training."""

    ensemble: Ensemble
    report: dict[str, Any]
    """Counts of intervals and orders, and `gains` held out, `[mean, standard error]` nats an order by what the ensemble
    is told (real, predicted, shuffled; `half` at half the strength), by field."""
    table: str
    """The gains as text."""
    rows: list[dict[str, Any]]
    """A row of each look."""


class RealOrders(NamedTuple):
    """Orders of days."""

    validation: ToldOrders
    held_out: ToldOrders
    predicted: np.ndarray
    """int32 [M, C], a draw of the batch model for each interval held out, from those before it."""


class _Hours(NamedTuple):
    """A part of a period of continuous trading, nanoseconds since midnight."""

    opened_ns: int
    """The period's begin."""
    low_ns: int
    high_ns: int
    """The first that is no more in it."""


def train(study: EnsembleStudy, prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed],
          batches: OrderBatches, on_stage: Callable[[str], None] = lambda line: None) -> TrainedEnsemble:
    """Trains the ensemble of an order model and an order-batch model.

    Args:
      study: on what, and how.
      prepared: the order model, which stays as it is.
      market: of the days and the futures; needs an account for the order model.
      feeds: the days.
      batches: whose codes the ensemble is told.
      on_stage: told of progress.

    InputError where there are no states to write futures from, a part of the days is too short, or a loss is no number.
    """
    began = time.perf_counter()
    real = real_orders(study, prepared, market, feeds, batches)
    own = own_orders(study, prepared, market, feeds, batches)
    on_stage(f"ensemble: {len(own.label):,} orders of {len(own.codes):,} intervals of the order model's own futures to "
             f"train on, {len(real.validation.label):,} real orders to validate, {len(real.held_out.label):,} held "
             f"out; {time.perf_counter() - began:.0f} s")
    model, codes = prepared.model.model, batches.tokenizer.spec
    spec = EnsembleSpec.of(model.spec.embed_dim, codes, study.width, study.heads, study.layers)
    keys = jax.random.split(jax.random.key(study.seed))
    fresh = ensembles.init(spec, keys[0], batches.tokenizer)
    best, rows = ensemble.fit(study.training, model, fresh, (own, real.validation), keys[1])
    gains = _gains(prepared, best, real)
    table = ensemble_report.table(gains)
    on_stage(f"ensemble: nats an order gained, held out; {time.perf_counter() - began:.0f} s\n{table}")
    report = {"intervals": len(own.codes), "orders": len(own.label), "validation_orders": len(real.validation.label),
              "held_out_orders": len(real.held_out.label), "gains": gains}
    return TrainedEnsemble(best, report, table, rows)


def check_hours(study: EnsembleStudy, every_s: int, market: MarketSpec, feeds: Sequence[DayFeed]) -> None:
    """InputError where days or futures are too short for a training whose intervals are of so many seconds."""
    if study.own.minutes * 60 < every_s:
        raise InputError(f"OwnMinutes.minutes: expected futures of {every_s} s (every_s) or more, got "
                         f"{study.own.minutes} minutes")
    step, counts, states = every_s * SECOND_NS, np.zeros(2, np.int64), 0
    for feed in feeds:
        for period in session_times.continuous(session_times.hours(market.session, feed)):
            counts += [max(part.high_ns - part.low_ns, 0) // step for part in _parts(study, period)]
            states += len(_begins(study, period))
    if not states:
        raise InputError("OwnMinutes.every_minutes: expected a state of a day to write futures from, of "
                         f"{study.own.minutes} minutes (told_minutes) before told_validation_from, got none with one "
                         f"every {study.own.every_minutes} minutes; take longer days, or shorter futures")
    wanted = (1, ensemble_report.BLOCK)
    for name, key, found, least in zip(("to validate", "held out"), ("told_validation_from", "held_from"),
                                       counts.tolist(), wanted, strict=True):
        if found < least:
            raise InputError(f"EnsembleStudy.{key}: expected at least {least} intervals of {every_s} s {name}, got "
                             f"{found}; set it earlier, or train no ensemble (told_trajectories 0)")


def _gains(prepared: PreparedModel, best: Ensemble, real: RealOrders) -> dict[str, dict[str, Gain]]:
    held, model = real.held_out, prepared.model.model
    told = {"real": held.codes, "predicted": real.predicted, "shuffled": ensemble_report.shuffled(held.codes, 0)}
    half = ensemble_report.measured(model, best, held, told, HALF)
    return ensemble_report.measured(model, best, held, told) | {f"half {name}": of for name, of in half.items()}


def own_orders(study: EnsembleStudy, prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed],
               batches: OrderBatches) -> ToldOrders:
    """The order model's own futures from states of the days, all before `study.validation_from_ns`.

    InputError where no state has as many orders before it as the order model reads.
    """
    found, passed = [], 0
    for place, feed in enumerate(feeds):
        periods = session_times.continuous(session_times.hours(market.session, feed))
        at = [time for period in periods for time in _begins(study, period)]
        states = starts.states_of_feed(market, prepared, feed, at, on_host=True).starts if at else []
        ready = [own_futures.best_orders(state) for state in states
                 if int(state.count) == prepared.model.spec.context_length]
        if ready:
            each = _rolled(study, prepared, market, batches, ready, place)
            found.append(each._replace(batch=each.batch + np.int32(passed)))
            passed += len(each.codes)
    if not found:
        raise InputError("ensemble: expected a state with orders before it to write futures from, got none; take "
                         "longer days, or shorter futures")
    return ToldOrders(*(np.concatenate(x) for x in zip(*found, strict=True)))


def _begins(study: EnsembleStudy, period: Period) -> range:
    """Times of the states of a period that futures are written from, nanoseconds since midnight."""
    step, length = study.own.every_minutes * MINUTE_NS, study.own.minutes * MINUTE_NS
    return range(period.start_ns + step, min(period.end_ns + 1, study.validation_from_ns) - length + 1, step)


def _rolled(study: EnsembleStudy, prepared: PreparedModel, market: MarketSpec, batches: OrderBatches,
            states: Sequence[Start], place: int) -> ToldOrders:
    """The futures of the states of one day, in books in which all orders find room."""
    images, own = batches.tokenizer.spec.images, study.own
    spec = FuturesSpec(own.trajectories, own.minutes, own.seed)
    capacity = futures.first_capacity(spec, states)
    observer = OrderImageObserver(images, market.tick, keep=own.minutes * 60 // images.every_s)
    while True:
        given = jax.tree.map(lambda *x: np.repeat(np.stack(x), own.trajectories, axis=0),
                             *(resize(state, capacity) for state in states))
        simulator = prepared.simulator(dataclasses.replace(market, capacity=capacity)).replace(
            observers=(observer,), account=ACCOUNT)
        until = jax.tree.map(jnp.asarray, times.from_ns(times.to_ns(given.time) + own.minutes * MINUTE_NS))
        numbers = np.arange(len(given.count), dtype=np.int32) + place * limits.TRAJECTORIES
        rolled = told_futures.roll(simulator, given, numbers, own.seed, until, _encoder(batches))
        more = futures.larger(spec, capacity, rolled.full_books)
        if not more:
            return rolled.orders
        capacity = more


def _encoder(batches: OrderBatches) -> Callable[[Any], np.ndarray]:
    """Images -> codes, some at a time."""
    encode = jax.jit(batches.tokenizer.encode)
    return lambda images: np.concatenate([np.asarray(encode(part)) for part in np.array_split(
        images, -(-len(images) // _TOGETHER))])


def real_orders(study: EnsembleStudy, prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed],
                batches: OrderBatches) -> RealOrders:
    """Real orders that decide when to stop, and those held out (`check_hours`)."""
    spans: tuple[list[ToldSpan], list[ToldSpan]] = ([], [])
    predicted: list[np.ndarray] = []
    replayed = days.replay_days(market, [feed.read() for feed in feeds], [feed.name for feed in feeds])
    for feed, day in zip(feeds, replayed, strict=True):
        tokens, seen = days.day_tokens(market, prepared.model.spec.tokens, prepared.table, day), data.of_day(day)
        for period in session_times.continuous(session_times.hours(market.session, feed)):
            for into, hours in zip(spans, _parts(study, period), strict=True):
                found = _told(hours, seen, tokens, market.tick, batches)
                if found is not None:
                    into.append(found[0])
                    key = jax.random.fold_in(jax.random.key(study.seed), jnp.uint32(_DRAWS + len(predicted)))
                    predicted += [] if into is spans[0] else [_predicted(batches, *found, key)]
    validation, held = (ensemble.told(prepared.model.model, each) for each in spans)
    return RealOrders(validation, held, np.concatenate(predicted))


def _parts(study: EnsembleStudy, period: Period) -> tuple[_Hours, _Hours]:
    """What validates and what is held out of a period; `high_ns` may lie before `low_ns`."""
    end_ns, middle = period.end_ns + 1, study.held_from_ns
    return tuple(_Hours(period.start_ns, max(low, period.start_ns), min(high, end_ns))  # type: ignore[return-value]
                 for low, high in ((study.validation_from_ns, middle), (middle, end_ns)))


def _told(hours: _Hours, seen: SeenOrders, tokens: DayTokens, tick: int, batches: OrderBatches
          ) -> tuple[ToldSpan, np.ndarray] | None:
    """The orders of some hours of a day with their intervals' codes, and the codes of up to K intervals before them.

    None where no whole interval lies in these hours.
    """
    images = batches.tokenizer.spec.images
    step = images.every_s * SECOND_NS
    if hours.high_ns - hours.low_ns < step:
        return None
    before = min(batches.model.spec.batches, (hours.low_ns - hours.opened_ns) // step)
    every = data.minutes(images, seen, tick, (hours.low_ns - before * step, hours.high_ns), tokens.name).images
    codes = _encoder(batches)(every)
    count = len(codes) - before
    first, last = np.searchsorted(tokens.time_ns, (hours.low_ns, hours.low_ns + count * step)).tolist()
    interval = ((tokens.time_ns[first:last] - hours.low_ns) // step).astype(np.int32)
    return ToldSpan(Span(tokens.name, tokens.features, first, last), interval, codes[before:]), codes[:before]


def _predicted(batches: OrderBatches, told: ToldSpan, before: np.ndarray, key: jax.Array) -> np.ndarray:
    """A draw of the batch model for each interval, int32 [M, C], from those before it; the key is the span's."""
    most = batches.model.spec.batches
    every = np.concatenate([np.zeros((most - len(before), *told.codes.shape[1:]), np.int32), before, told.codes])
    number = np.arange(len(told.codes))
    history = every[number[:, None] + np.arange(most)]
    known = np.minimum(len(before) + number, most)
    keys = jax.random.split(key, len(number))
    return np.asarray(batches.model.sample(history, known, keys, 1))[:, 0]
