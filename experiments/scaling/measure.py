"""How the loss of order models falls with their size and with the orders that they are trained on, and a law of it.

    python experiments/scaling/measure.py losses.jsonl --seconds=480
    python experiments/scaling/measure.py real.jsonl --source=sse --folder=data/sse --seconds=240

Each (size, amount) writes a line; what is there under the same settings is not made again, so that the same command
goes on where it was. No training is begun of which it must be expected that it ends after `--seconds`. At the end all
lines are fitted: a table, the law with its intervals, and beside the file a picture and a record of the law.
"""

import argparse
import dataclasses
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from marsjax.analysis import scaling_law, scaling_plots
from marsjax.analysis.scaling_law import FittedLaw, Losses
from marsjax.checkpoint import load
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.data import made_days, sources
from marsjax.studies import order_model, scaling, scaling_days
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.scaling import SIZES, MadeOrdersSpec, Orders, ScalingSpec

FUTURES = (64, 256, 1024, 4096)
"""Amounts of made orders, in futures of `--orders` orders each."""
REAL = (4, 16, 64)
"""Amounts of real orders, in stretches of as many."""
LENGTH = {"made": 1536}
"""Orders of a future; of real days a stretch has 1,024."""
SPARE = 16
"""Futures more than needed, in place of those that are too short."""
VERSION = 2
"""Of how a line is made: lines without it had held-out futures by the largest of `--amounts`, and fewer early looks."""
SYMBOLS = ("600536", "600761", "601825")
"""Whose bins the default model has."""
HELD_FROM_NS = times.of_clock("14:00:00")
SAME = ("orders", "steps", "batch", "length", "every", "patience", "dtype", "seed")
"""Settings of a line, beside the source and the futures held out."""
FREE, KNOWN = "all fitted", "E of the writer"
"""Laws."""


def flags() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path, help="file of lines")
    parser.add_argument("--source", default="made", choices=["made", *sources.names()])
    parser.add_argument("--folder", default="", help="of a feed")
    parser.add_argument("--sizes", default="50k,170k,860k,3.3M,17M,20k,9k", help=f"some of {', '.join(SIZES)}")
    parser.add_argument("--amounts", default="", help="rising; in futures, of real days in stretches")
    parser.add_argument("--orders", type=int, default=0, help="of a future, or of a stretch of real days")
    parser.add_argument("--held-out", type=int, default=128, help="futures")
    parser.add_argument("--seconds", type=float, default=480.0, help="0: only the fit of what is there")
    parser.add_argument("--dtype", default="", help="of matrix products; by default bfloat16 but on a CPU")
    for name in ("steps", "batch", "length", "every", "patience", "seed"):
        parser.add_argument(f"--{name}", type=int, default=getattr(ScalingSpec(), name))
    given = parser.parse_args()
    given.sizes = given.sizes.split(",")
    given.amounts = [int(x) for x in given.amounts.split(",")] if given.amounts else list(
        FUTURES if given.source == "made" else REAL)
    given.orders = given.orders or LENGTH.get(given.source, 1024)
    given.dtype = given.dtype or ("float32" if jax.default_backend() == "cpu" else "bfloat16")
    for name in given.sizes:
        if name not in SIZES:
            raise InputError(f"--sizes: expected some of {', '.join(SIZES)}, got {name!r}")
    if given.amounts != sorted(set(given.amounts)):
        raise InputError(f"--amounts: expected rising numbers, got {given.amounts}")
    return given


def settings(given: argparse.Namespace) -> dict[str, Any]:
    """What lines must have in common to be one study."""
    of_source = {"held_out": given.held_out} if given.source == "made" else {}
    return {"version": VERSION, "source": given.source, **of_source, **{name: getattr(given, name) for name in SAME}}


def lines(path: Path, same: dict[str, Any], is_fit: bool = False) -> list[dict[str, Any]]:
    """What is there under these settings; for a fit alone all lines, if they have the same settings, whichever."""
    if not path.exists():
        return []
    found = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    if is_fit and all(line["settings"] == found[0]["settings"] for line in found):
        return found
    return [line for line in found if line["settings"] == same]


