"""What an execution cost, and what it did to the price: arrays of rollouts -> tables (market impact, in the reference).

Every execution may be compared with the same market without it: a baseline of the same start and the same random
numbers. What is then left of the difference is the execution's doing, and far less noise than between markets that
draw independently; `variance_saved` says how much.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from marsjax.analysis.intervals import UNKNOWN, Interval, percentiles, resampled
from marsjax.core.errors import InputError

_BP = 10_000


@dataclasses.dataclass(frozen=True, eq=False)
class Runs:
    """B rollouts of M minutes, NumPy arrays."""

    number: np.ndarray
    """int [B], that their draws are keyed by; a rollout and its baseline have the same."""
    seed: np.ndarray
    """int [B], of their starting state."""
    sign: np.ndarray
    """int [B], 1 where the execution buys, -1 where it sells."""
    ratio: np.ndarray
    """float [B], target over the mean volume of the baselines; 0 without an execution."""
    target: np.ndarray
    """int [B] shares."""
    mids: np.ndarray
    """float [B, M + 1], mid at the end of each minute, the start's first; 1e-4 of the currency."""
    volume: np.ndarray
    """int [B, M] shares that all traded."""
    shares: np.ndarray
    """int [B, M], change of the execution's holdings."""
    cash: np.ndarray
    """int [B, M], change of its cash, 1e-4 of the currency."""
    lost: np.ndarray
    """bool [B], the rollout broke off: it is counted, and part of no mean."""

    def __post_init__(self) -> None:
        rollouts, minutes = self.volume.shape
        expected = {"mids": (rollouts, minutes + 1), "shares": (rollouts, minutes), "cash": (rollouts, minutes)}
        for field in dataclasses.fields(self):
            shape = np.shape(getattr(self, field.name))
            if shape != expected.get(field.name, (rollouts, minutes) if field.name == "volume" else (rollouts,)):
                raise InputError(f"Runs.{field.name}: expected {expected.get(field.name, (rollouts,))} for volume "
                                 f"{(rollouts, minutes)}, got {shape}")

    def where(self, chosen: np.ndarray | slice) -> "Runs":
        """Some of the rollouts."""
        return Runs(**{field.name: getattr(self, field.name)[chosen] for field in dataclasses.fields(self)})

    def replaced(self, chosen: np.ndarray, others: "Runs") -> "Runs":
        """With others in the place of the rollouts chosen, bool [B]."""
        def put(name: str) -> np.ndarray:
            column: np.ndarray = getattr(self, name).copy()
            column[chosen] = getattr(others, name)
            return column

        return Runs(**{field.name: put(field.name) for field in dataclasses.fields(self)})


class PowerLaw(NamedTuple):
    """impact = factor x size ** exponent, fitted to means in logarithms; NaN where it cannot be."""

    factor: float
    exponent: float
    low: float
    """Of the exponent's interval."""
    high: float
    undefined: float
    """Part of the bootstrap draws in which a mean impact was not above 0: no exponent, not part of the interval."""
    root_factor: float
    """Of the square root law, the exponent held at 1/2."""


def costs(runs: Runs, end: int) -> pd.DataFrame:
    """What each rollout's execution cost in its first `end` minutes, one row a rollout, against the arrival mid.

    Columns: completed (shares), fulfilled (of the target), average_price, slippage_bp (average price against the mid
    at the start, positive is worse), shortfall_bp (implementation shortfall: the same, and what is left undone taken at
    the mid at `end`, over the full target), participation (of all volume). NaN where nothing traded; lost rollouts
    are NaN throughout.
    """
    arrival = runs.mids[:, 0]
    signed, cash = (x.sum(axis=1) for x in (runs.shares, runs.cash))
    completed = runs.sign * signed
    with np.errstate(divide="ignore", invalid="ignore"):
        average = np.where(completed > 0, -cash / np.where(signed == 0, 1, signed), np.nan)
        left = runs.target - completed
        paid = np.where(completed > 0, (average - arrival) * completed, 0.0) + (runs.mids[:, end] - arrival) * left
        shortfall = np.where(runs.target > 0, runs.sign * paid / (runs.target * arrival) * _BP, np.nan)
        table = pd.DataFrame({
            "completed": completed.astype(float), "fulfilled": completed / np.where(runs.target, runs.target, np.nan),
            "average_price": average, "slippage_bp": runs.sign * (average / arrival - 1) * _BP,
            "shortfall_bp": shortfall, "participation": completed / np.maximum(runs.volume[:, :end].sum(axis=1), 1)})
    return table.mask(np.broadcast_to(runs.lost[:, None], table.shape))


def impact(runs: Runs, baseline: Runs) -> np.ndarray:
    """Impact of each rollout, float [B, M + 1] in basis points of the start's mid: against the baseline of its number.

    Positive where the price moved the way of the trade. NaN where the rollout or its baseline is lost. InputError
    unless there is one baseline for each.
    """
    order = np.argsort(baseline.number, kind="stable")
    place = np.searchsorted(baseline.number[order], runs.number)
    row = order[np.minimum(place, len(order) - 1)]
    missing = np.flatnonzero(baseline.number[row] != runs.number)
    if missing.size:
        raise InputError(f"impact: expected a baseline of number {runs.number[missing[0]]}, found none")
    moved = runs.sign[:, None] * (runs.mids - baseline.mids[row]) / runs.mids[:, :1] * _BP
    return np.where((runs.lost | baseline.lost[row])[:, None], np.nan, moved)


