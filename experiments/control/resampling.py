"""What control by resampling costs, and how well it fits: a drop asked of futures of the default model's day `default`.

    python experiments/control/resampling.py
    python experiments/control/resampling.py --trajectories=512 --islands=0,64

Futures left alone, and controlled ones of the same numbers for each size of islands and length of intervals, in turn.
Prints a line of JSON each: time, decisions a second, how the futures fit, and how many of the first
trajectories are left.
"""

import argparse
import dataclasses
import itertools
import json
import time
from typing import Any

import jax
import numpy as np

import marsjax
from marsjax.market import exchange
from marsjax.sim.control import ControlSpec, scenarios
from marsjax.sim.control.guides import Guide
from marsjax.sim.control.lineages import ControlledRollout
from marsjax.sim.rollout import Hooks, RolloutProgress
from marsjax.studies import control, futures, order_model, places, starts
from marsjax.studies.control import ControlledMarket
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.progress import Watching


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--minutes", type=int, default=10)
    parser.add_argument("--drop_bp", type=float, default=30.0)
    parser.add_argument("--islands", default="0,16,8")
    parser.add_argument("--every_s", default="60,30,15")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--day", default="default")
    given = parser.parse_args()
    at, spec = market_of(given.day), FuturesSpec(given.trajectories, given.minutes, given.seed)
    print(json.dumps({"every_s": None, "island": "not paused", **not_paused(at, spec)}), flush=True)
    is_first = True
    for every_s, island in itertools.product(*(map(int, x.split(",")) for x in (given.every_s, given.islands))):
        asked = ControlSpec(every_s=every_s, island=island, strength=given.strength)
        intervals = asked.intervals(given.minutes)
        guide = scenarios.curve(-given.drop_bp * np.arange(1, intervals + 1) / intervals)
        if is_first:
            alone = measured(at, spec, dataclasses.replace(asked, strength=0.0), guide)
            print(json.dumps({"every_s": every_s, "island": "left alone", **alone}), flush=True)
        print(json.dumps({"every_s": every_s, "island": island, **measured(at, spec, asked, guide)}), flush=True)
        is_first = False


def not_paused(at: ControlledMarket, spec: FuturesSpec) -> dict[str, Any]:
    """The futures left alone by `studies.futures.simulate`, which does not pause, and reuses slots."""
    seen = _Speed()
    (run,) = futures.simulate(at.prepared, at.market, spec, [at.start], watch=Watching(on_chunk=seen))
    return {**seen.numbers(), "run_s": round(run.run_s, 2), "steps": run.steps}


class _Speed:
    """Decisions, seconds and processor seconds after the first chunk of steps, which is not counted.

    Other work on a machine slows the first of them, and the second less.
    """

    def __init__(self) -> None:
        self._seen: list[tuple[float, float, int]] = []

    def __call__(self, progress: RolloutProgress) -> None:
        self._seen.append((time.perf_counter(), time.process_time(), progress.orders))

    def numbers(self) -> dict[str, int]:
        wall_s, processor_s, decisions = (last - first for first, last in zip(self._seen[0], self._seen[-1],
                                                                              strict=True))
        return {"decisions_per_s": round(decisions / wall_s),
                "decisions_per_processor_s": round(decisions / processor_s)}


def measured(at: ControlledMarket, spec: FuturesSpec, asked: ControlSpec, guide: Guide) -> dict[str, Any]:
    """A run in numbers."""
    seen = _Speed()
    run = control.simulate(at, spec, asked, guide, hooks=Hooks(seen))
    return {**seen.numbers(), **numbers(run, guide)}


def market_of(name: str) -> ControlledMarket:
    """The start of a day of the default model."""
    prepared = order_model.prepare(marsjax.load_order_model("default"))
    day = places.made_day("default", name)
    place = places.in_made_day(prepared, day, places.warm_up_of(day), accounts=2)
    (start,) = starts.states_of_feed(place.market, prepared, place.feed, [place.time_ns]).starts
    return ControlledMarket(prepared, place.market, start)


def numbers(run: ControlledRollout, guide: Guide) -> dict[str, Any]:
    """What there is to say of a run."""
    fit = control.fit(run, guide)
    market = run.rollout.state.market
    lost = dataclasses.astuple(jax.vmap(exchange.conservation)(market))
    return {
        "run_s": round(run.rollout.run_s, 2), "decisions": run.decisions, "steps": run.rollout.steps,
        "correlation": round(fit.correlation, 3), "rmse_bp": round(fit.rmse_bp, 2),
        "terminal_error_bp": round(fit.terminal_error_bp, 2), "within_5_bp": round(fit.share_near, 3),
        "mean_ess": round(float(run.ess.mean()), 3), "distinct": int(run.distinct[-1].sum()),
        "resampled": round(float(run.resampled.mean()), 3),
        "log_evidence": round(float(run.log_evidence.mean()), 1),
        "std_end_bp": round(float(run.features.return_bp[-1].std()), 2),
        "mean_end_bp": round(float(run.features.return_bp[-1].mean()), 2),
        "not_conserved": sum(int(np.count_nonzero(np.asarray(x))) for x in jax.tree.leaves(lost))}


if __name__ == "__main__":
    main()
