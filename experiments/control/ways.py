"""The three ways of control side by side: a drop asked of futures of the default model's day `default`.

    python experiments/control/ways.py runs/ways.jsonl
    python experiments/control/ways.py runs/ways.jsonl --told=1,8 --candidates=8 --trajectories=32

Futures left alone, resampled ones, led ones (batch) of each loudness and number of candidates, and both ways together,
all of the same numbers. Writes a line of JSON each, and those that the file has are not run again: how they fit, how
many are independent, how much of what they were told they did, what it costs in realism, and in time.
"""

import argparse
import itertools
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from resampling import market_of, numbers

from marsjax.analysis import control_realism
from marsjax.core.errors import InputError
from marsjax.data.made_days import MadeDay
from marsjax.sim.control import ControlSpec, CurveGuide, scenarios
from marsjax.sim.control.guides import Guide
from marsjax.studies import control, control_models, places
from marsjax.studies.control import ControlledMarket
from marsjax.studies.control_comparison import FuturesKind, kind_of
from marsjax.studies.futures import FuturesSpec

MOST_DECISIONS = 2_000
"""Of a future in a minute: a run with more is given up. Futures left alone make a few hundred."""


def main() -> None:
    """Measures and writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--trajectories", type=int, default=128)
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--drop_bp", type=float, default=30.0)
    parser.add_argument("--told", default="1,2,4,8")
    parser.add_argument("--candidates", default="8,64")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--day", default="default")
    given = parser.parse_args()
    at, spec = led_market(places.made_day("default", given.day)), FuturesSpec(given.trajectories, given.minutes,
                                                                              given.seed)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    lines = given.output.read_text().splitlines() if given.output.is_file() else []
    known = {json.loads(line)["name"] for line in lines}
    intervals = ControlSpec().intervals(given.minutes)
    guide = scenarios.curve(-given.drop_bp * np.arange(1, intervals + 1) / intervals)
    nothing = CurveGuide((float("nan"),) * intervals)
    began = time.process_time()
    free = kind_of("left alone", at, spec, ControlSpec(strength=0.0), nothing, lambda progress: None)
    alone = facts(free, guide, free) | {"processor_s": round(time.process_time() - began, 1)}
    ways = [("left alone", None), ("resample", ControlSpec()), *led_ways(given.told, given.candidates)]
    for name, how in ways:
        if name in known:
            continue
        found = alone if how is None else measured(name, at, spec, how, guide, free)
        with given.output.open("a") as file:
            file.write(json.dumps({"name": name, **found}) + "\n")
        print(json.dumps({"name": name, **found}), flush=True)


def led_ways(told: str, candidates: str) -> list[tuple[str, ControlSpec]]:
    """The ways in which futures are led, by name; before all others those that are told nothing, of few candidates."""
    counts = [int(count) for count in candidates.split(",")]
    pairs = [(counts[0], 0.0), *itertools.product(counts, map(float, told.split(",")))]
    return [(f"{way}, told {loud:g}, {count} candidates",
             ControlSpec(way=way, told=loud, candidates=count, most_decisions=MOST_DECISIONS))
            for count, loud in pairs for way in ("batch", "both")]


def led_market(day: MadeDay) -> ControlledMarket:
    """The start of a made day, with what leads futures of it."""
    at = market_of(day.feed.name)
    models, _ = control_models.load("default", at.prepared)
    place = places.in_made_day(at.prepared, day, places.warm_up_of(day), accounts=2)
    return at._replace(models=control_models.with_past(models, place.market, place.feed, place.time_ns))


def measured(name: str, at: ControlledMarket, spec: FuturesSpec, how: ControlSpec, guide: Guide, free: FuturesKind
             ) -> dict[str, Any]:
    """One way in numbers, or why it was given up."""
    began = time.process_time()
    try:
        found = kind_of(name, at, spec, how, guide, lambda progress: None)
    except InputError as error:
        return {"given_up": str(error)}
    spent = round(time.process_time() - began, 1)
    return facts(found, guide, free) | {"processor_s": spent}


def facts(found: FuturesKind, guide: Guide, free: FuturesKind) -> dict[str, Any]:
    """Fit, what is left, what was told and came, and realism: how much less alike futures are than others left alone.

    `less_orders` and `less_intervals` are means over the quantities of single orders and of intervals, `worst` is the
    one that loses most.
    """
    run = found.run
    done, table = control.followed(run), control_realism.table(free.values(), found.values())
    less = dict(zip(table["quantity"], table["less"].round(4), strict=True))
    means = {f"less_{of}s": round(float(np.nanmean([value for name, value in less.items() if name.startswith(of)])), 4)
             for of in ("order", "interval")}
    own = {name: None if value != value else value for name, value in numbers(run, guide).items()}  # NaN is no JSON
    return own | {
        "lost": int(found.is_lost.sum()), "told": {key: round(value, 3) for key, value in done._asdict().items()}
        if done else None, "less": less, **means, "worst": max(less, key=lambda key: less[key]),
        "orders_a_minute": round(float(np.asarray(run.features.orders).mean()), 1),
        "volatility_bp": round(float(np.asarray(run.features.volatility_bp).mean()), 2)}


if __name__ == "__main__":
    main()
