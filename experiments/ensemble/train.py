"""Trains the ensemble of the default order model on its own futures, and measures what it gains on real orders.

    python experiments/ensemble/train.py FOLDER_OF_THE_DAYS OUTPUT.json [CHECKPOINT]

writes the gains; with a checkpoint folder that has an order-batch model it writes the ensemble there.
"""

import dataclasses
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint import ensemble as ensemble_files
from marsjax.checkpoint import load, order_batch
from marsjax.core import times
from marsjax.core.specs import MarketSpec
from marsjax.data import sources
from marsjax.data.feed import DayFeed
from marsjax.model import ensemble as model_ensemble
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.observers.order_images import OrderImageObserver
from marsjax.sim.initial import resize
from marsjax.studies import order_model, own_futures, places, session_times, starts, told_futures
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS
from marsjax.training import days, ensemble, ensemble_report
from marsjax.training.ensemble import EnsembleTraining, ToldOrders, ToldSpan
from marsjax.training.order_batch import data
from marsjax.training.split import Span

SYMBOLS = ("600536", "600761", "601825")
VALIDATION, HELD, END = (hour * MINUTE_NS for hour in (13 * 60 + 30, 14 * 60, 14 * 60 + 57))
FUTURES = ((10, 4, 10, 0), (20, 8, 20, 1))
"""Minutes between two states, futures of each, minutes of a future, seed."""
CAPACITY = 2048


def encoder(batches: OrderBatches) -> Callable[[np.ndarray], np.ndarray]:
    """Images -> codes, some at a time."""
    encode = jax.jit(batches.tokenizer.encode)
    return lambda images: np.concatenate([np.asarray(encode(part)) for part in np.array_split(
        images, -(-len(images) // 1000))])


def futures(prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed], batches: OrderBatches,
            sizes: tuple[int, int, int, int]) -> list[ToldOrders]:
    """The order model's own futures from states of the days before VALIDATION."""
    every, count, minutes, seed = sizes
    images, found = batches.tokenizer.spec.images, []
    for place, feed in enumerate(feeds):
        periods = session_times.continuous(session_times.hours(market.session, feed))
        at = [time for period in periods for time in range(
            period.start_ns + every * MINUTE_NS, min(period.end_ns, VALIDATION) - minutes * MINUTE_NS + 1,
            every * MINUTE_NS)]
        states = [resize(own_futures.best_orders(state), CAPACITY) for state in starts.states_of_feed(
            market, prepared, feed, at, on_host=True).starts if int(state.count) == prepared.model.spec.context_length]
        given = jax.tree.map(lambda *x: np.repeat(np.stack(x), count, axis=0), *states)
        observer = OrderImageObserver(images, market.tick, keep=minutes)
        simulator = prepared.simulator(dataclasses.replace(market, capacity=CAPACITY)).replace(
            observers=(observer,), account=ACCOUNT)
        until = jax.tree.map(jnp.asarray, times.from_ns(times.to_ns(given.time) + minutes * MINUTE_NS))
        found.append(told_futures.roll(simulator, given, np.arange(len(given.count), dtype=np.int32),
                                       10 * seed + place, until, encoder(batches)))
        print(f"{feed.name}: {len(found[-1].label):,} orders of {len(found[-1].codes):,} minutes", flush=True)
    return found


def real(prepared: PreparedModel, market: MarketSpec, feeds: Sequence[DayFeed], batches: OrderBatches
         ) -> tuple[ToldOrders, ToldOrders, np.ndarray]:
    """Real orders that decide when to stop, those held out, and for these the codes that the batch model predicts."""
    spec, model = batches.tokenizer.spec.images, prepared.model
    spans: list[list[ToldSpan]] = [[], []]
    predicted = []
    for day in days.replay_days(market, [feed.read() for feed in feeds], [feed.name for feed in feeds]):
        tokens = days.day_tokens(market, model.spec.tokens, prepared.table, day)
        known = []
        for into, begin, end in zip(spans, (VALIDATION, HELD), (HELD, END), strict=True):
            images = data.minutes(spec, data.of_day(day), market.tick, (begin, end), day.name).images
            first, last = np.searchsorted(tokens.time_ns, (begin, begin + len(images) * MINUTE_NS)).tolist()
            batch = ((tokens.time_ns[first:last] - begin) // MINUTE_NS).astype(np.int32)
            known.append(encoder(batches)(images))
            into.append(ToldSpan(Span(day.name, tokens.features, first, last), batch, known[-1]))
        every, count = np.concatenate(known), batches.model.spec.batches
        before = np.stack([every[at - count : at] for at in range(len(known[0]), len(every))])
        keys = jax.random.split(jax.random.key(9), len(before))
        predicted.append(np.asarray(batches.model.sample(before, jnp.full(len(before), count), keys, 1))[:, 0])
    validation, held = (ensemble.told(model.model, each) for each in spans)
    return validation, held, np.concatenate(predicted)


def main(folder: str, output: str, checkpoint: str = "") -> None:
    """Trains, measures and writes."""
    batches, _ = order_batch.load(checkpoint or "default")
    prepared = order_model.prepare(load.load_order_model())
    model, feeds = prepared.model.model, sources.open_days("sse", folder, SYMBOLS)
    market = dataclasses.replace(places.market_of(prepared, feeds[0].venue, ACCOUNT + 1), trade_width=16)
    own = [each for sizes in FUTURES for each in futures(prepared, market, feeds, batches, sizes)]
    passed = np.cumsum([0, *(len(each.codes) for each in own[:-1])]).tolist()
    training = ToldOrders(*(np.concatenate(x) for x in zip(*(
        each._replace(batch=each.batch + before) for each, before in zip(own, passed, strict=True)), strict=True)))
    validation, held, predicted = real(prepared, market, feeds, batches)
    codes = batches.tokenizer.spec
    fresh = model_ensemble.init(EnsembleSpec(model.spec.embed_dim, codes.places, codes.codes), jax.random.key(0),
                                batches.tokenizer.codebook[...])
    best, curve = ensemble.fit(EnsembleTraining(), model, fresh, (training, validation), jax.random.key(1),
                               lambda row: print(row, flush=True))
    told = {"real": held.codes, "predicted": predicted, "shuffled": ensemble_report.shuffled(held.codes, 0)}
    gains = {strength: ensemble_report.measured(model, best, held, told, strength) for strength in (1.0, 0.5)}
    alone = Ensemble(best.spec, {**best.weights(), "exit": jnp.zeros_like(best.exit[...])})
    gains["shift alone"] = ensemble_report.measured(model, alone, held, told)
    for name, of in gains.items():
        print(f"{name}\n{ensemble_report.table(of)}", flush=True)
    about = {"minutes": len(training.codes), "orders": len(training.label), "held_out": len(held.label),
             "gains": gains[1.0], "curve": curve}
    Path(output).write_text(json.dumps({**about, "all": {str(name): of for name, of in gains.items()}}, indent=1))
    if checkpoint:
        ensemble_files.save(checkpoint, best, ensemble_files.trained_with(model, batches.tokenizer), about)


if __name__ == "__main__":
    main(*sys.argv[1:])
