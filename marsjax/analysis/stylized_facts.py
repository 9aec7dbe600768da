"""Tables of the stylized facts of returns (Cont 2001) from dense rollouts of minute bars.

All follow the reference (analyses): log returns r(i, dt) = log(p[i + dt] / p[i]) of the last trade prices, i from 1
(the bar before holds half a minute), pairs (i, i + tau) while both returns end within the rollout, pooled over the
rollouts of a source and symbol. A table is computed from sums a rollout, which a bootstrap can weigh and add again.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd

from marsjax.analysis.panel import Panel
from marsjax.core.errors import InputError

FIRST = 1
"""The first minute whose returns count."""
HEAVY_LIMIT, SKEW_LIMIT = 0.5, 0.05
"""Returns of this size or more are no part of kurtosis, and of skewness."""
COARSE_MINUTES = 5
EXTREME = 0.99
"""Quantile of |r| above which a return is extreme."""
Sums = Callable[[Panel, Sequence[int]], np.ndarray]


@dataclasses.dataclass(frozen=True)
class Table:
    """A table of the report: one statistic for every source, key and symbol."""

    name: str
    """Of the file, without ending."""
    facts: tuple[int, ...]
    title: str
    key: str
    """lag (tau) or delta_t (dt), minutes."""
    keys: tuple[int, ...]
    column: str
    sums: Sums
    """(panel, keys [K]) -> float64 [K, R, P], sums over each rollout."""
    statistic: Callable[[np.ndarray], np.ndarray]
    """Added sums [..., P] -> [...], NaN where it is undefined."""


def tables(panel: Panel) -> dict[str, pd.DataFrame]:
    """All tables by name, rows sorted by source, key and symbol; NaN where a statistic is undefined.

    cont1, cont2 (also fact 4), cont3, cont5, cont6 (also fact 8), cont7, cont9, cont10, cont11 have the columns of the
    reference; cont11_difference has the difference of cont11 between tau and -tau for tau from 0.
    Raises InputError for a panel without rollouts.

    Examples:
      >>> from marsjax.analysis.bars import MinuteBars
      >>> from marsjax.analysis.panel import dense
      >>> random, count, minutes = np.random.default_rng(0), 8, 26
      >>> price = 100_000 * np.exp(random.normal(0, 1e-3, (count, minutes)).cumsum(axis=1)).ravel()
      >>> time = np.tile(np.datetime64("2024-01-02T10:00:00") + np.arange(minutes) * np.timedelta64(60, "s"), count)
      >>> number, same = np.repeat(np.arange(count), minutes), np.full(count * minutes, "x")
      >>> bars = MinuteBars(same, number, same, time, price, price, price, price, random.uniform(1, 9, count * minutes))
      >>> found = tables(dense(bars)[0])
      >>> list(found)[:3], list(found["cont1"])
      (['cont1', 'cont2', 'cont3'], ['source', 'lag', 'symbol', 'corr'])
    """
    if not len(panel.source):
        raise InputError("stylized facts: expected at least one rollout, got none")
    found = {table.name: _table(panel, table) for table in TABLES}
    found["cont5"] = fano(panel)
    found["cont11_difference"] = _difference(found["cont11"])
    return dict(sorted(found.items(), key=lambda item: (int(item[0][4:].split("_")[0]), item[0])))


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """A table over its symbols: columns source, its key (none for cont5), mean, low, high, symbols.

    low and high are a 95% interval of the mean (1.96 standard errors over the symbols); undefined entries are left out
    and not counted as symbols.
    """
    keys = [name for name in ("source", "lag", "delta_t") if name in table]
    values = table[table.columns[-1]].where(np.isfinite(table[table.columns[-1]]))
    found = values.groupby([table[name] for name in keys]).agg(["mean", "sem", "count"]).reset_index()
    return found.assign(low=found["mean"] - 1.96 * found["sem"], high=found["mean"] + 1.96 * found["sem"]).rename(
        columns={"count": "symbols"})[[*keys, "mean", "low", "high", "symbols"]]


def decay_exponents(table: pd.DataFrame) -> dict[str, float | None]:
    """Source -> b of the power law lag ** -b fitted to cont6's means over symbols, by least squares of the logarithms.

    None where a mean is not above 0.

    Examples:
      >>> lags = np.arange(1, 21)
      >>> table = pd.DataFrame({"source": "x", "lag": lags, "symbol": "a", "corr": 0.3 * lags**-0.5})
      >>> round(decay_exponents(table)["x"], 4)
      0.5
    """
    found: dict[str, float | None] = {}
    for source, rows in summary(table).groupby("source"):
        found[str(source)] = None
        if (rows["mean"] > 0).all():
            found[str(source)] = -float(np.polyfit(np.log(rows["lag"]), np.log(rows["mean"]), 1)[0])
    return found


def returns(panel: Panel, delta_t: int) -> np.ndarray:
    """Log returns r(i, delta_t), float64 [R, M - delta_t], i from 0."""
    # Not a difference of logarithms: equal quotients give equal returns, and ties with a quantile depend on it.
    return np.log(panel.price[:, delta_t:] / panel.price[:, : max(panel.price.shape[1] - delta_t, 0)])


def group_sums(values: np.ndarray, panel: Panel) -> np.ndarray:
    """Sums of rows [R, ...] over the groups of one source and symbol, [G, ...]."""
    return np.add.reduceat(values, panel.first, axis=0)


def correlation(sums: np.ndarray) -> np.ndarray:
    """Pearson's correlation [...] from sums of 1, x, y, xx, yy, xy [..., 6]."""
    n, x, y, xx, yy, xy = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        spread = (xx - x * x / n) * (yy - y * y / n)
        return np.where(spread > 0, (xy - x * y / n) / np.sqrt(np.abs(spread)), np.nan)