def orders_of(given: argparse.Namespace, prepared: PreparedModel) -> tuple[Orders, dict[str, Any]]:
    """The orders, and what there is to say of them."""
    if given.source != "made":
        feeds = sources.open_days(given.source, given.folder)
        feeds = [feed for feed in feeds if feed.symbol in SYMBOLS or given.source != "sse"]
        market = feeds[0].venue.market(capacity=8192, trade_width=1)
        orders = scaling_days.of_days(prepared, market, feeds, given.orders, given.amounts, HELD_FROM_NS)
        return orders, {"days": [feed.name for feed in feeds]}
    days = [made_days.open_day(load.folder_of(load.DEFAULT), name) for name in made_days.NAMES]
    apart, rest = (scaling.made_orders(prepared, days, spec) for spec in written(given))
    orders = scaling.of_two(prepared.model.spec.tokens, rest, apart, given.amounts, given.held_out)
    counts = {name: getattr(apart, name) + getattr(rest, name) for name in ("left_out", "decisions", "tokens")}
    return orders, {"futures": len(apart.rows) + len(rest.rows), **counts}


def written(given: argparse.Namespace) -> tuple[MadeOrdersSpec, MadeOrdersSpec]:
    """Futures that are held out or validate, whose numbers are the same for all amounts; those to train on."""
    apart = MadeOrdersSpec(given.held_out + scaling.MOST_VALIDATING + SPARE, given.orders, max(given.orders // 12, 32),
                           seed=given.seed)
    return apart, dataclasses.replace(apart, futures=given.amounts[-1] + SPARE, first=apart.futures)


def mean(of_stretches: np.ndarray) -> dict[str, float]:
    """With the standard error between stretches."""
    return {"nats": float(of_stretches.mean()), "error": float(of_stretches.std(ddof=1) / math.sqrt(len(of_stretches)))}


class Writer(NamedTuple):
    """The model that wrote the orders, on those held out."""

    own: np.ndarray
    """float64 [S], in its own contexts, float32."""
    record: dict[str, Any]


def writer(spec: ScalingSpec, prepared: PreparedModel, orders: Orders) -> Writer:
    """Its losses, in its own way and in that of the others."""
    model, own = prepared.model.model, prepared.model.spec.context_length
    best, like_others = (scaling.floor(model, orders, *how) for how in ((own, "float32"), (spec.length, spec.dtype)))
    return Writer(best, {**mean(best), "as_others": mean(like_others), "orders": sum(x.count for x in orders.held_out)})


def trained(spec: ScalingSpec, name: str, orders: Orders, place: int, against: Writer | None) -> dict[str, Any]:
    """One size on one amount, as a line."""
    amount, size = orders.amounts[place], SIZES[name]
    most = orders.amounts[-1].orders
    repeated, rest = divmod(most, amount.orders)
    found = scaling.train(spec, size, orders.tokens, amount, 1 if rest else repeated)
    nats = scaling.held_out(spec, found.weights, orders)
    above = {"above_writer": mean(nats - against.own)} if against else {}
    return {"size": name, "numbers": found.numbers, "orders": amount.orders,
            "validation_orders": sum(x.count for x in amount.validation), **mean(nats), **above,
            "validation": found.validation, "step": found.step, "steps": found.steps, "seconds": found.seconds}


def measured(given: argparse.Namespace, same: dict[str, Any], began: float) -> Iterator[dict[str, Any]]:
    """A line for all that is missing, as far as the time goes."""
    there = lines(given.output, same)
    done = {(line["size"], line["amount"]) for line in there if "size" in line}
    todo = [(name, place) for name in given.sizes for place, amount in enumerate(given.amounts)
            if (name, amount) not in done]
    if not todo or given.seconds <= 0:
        return
    spec = ScalingSpec(**{name: getattr(given, name) for name in SAME if name != "orders"})
    prepared = order_model.prepare(load.load_order_model())
    orders, about = orders_of(given, prepared)
    of = {"settings": same, "device": jax.devices()[0].device_kind, "jax": jax.__version__}
    against = writer(spec, prepared, orders) if given.source == "made" else None
    yield {"of": "orders", **about, **({"writer": against.record} if against else {}),
           "seconds": time.perf_counter() - began, **of}
    longest = taken([line for line in there if line["device"] == of["device"]])
    for name, place in todo:
        numbers = scaling.numbers(SIZES[name], orders.tokens)
        if time.perf_counter() - began + expected(longest, numbers) > given.seconds:
            print(f"no time for {name} on {given.amounts[place]}: the same command goes on with it")
            continue
        since = time.perf_counter()
        yield {**trained(spec, name, orders, place, against), "amount": given.amounts[place], **of}
        longest[numbers] = max(longest.get(numbers, 0.0), time.perf_counter() - since)


def taken(there: list[dict[str, Any]]) -> dict[int, float]:
    """Seconds of the longest training of each size, by the numbers that it learns."""
    found: dict[int, float] = {}
    for line in there:
        if "size" in line:
            found[line["numbers"]] = max(found.get(line["numbers"], 0.0), line["seconds"])
    return found


def expected(longest: dict[int, float], numbers: int) -> float:
    """Seconds of a training: those of the size next to it, in proportion if that is smaller; 0 where none is known."""
    if not longest:
        return 0.0
    near = min(longest, key=lambda other: abs(math.log(other / numbers)))
    return longest[near] * max(numbers / near, 1.0)


def losses_of(found: list[dict[str, Any]]) -> Losses:
    """The lines as points."""
    rows = [line for line in found if "size" in line]
    return Losses(*(np.array([row[key] for row in rows], np.float64) for key in ("numbers", "orders", "nats")))


def writer_as_others(found: list[dict[str, Any]]) -> float | None:
    """Nats of the writer in contexts and numbers as the others have, if there is one."""
    return next((float(line["writer"]["as_others"]["nats"]) for line in found if "writer" in line), None)


def laws_of(found: list[dict[str, Any]]) -> dict[str, FittedLaw]:
    """The law with all its terms fitted, and where there is a writer that whose E is the writer's loss."""
    points = losses_of(found)
    if len(points.nats) < 6 or min(len(np.unique(points.numbers)), len(np.unique(points.orders))) < 3:
        return {}
    floor = writer_as_others(found)
    known = {} if floor is None else {KNOWN: scaling_law.fit(points, floor)}
    return {FREE: scaling_law.fit(points), **known}


def shown(found: list[dict[str, Any]], laws: dict[str, FittedLaw]) -> str:
    """Markdown: losses, and the laws by their names."""
    rows = [line for line in found if "size" in line]
    text = ["| numbers | orders | nats | above the writer | best step | of | s |", "|" + "---|" * 7]
    for row in sorted(rows, key=lambda line: (line["numbers"], line["orders"])):
        above = row.get("above_writer")
        text.append(f"| {row['numbers']:,} | {row['orders']:,} | {row['nats']:.4f} ± {row['error']:.4f} | "
                    + (f"{above['nats']:.4f} ± {above['error']:.4f}" if above else "-")
                    + f" | {row['step']} | {row['steps']} | {row['seconds']:.1f} |")
    for line in found:
        if "writer" in line:
            of = line["writer"]
            text.append(f"\nwriter: {of['nats']:.4f} ± {of['error']:.4f}; as the others: "
                        f"{of['as_others']['nats']:.4f}; {of['orders']:,} orders held out")
            break
    for law, fitted in laws.items():
        text += [f"\n| {law} | value | 95% |", "|---|---|---|"]
        text += [f"| {name} | {x.value:.4g} | {x.low:.4g} to {x.high:.4g} |" for name, x in fitted.intervals.items()]
        text.append(f"\nlargest residual of log loss {np.abs(fitted.residuals).max():.4f}")
        if fitted.at_bounds:
            text.append(f"at their bounds: {', '.join(fitted.at_bounds)}")
        if fitted.cut_off:
            text.append(f"searches that were cut off: {fitted.cut_off} of {len(fitted.draws) + 1}")
    return "\n".join(text)


def main() -> None:
    """Measures what is missing, and fits all."""
    began, given = time.perf_counter(), flags()
    same = settings(given)
    given.output.parent.mkdir(parents=True, exist_ok=True)
    for line in measured(given, same, began):
        with given.output.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        print({key: value for key, value in line.items() if key not in ("settings", "device", "jax")}, flush=True)
    found = lines(given.output, same, is_fit=given.seconds <= 0)
    laws = laws_of(found)
    print(shown(found, laws))
    if not laws:
        print("no law: it needs six points of three sizes and three amounts")
        return
    floor = writer_as_others(found)
    scaling_plots.curves(losses_of(found), laws[FREE], floor).savefig(given.output.with_suffix(".png"), dpi=120)
    record = {name: {"law": fitted.law._asdict(), "intervals": {key: list(x) for key, x in fitted.intervals.items()},
                     "points": len(fitted.residuals), "at_bounds": fitted.at_bounds, "cut_off": fitted.cut_off}
              for name, fitted in laws.items()}
    given.output.with_name(f"{given.output.stem}_law.json").write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
