"""Quantities of stretches of one market, historical and simulated -> rows of similarities (paper, Table 7).

Two kinds of values are compared. Of single orders: `quantities.OF_ORDERS`. Of minutes: `quantities.OF_STRETCHES` of
each whole minute, where return_k is that of every k minutes which begin on a whole minute. The minutes that follow one
starting state, in all its trajectories, are one block.

Bins, classes and scales are fixed by each market's own orders before its first start, since prices, spreads and
volumes of markets differ; the figure of several markets is the mean of theirs. Pooling them instead would let errors of
opposite sign hide one another.

The ceiling draws two samples as large as those compared from the real stretches between the first and the last start,
that begin at any half minute: a few values drawn twice would agree on the very bins that they fall into.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from marsjax.analysis import quantities, realism
from marsjax.analysis.intervals import UNKNOWN, Interval
from marsjax.analysis.quantities import MINUTE_NS, OF_ORDERS, OF_STRETCHES, RETURN_MINUTES, OrderEvents
from marsjax.analysis.realism import Sample
from marsjax.core.errors import InputError

ORDER, MINUTE = "order", "minute"
MEAN = "mean"
"""Stands for the market in rows of all."""
ALL_MINUTES = 0
"""Horizon of rows of all minutes."""
PAPER = {"volatility": (0.872, 0.516), "spread": (0.970, 0.729), "order_volume": (0.957, 0.776),
         "aggressive_ratio": (0.920, 0.525), "buy_ratio": (0.933, 0.570), "return_1": (0.956, 0.684),
         "return_5": (0.908, 0.531)}
"""Similarity and three-class accuracy in the paper's Table 7, of its model and days."""
_BY_HORIZON = {ORDER: OF_ORDERS, MINUTE: ("return_1", "volatility", "aggressive_ratio", "buy_ratio")}


class Key(NamedTuple):
    """Which values."""

    of: str
    """ORDER or MINUTE."""
    quantity: str
    minute: int
    """The one after the start, 1 for the first, or ALL_MINUTES."""


Values = dict[Key, np.ndarray]
"""Values float64 [n] of one stretch; NaN where one is undefined."""


@dataclasses.dataclass(frozen=True, eq=False)
class Fixed:
    """What one market's orders before its first start fix, by kind and name of quantity."""

    bins: dict[tuple[str, str], np.ndarray]
    classes: dict[str, np.ndarray]
    usual: dict[str, int]
    """The class that most values fell into: where values are often equal, thirds are not."""


@dataclasses.dataclass(frozen=True, eq=False)
class Compared:
    """One market's values, K starting states with B trajectories each."""

    market: str
    fixed: Fixed
    history: list[Values]
    """[K]."""
    simulated: list[list[Values]]
    """[K] of as many as got to their end."""
    nearby: list[Values]
    """Real stretches that begin between the first start and the last, for the ceiling."""
    noise: list[Values]
    earlier: list[Values]
    """Real stretches that end before the first start."""
    real: list[dict[str, float]]
    """[K], `of_stretch` of all minutes."""
    rollouts: list[list[dict[str, float]]]
    """[K] of [B]; NaN for lost ones."""
    trajectories: int
    """B."""


def keys(minutes: int) -> list[Key]:
    """What is compared, in the order of the table: minutes, orders, then both by horizon."""
    names = {MINUTE: [name for name in OF_STRETCHES
                      if not name.startswith("return_") or int(name.removeprefix("return_")) <= minutes],
             ORDER: OF_ORDERS}
    together = [Key(of, name, ALL_MINUTES) for of, some in names.items() for name in some]
    return together + [Key(of, name, minute) for of in names for name in _BY_HORIZON[of]
                    for minute in range(1, minutes + 1)]