def kurtosis(sums: np.ndarray) -> np.ndarray:
    """Unbiased excess kurtosis [...] from sums of the powers 0 to 4 [..., 5], NaN for fewer than 4 values."""
    n, second, _, fourth = _central(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (n * (n + 1) * (n - 1) * fourth / second**2 - 3 * (n - 1) ** 2) / ((n - 2) * (n - 3))
        return np.where((n > 3) & (second > 0), found, np.nan)


def skewness(sums: np.ndarray) -> np.ndarray:
    """Unbiased skewness [...] from sums of the powers 0 to 4 [..., 5], NaN for fewer than 3 values."""
    n, second, third, _ = _central(sums)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = n * np.sqrt(n - 1) / (n - 2) * third / second**1.5
        return np.where((n > 2) & (second > 0), found, np.nan)


def _central(sums: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Count, and sums of the powers 2 to 4 around the mean."""
    n, s1, s2, s3, s4 = np.moveaxis(sums, -1, 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = s1 / n
        return (n, s2 - n * mean**2, s3 - 3 * mean * s2 + 2 * n * mean**3,
                s4 - 4 * mean * s3 + 6 * mean**2 * s2 - 3 * n * mean**4)


def _pair_sums(panel: Panel, first: np.ndarray, second: np.ndarray, lags: Sequence[int], delta_t: int = 1
               ) -> np.ndarray:
    """Sums [K, R, 6] of pairs first[i], second[i + lag], the columns being minutes i from 0."""
    last = panel.price.shape[1] - 1 - delta_t
    first, second = _centered(panel, first), _centered(panel, second)
    found = np.zeros((len(lags), len(first), 6))
    for sums, lag in zip(found, lags, strict=True):
        i = slice(max(FIRST, -lag), max(min(last, last - lag) + 1, 0))
        x, y = first[:, i], second[:, slice(max(i.start + lag, 0), max(i.stop + lag, 0))]
        sums[:, 0], sums[:, 1], sums[:, 2] = x.shape[1], x.sum(axis=1), y.sum(axis=1)
        for column, (a, b) in enumerate(((x, x), (y, y), (x, y)), start=3):
            sums[:, column] = np.einsum("ri,ri->r", a, b)
    return found


def _power_sums(panel: Panel, values: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """Sums [R, 5] of the powers 0 to 4 of the values [R, n] that are kept."""
    with np.errstate(invalid="ignore"):
        x = np.where(keep, _centered(panel, values, keep), 0.0)
        square = x * x
        return np.stack([keep.sum(axis=1), x.sum(axis=1), square.sum(axis=1), np.einsum("ri,ri->r", square, x),
                         np.einsum("ri,ri->r", square, square)], axis=1)


def _centered(panel: Panel, values: np.ndarray, keep: np.ndarray | None = None) -> np.ndarray:
    """The values [R, n] less the mean of their group: sums of powers around 0 lose digits."""
    keep = np.ones(values.shape, bool) if keep is None else keep
    count = np.maximum(group_sums(keep.sum(axis=1), panel), 1)
    mean = group_sums(np.where(keep, values, 0.0).sum(axis=1), panel) / count
    return values - mean[panel.group][:, None]


def _return_pairs(panel: Panel, lags: Sequence[int]) -> np.ndarray:
    r = returns(panel, 1)
    return _pair_sums(panel, r, r, lags)


def _absolute_pairs(panel: Panel, lags: Sequence[int]) -> np.ndarray:
    size = np.abs(returns(panel, 1))
    return _pair_sums(panel, size, size, lags)


def _leverage_pairs(panel: Panel, lags: Sequence[int]) -> np.ndarray:
    r = returns(panel, 1)
    return _pair_sums(panel, r, np.abs(r), lags)


def _volume_pairs(panel: Panel, lags: Sequence[int]) -> np.ndarray:
    return _pair_sums(panel, panel.volume[:, :-1], np.abs(returns(panel, 1)), lags)


def _scale_pairs(panel: Panel, lags: Sequence[int]) -> np.ndarray:
    r = returns(panel, 1)
    if r.shape[1] < COARSE_MINUTES:
        return np.zeros((len(lags), len(r), 6))
    windows = np.lib.stride_tricks.sliding_window_view(r, COARSE_MINUTES, axis=1)
    return _pair_sums(panel, np.abs(windows).sum(axis=-1), np.abs(windows.sum(axis=-1)), lags, COARSE_MINUTES)


def _heavy_powers(panel: Panel, delta_ts: Sequence[int]) -> np.ndarray:
    found = [returns(panel, delta_t)[:, FIRST:] for delta_t in delta_ts]
    return np.stack([_power_sums(panel, r, np.abs(r) < HEAVY_LIMIT) for r in found])


def _skew_powers(panel: Panel, delta_ts: Sequence[int]) -> np.ndarray:
    found = [returns(panel, delta_t)[:, FIRST:] for delta_t in delta_ts]
    return np.stack([_power_sums(panel, r, np.abs(r) < SKEW_LIMIT) for r in found])


def normalized_powers(panel: Panel, delta_ts: Sequence[int], least: int = 1) -> np.ndarray:
    """Sums [K, R, 5] of powers of returns over their standard deviation at the clock time of i, as `Table.sums`.

    The deviation is that of all symbols and dates of a source together. If it is zero, returns become infinite and the
    kurtosis of their symbols NaN, as in the reference. Clock times with fewer than `least` returns are left out.
    """
    minute = panel.start.astype(np.int64)[:, None] + np.arange(FIRST, panel.price.shape[1])
    clock = minute % 1440 + 1440 * np.unique(panel.source, return_inverse=True)[1][:, None]
    found = []
    for delta_t in delta_ts:
        r = returns(panel, delta_t)[:, FIRST:]
        keep = np.abs(r) < HEAVY_LIMIT
        # Not from sums: of equal returns the deviation must be exactly zero.
        place = clock[:, : r.shape[1]].ravel()
        keep &= (np.bincount(place, keep.ravel())[place] >= least).reshape(r.shape)
        by_clock = pd.Series(np.where(keep, r, np.nan).ravel()).groupby(place)
        with np.errstate(invalid="ignore", divide="ignore"):
            scaled = r / by_clock.transform("std").to_numpy().reshape(r.shape)
            found.append(_power_sums(panel, scaled, keep & ~np.isnan(scaled)))
    return np.stack(found)


def _to(last: int, first: int = 1) -> tuple[int, ...]:
    return tuple(range(first, last + 1))


TABLES = (
    Table("cont1", (1,), "Autocorrelation of returns", "lag", _to(10), "corr", _return_pairs, correlation),
    Table("cont2", (2, 4), "Kurtosis of returns", "delta_t", _to(20), "kurtosis", _heavy_powers, kurtosis),
    Table("cont3", (3,), "Skewness of returns", "delta_t", _to(20), "skew", _skew_powers, skewness),
    Table("cont6", (6, 8), "Autocorrelation of absolute returns", "lag", _to(20), "corr", _absolute_pairs, correlation),
    Table("cont7", (7,), "Kurtosis of normalized returns", "delta_t", _to(20), "kurtosis", normalized_powers,
          kurtosis),
    Table("cont9", (9,), "Correlation of return and later volatility", "lag", _to(20), "corr", _leverage_pairs,
          correlation),
    Table("cont10", (10,), "Correlation of volume and later volatility", "lag", _to(20), "corr", _volume_pairs,
          correlation),
    Table("cont11", (11,), "Correlation of fine and coarse volatility", "lag", _to(10, -10), "cf_corr", _scale_pairs,
          correlation),
)
"""All but that of fact 5, which is `fano`."""


def _table(panel: Panel, table: Table) -> pd.DataFrame:
    values = np.stack([table.statistic(group_sums(sums, panel)) for sums in table.sums(panel, table.keys)])
    count, first = len(table.keys), panel.first
    found = pd.DataFrame({
        "source": np.tile(panel.source[first], count), table.key: np.repeat(table.keys, len(first)),
        "symbol": np.tile(panel.symbol[first], count), table.column: values.ravel()})
    return found.sort_values(["source", table.key, "symbol"], kind="stable", ignore_index=True)


def _difference(table: pd.DataFrame) -> pd.DataFrame:
    """Of fact 11: the correlation at tau less that at -tau."""
    mirrored = table.assign(lag=-table["lag"])
    both = table[table["lag"] >= 0].merge(mirrored, on=["source", "lag", "symbol"], suffixes=("", "_before"))
    return both.assign(diff=both["cf_corr"] - both["cf_corr_before"])[["source", "lag", "symbol", "diff"]]


def fano(panel: Panel) -> pd.DataFrame:
    """Fact 5: mean and variance (ddof 1) of the extreme returns an hour, and their quotient, by source and symbol."""
    group, count, _ = extremes_by_hour(panel)
    first = panel.first
    hours = np.bincount(group, minlength=len(first))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.bincount(group, count, len(first)) / hours
        spread = np.bincount(group, (count - mean[group]) ** 2, len(first)) / np.where(hours > 1, hours - 1, np.nan)
        factor = spread / mean
    return pd.DataFrame({"source": panel.source[first], "symbol": panel.symbol[first], "mean_extreme_count": mean,
                         "var_extreme_count": spread, "fano_factor": factor})


def extremes_by_hour(panel: Panel) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For every hour (date included) of every source and symbol with returns: group, extreme returns, hour; [H] each.

    A return belongs to the hour of its first minute. Extreme are those above the EXTREME quantile (linear) of |r| of
    the group; hours are full ones since 1970.
    """
    size = np.abs(returns(panel, 1)[:, FIRST:])
    first, group = panel.first, panel.group
    last = np.append(first[1:], len(group))
    limit = np.array([np.quantile(size[a:b], EXTREME) for a, b in zip(first, last, strict=True)])
    is_extreme = size > limit[group][:, None]
    minute = panel.start[:, None] + np.arange(FIRST, FIRST + size.shape[1])
    hour = minute.astype("datetime64[h]").astype(np.int64)
    low, span = hour.min(), int(np.ptp(hour)) + 1
    code, place = np.unique(group[:, None] * span + hour - low, return_inverse=True)
    return code // span, np.bincount(place.ravel(), is_extreme.ravel(), len(code)), code % span + low
