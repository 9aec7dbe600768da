"""How far told minutes are done: what futures do in a minute, on what the minute that they are told would do.

    python experiments/ensemble/steering.py checkpoints/default data/sse steering.json

From the day `default` and from a real state each of many futures is told a candidate of its own of the order-batch
model for its first minute: of `DRAWN` candidates those that are furthest from the usual. The slope of what it does on
what the candidate's image tells is 1 where it does as it is told, 0 where it does not listen.
"""

import dataclasses
import json
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint import ensemble as ensemble_files
from marsjax.checkpoint import load, order_batch
from marsjax.core import times
from marsjax.data import sources
from marsjax.model.ensemble import Ensemble, ReadBatch
from marsjax.model.order_batch.proposals import OrderBatches, Proposed
from marsjax.model.order_batch.readout import READ
from marsjax.observers.features import FeatureObserver, Features
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start, resize
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import End, SimState
from marsjax.studies import order_model, own_futures, places, starts
from marsjax.studies.futures import ACCOUNT
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.places import Place
from marsjax.studies.session_times import MINUTE_NS
from marsjax.training import days
from marsjax.training.order_batch import data

REAL, AT_NS = "600536", (13 * 60 + 40) * MINUTE_NS
STRENGTHS = (1.0, 2.0, 4.0, 8.0)
READS = ("move_ticks", "volume", "imbalance")
DRAWN, FUTURES, CAPACITY, ROWS = 1024, 256, 1664, 64


def candidates(batches: OrderBatches, place: Place) -> Proposed:
    """A candidate for each future, from the minutes before the start, in no order."""
    (day,) = days.replay_days(place.market, [place.feed.read()], [place.feed.name])
    keep, spec = batches.model.spec.batches, batches.tokenizer.spec.images
    found = data.minutes(spec, data.of_day(day), place.market.tick, (place.time_ns - keep * MINUTE_NS, place.time_ns),
                         place.feed.name)
    drawn = jax.tree.map(lambda x: np.asarray(x)[0], batches.propose(
        found.images[None], np.array([keep]), jax.random.split(jax.random.key(0), 1), DRAWN))
    read = np.stack([_read(drawn)[name] for name in READS], axis=-1)
    far = (((read - read.mean(axis=0)) / read.std(axis=0)) ** 2).sum(axis=-1)
    chosen = np.random.default_rng(0).permutation(np.argsort(far)[-FUTURES:])
    return jax.tree.map(lambda x: x[chosen], drawn)


def _read(drawn: Proposed) -> dict[str, np.ndarray]:
    """What candidates tell, volumes as logarithms of 1 + shares."""
    found = {name: np.asarray(drawn.read)[:, READ.index(name)] for name in READS}
    return {**found, "volume": np.log1p(found["volume"])}


@jax.jit
def minute(simulator: Simulator, start: Start, numbers: jax.Array, told: ReadBatch) -> SimState:
    """Futures of a minute that are told something."""
    until = jax.tree.map(lambda x: jnp.broadcast_to(x, len(numbers)), times.Time(start.time.s + 60, start.time.ns))
    first = dataclasses.replace(sim_step.begin(simulator, start, numbers, (), until), guide=told)
    ready = simulator.prepared()

    def one(state: SimState) -> SimState:
        return sim_step.step(ready, state, sim_step.draw(jnp.uint32(0), state.trajectory, state.step))[0]

    return jax.lax.while_loop(lambda state: jnp.any(state.end == End.RUNNING), one, first)


def done(prepared: PreparedModel, ensemble: Ensemble, place: Place, start: Start, codes: np.ndarray, strength: float
         ) -> Features:
    """What futures do that are told codes [B, C], [B]."""
    market = dataclasses.replace(place.market, capacity=CAPACITY)
    simulator = dataclasses.replace(prepared.simulator(market), ensemble=ensemble).replace(
        observers=(FeatureObserver(market.tick),), account=ACCOUNT)
    parts = []
    for first in range(0, len(codes), ROWS):
        told = ensemble.prepared(codes[first : first + ROWS], strength)
        state = minute(simulator, resize(start, CAPACITY), jnp.arange(first, first + ROWS), told)
        parts.append(jax.device_get(FeatureObserver(market.tick).of(state.observed[0])))
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def slope(told: np.ndarray, did: np.ndarray) -> dict[str, float]:
    """Of a straight line through the points, with the half of its interval of 95% and the correlation.

    What was done is cut off at its percentiles 1 and 99: few futures go very far.
    """
    did = np.clip(did, *np.percentile(did, [1, 99]))
    x, y = told - told.mean(), did - did.mean()
    found = (x * y).sum() / (x * x).sum()
    error = np.sqrt((x * x * (y - found * x) ** 2).sum()) / (x * x).sum()
    return {"slope": float(found), "half_interval": float(1.96 * error), "correlation": float(np.corrcoef(x, y)[0, 1]),
            "told_sd": float(x.std()), "did_sd": float(y.std()), "told_mean": float(told.mean()),
            "did_mean": float(did.mean())}


def measured(prepared: PreparedModel, batches: OrderBatches, ensemble: Ensemble, place: Place
             ) -> dict[str, dict[str, dict[str, float]]]:
    """Slopes of moves, logarithms of volume and imbalance, by the strength."""
    (start,) = starts.states_of_feed(place.market, prepared, place.feed, [place.time_ns]).starts
    start = own_futures.best_orders(start)
    drawn = candidates(batches, place)
    read, found = _read(drawn), {}
    for strength in STRENGTHS:
        did, label = done(prepared, ensemble, place, start, drawn.codes, strength), f"{strength:g}"
        mid = (int(start.market.book.price[0, 0]) + int(start.market.book.price[1, 0])) / 2
        moves = np.asarray(did.move_bp) * 1e-4 * mid / place.market.tick
        found[label] = {"move": slope(read["move_ticks"], moves),
                        "volume": slope(read["volume"], np.log1p(did.volume)),
                        "imbalance": slope(read["imbalance"], np.asarray(did.imbalance))}
        print(place.feed.name, label, {name: f"{of['slope']:+.3f} +- {of['half_interval']:.3f}, {of['correlation']:.2f}"
                                       for name, of in found[label].items()}, flush=True)
    return found


def main(checkpoint: str, folder: str, output: str) -> None:
    """Measures both starts and writes."""
    batches, _ = order_batch.load(checkpoint)
    ensemble, _ = ensemble_files.load(checkpoint)
    prepared = order_model.prepare(load.load_order_model(checkpoint))
    (feed,) = sources.open_days("sse", folder, [REAL])
    day = places.made_day(checkpoint, "default")
    at = {"default": places.in_made_day(prepared, day, places.warm_up_of(day), ACCOUNT + 1),
          "real": places.in_real_day(prepared, feed, AT_NS, 0, 1, ACCOUNT + 1)}
    Path(output).write_text(json.dumps({name: measured(prepared, batches, ensemble, place)
                                        for name, place in at.items()}, indent=1))


if __name__ == "__main__":
    main(*sys.argv[1:4])