def values(events: OrderEvents, start_ns: int, minutes: int) -> Values:
    """The values of the `minutes` after a start."""
    found: Values = {}
    rows = quantities.by_minute(events, start_ns, minutes)
    for name in OF_STRETCHES:
        column = np.array([row[name] for row in rows])
        found[Key(MINUTE, name, ALL_MINUTES)] = column
        found |= {Key(MINUTE, name, 1 + i): column[i : i + 1] for i in range(minutes)}
    for length in RETURN_MINUTES:
        if length <= minutes:
            begins = start_ns + MINUTE_NS * np.arange(minutes - length + 1)
            found[Key(MINUTE, f"return_{length}", ALL_MINUTES)] = quantities.returns(events, begins, length)
    ends = [start_ns + MINUTE_NS * minute for minute in range(minutes + 1)]
    spans = {ALL_MINUTES: (ends[0], ends[-1])} | {1 + i: (ends[i], ends[i + 1]) for i in range(minutes)}
    for minute, (first, last) in spans.items():
        single = quantities.of_orders(events.between(first, last))
        found |= {Key(ORDER, name, minute): column for name, column in single.items()}
    return found


def fix(events: OrderEvents, times_ns: Mapping[int, np.ndarray], minutes: int) -> Fixed:
    """Bins and classes by orders that are not compared.

    Args:
      events: one market's.
      times_ns: by a number of minutes, int64 [K] starts of stretches as long; for 1 to `minutes`.
      minutes: of a rollout.

    Bins are the 2% quantiles of the values of single orders, or of stretches of a minute (k minutes for return_k), and
    classes the terciles of stretches as long as a rollout. InputError where a quantity has no value.
    """
    last_ns = int(max(at.max() + length * MINUTE_NS for length, at in times_ns.items()))
    rows = {length: [quantities.of_stretch(events, int(at), length) for at in times_ns[length]]
            for length in sorted({1, minutes})}
    bins = {(ORDER, name): column
            for name, column in quantities.of_orders(events.between(-1, last_ns)).items()}
    classes = {}
    for name in OF_STRETCHES:
        if name.startswith("return_"):
            length = int(name.removeprefix("return_"))
            if length > minutes:
                continue
            bins[MINUTE, name] = classes[name] = quantities.returns(events, times_ns[length], length)
        else:
            bins[MINUTE, name] = np.array([row[name] for row in rows[1]])
            classes[name] = np.array([row[name] for row in rows[minutes]])
    edges = {name: realism.class_edges(_known(column, name)) for name, column in classes.items()}
    return Fixed({key: realism.quantile_edges(_known(column, key[1])) for key, column in bins.items()}, edges,
                 {name: int(np.bincount(np.searchsorted(edges[name], _known(column, name))).argmax())
                  for name, column in classes.items()})


def _known(column: np.ndarray, name: str) -> np.ndarray:
    column = column[np.isfinite(column)]
    if not column.size:
        raise InputError(f"{name}: expected a value before the first start to fix bins by, got none")
    return column


def table(compared: Iterable[Compared], minutes: int, seed: int, resamples: int) -> pd.DataFrame:
    """A row for each market and key, and below them the means over the markets.

    Columns: market, of, quantity, minute; similarity, ceiling, wasserstein, wasserstein_ceiling and accuracy, each with
    _low and _high; floor and wasserstein_floor (history against noise), earlier and
    wasserstein_earlier (history against that before the first start, which is what a model that has learnt those hours
    would get if nothing changed with time), accuracy_floor (always the class that was most common before the first
    start); paper_similarity, paper_accuracy;
    history_values, simulated_values. NaN where there is nothing to compare, or the distance has no unit because the
    historical quartiles are equal (the mean is over the other markets). Single minutes have no accuracy, and single
    orders in them no distance. Where history or what was simulated has values after one start alone, or one value
    alone, a row has no figures of it, and its `note` says so; in rows of all markets it says which are left out.
    """
    rows = [_row(one, key, seed, resamples) for one in compared for key in keys(minutes)]
    frame = pd.DataFrame(rows)
    means = [_mean(frame[(frame["of"] == key.of) & (frame["quantity"] == key.quantity)
                         & (frame["minute"] == key.minute)]) for key in keys(minutes)]
    return pd.concat([frame, pd.DataFrame(means)], ignore_index=True)