def bootstrap(values: np.ndarray, draws: int, seed: int) -> Interval:
    """Mean of values [N] that are not NaN, with its interval over resampled rollouts; NaN of fewer than two.

    Examples:
      >>> found = bootstrap(np.array([1.0, 2.0, 3.0, np.nan]), draws=500, seed=0)
      >>> found.value, found.low < found.value < found.high
      (2.0, True)
    """
    known = values[~np.isnan(values)]
    if len(known) < 2:
        return UNKNOWN._replace(value=float(known.mean()) if len(known) else np.nan)
    low, high = percentiles(resampled([known], np.mean, draws, seed))
    return Interval(float(known.mean()), float(low), float(high))


def variance_saved(common: np.ndarray, independent: np.ndarray) -> float:
    """Variance of impacts [B] against independent baselines over that against those of the same draws."""
    both = ~np.isnan(common) & ~np.isnan(independent)
    if both.sum() < 2 or not common[both].var():
        return np.nan
    return float(independent[both].var(ddof=1) / common[both].var(ddof=1))


def power_law(sizes: np.ndarray, impacts: list[np.ndarray], draws: int, seed: int) -> PowerLaw:
    """Impact against size: a line through the logarithms of mean impacts [G] of groups of rollouts at sizes [G].

    The exponent's interval is over rollouts resampled within their groups. NaN for fewer than two sizes, or where a
    group's mean is not above 0.

    Examples:
      >>> sizes = np.array([0.1, 0.2, 0.4])
      >>> law = power_law(sizes, [20 * np.sqrt(size) * np.array([0.9, 1.0, 1.1]) for size in sizes], draws=200, seed=0)
      >>> round(law.exponent, 3)
      0.5
    """
    known = [x[~np.isnan(x)] for x in impacts]
    if len(sizes) < 2 or any(len(x) < 2 for x in known):
        return PowerLaw(*[np.nan] * 6)
    def exponent(*groups: np.ndarray, axis: int) -> np.ndarray:
        return _line(sizes, np.stack([group.mean(axis=axis) for group in groups], axis=-1))[0]

    drawn, at = resampled(known, exponent, draws, seed), np.array([x.mean() for x in known])
    slope, factor = _line(sizes, at)
    root = float((at * np.sqrt(sizes)).sum() / sizes.sum())
    undefined = float(1 - np.isfinite(drawn).mean())
    low, high = percentiles(drawn) if undefined < 1 else (np.nan, np.nan)
    return PowerLaw(float(factor), float(slope), float(low), float(high), undefined, root)


def _line(sizes: np.ndarray, means: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Exponents and factors [...] of means [..., G]; NaN where one is not above 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        y = np.where((means > 0).all(axis=-1, keepdims=True), np.log(means), np.nan)
    x = np.log(sizes) - np.log(sizes).mean()
    slope = (y * x).sum(axis=-1) / (x * x).sum()
    return slope, np.exp(y.mean(axis=-1) - slope * np.log(sizes).mean())


def minute_table(runs: Runs, baseline: Runs, planned: np.ndarray, draws: int, seed: int) -> pd.DataFrame:
    """Of one group of executions, minute by minute.

    `planned` [M + 1] is the part of the target that a straight line would have done. Columns: minute, target (mean),
    planned (shares), completed (mean), completed_low and completed_high (quartiles), mid and baseline_mid (medians)
    with _low and _high (quartiles), impact_bp with its interval, count (rollouts that are not lost).
    """
    kept, base = runs.where(~runs.lost), baseline.where(~baseline.lost)
    done = np.pad(np.cumsum(kept.sign[:, None] * kept.shares, axis=1), [(0, 0), (1, 0)]).astype(float)
    moved = impact(runs, baseline)
    rows = []
    for minute in range(runs.mids.shape[1]):
        one = bootstrap(moved[:, minute], draws, seed)
        row = {"minute": minute, "target": _middle(kept.target, np.mean), "planned": np.nan,
               "completed": _middle(done[:, minute], np.mean)}
        row["planned"] = row["target"] * planned[minute]
        for name, values in (("completed", done[:, minute]), ("mid", kept.mids[:, minute]),
                             ("baseline_mid", base.mids[:, minute])):
            row |= {name: row.get(name, _middle(values, np.median)),
                    f"{name}_low": _middle(values, lambda x: np.quantile(x, 0.25)),
                    f"{name}_high": _middle(values, lambda x: np.quantile(x, 0.75))}
        rows.append(row | {"impact_bp": one.value, "impact_low": one.low, "impact_high": one.high,
                           "count": len(kept.lost)})
    return pd.DataFrame(rows)


def _middle(values: np.ndarray, of: Callable[[np.ndarray], float]) -> float:
    return float(of(values)) if len(values) else np.nan


def decay(moved: np.ndarray, end: int, draws: int, seed: int) -> list[Interval]:
    """Impact after the end, minute by minute from `end` on, over the impact at the end: ratios of means of [B, M + 1].

    The interval is over rollouts, resampled; NaN where the mean at the end is not above 0.
    """
    known = moved[~np.isnan(moved).any(axis=1), end:].T
    if known.shape[1] < 2 or known[0].mean() <= 0:
        return [UNKNOWN] * len(known)
    means = resampled([known], np.mean, draws, seed)
    low, high = percentiles(means / np.where(means[0] > 0, means[0], np.nan))
    at = known.mean(axis=1) / known[0].mean()
    return [Interval(*map(float, row)) for row in zip(at, low, high, strict=True)]