def _row(one: Compared, key: Key, seed: int, resamples: int) -> dict[str, Any]:
    history = _sample([[each[key]] for each in one.history])
    simulated = _sample([[each[key] for each in block] for block in one.simulated])
    nearby, noise, earlier = (_sample([[each[key]] for each in some]) for some in (one.nearby, one.noise, one.earlier))
    counts = [len(one.values) if one else 0 for one in (history, simulated)]
    found = dict.fromkeys(("similarity", "ceiling", "wasserstein", "wasserstein_ceiling", "accuracy"), UNKNOWN)
    floors = dict.fromkeys(("floor", "wasserstein_floor", "earlier", "wasserstein_earlier", "accuracy_floor"),
                           float("nan"))
    edges, blocks = one.fixed.bins[key.of, key.quantity], (len(one.history), len(one.history) * one.trajectories)
    of_history, of_simulated = realism.too_few("history", history), realism.too_few("what was simulated", simulated)
    if of_history:
        history, nearby = None, None
    if of_history or of_simulated:
        simulated = None
    if history and simulated:
        found["similarity"] = realism.similarity_interval(history, simulated, edges, seed, resamples)
    if nearby:
        found["ceiling"] = realism.similarity_ceiling(nearby, edges, blocks, seed, resamples)
    others = {"floor": noise, "earlier": earlier}
    if history:
        floors |= {name: realism.similarity(history, other, edges) for name, other in others.items() if other}
    if history and (key.minute == ALL_MINUTES or key.of == MINUTE):
        spread = realism.interquartile(history.values)
        if simulated:
            found["wasserstein"] = realism.wasserstein_interval(history, simulated, spread, seed, resamples)
        if nearby:
            found["wasserstein_ceiling"] = realism.wasserstein_ceiling(nearby, spread, blocks, seed, resamples)
        floors |= {f"wasserstein_{name}": realism.wasserstein(history, other, spread)
                   for name, other in others.items() if other}
        if simulated and key.of == MINUTE and key.minute == ALL_MINUTES:
            found["accuracy"], floors["accuracy_floor"] = _accuracy(one, key.quantity, seed, resamples)
    columns = {f"{name}{end}": value for name, interval in found.items()
               for end, value in zip(("", "_low", "_high"), interval, strict=True)}
    is_in_paper = key.of == MINUTE and key.minute == ALL_MINUTES
    paper = PAPER.get(key.quantity if is_in_paper else "", (np.nan, np.nan))
    return {"market": one.market, **key._asdict(), **columns, **floors, "paper_similarity": paper[0],
            "paper_accuracy": paper[1], "history_values": counts[0], "simulated_values": counts[1],
            "note": of_history or of_simulated}


def _accuracy(one: Compared, name: str, seed: int, resamples: int) -> tuple[Interval, float]:
    """Of the rollouts, and of the usual class; NaN where no start has both a real value and a simulated one."""
    rollouts = np.array([[each[name] for each in block] for block in one.rollouts])
    real = np.array([each[name] for each in one.real])
    keep = np.isfinite(real) & np.isfinite(rollouts).any(axis=1)
    if not keep.any():
        return UNKNOWN, float("nan")
    edges = one.fixed.classes[name]
    return (realism.three_class_accuracy(rollouts, real, edges, seed, resamples),
            float(np.mean(np.searchsorted(edges, real[keep]) == one.fixed.usual[name])))


def _sample(blocks: Sequence[Sequence[np.ndarray]]) -> Sample | None:
    """None without a value."""
    parts = [np.concatenate([np.zeros(0), *block]) for block in blocks]
    return realism.sample(parts) if any(np.isfinite(part).any() for part in parts) else None


def _mean(rows: pd.DataFrame) -> dict[str, Any]:
    """Means over markets that have a value; their intervals are taken to be independent."""
    first = rows.iloc[0]
    found: dict[str, Any] = {"market": MEAN, "of": first["of"], "quantity": first["quantity"],
                             "minute": first["minute"]}
    left = rows[rows["note"] != ""]
    for name in rows.columns[4:].drop("note"):
        centre = name.removesuffix("_low").removesuffix("_high")
        known = rows[centre].notna()
        if name in ("history_values", "simulated_values"):
            found[name] = rows[name].sum()
        elif not known.any():
            found[name] = float("nan")
        elif centre == name:
            found[name] = rows[name][known].mean()
        else:
            away = np.sqrt(((rows[name] - rows[centre])[known] ** 2).sum()) / known.sum()
            found[name] = rows[centre][known].mean() + (away if name.endswith("_high") else -away)
    note = "" if left.empty else f"without {', '.join(left['market'])} ({left.iloc[0]['note']})"
    return found | {"note": note}
