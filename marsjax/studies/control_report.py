"""Controlled futures as tables, a picture, text and a record; `control_comparison` makes them."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis import control_fit, control_plots, control_realism, forecast
from marsjax.analysis.control_plots import Control, Fan, Quantity
from marsjax.core import times
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.observers import market_tables
from marsjax.sim.control import ControlledRollout, guides
from marsjax.studies import control, forecasts
from marsjax.studies.control_comparison import Comparison, FuturesKind, Point
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.session_times import MINUTE_NS

_BP = 1e4
_QUANTITIES = {"move_bp": "move of the mid, basis points", "volatility_bp": "volatility, basis points",
               "volume": "shares traded", "imbalance": "bought less sold, share of what traded",
               "spread_ticks": "spread, ticks", "depth": "shares in the book", "orders": "orders"}
_READABLE = 1e6
"""Larger numbers than this are shown as powers of ten."""
_SHOWN = 2
"""Quantities of the largest fall that the text names."""


def ends_ns(found: Comparison, start_ns: int, minutes: int) -> np.ndarray:
    """When the intervals end, int64 [I], nanoseconds since midnight."""
    run = found.controlled.run
    ends = start_ns + (np.arange(len(run.ess)) + 1) * run.every_s * SECOND_NS
    return np.minimum(ends, start_ns + minutes * MINUTE_NS)


def intervals(found: Comparison, market: MarketSpec, start_ns: int, minutes: int) -> pd.DataFrame:
    """The fit of each kind of futures (`control_fit.table`), a row an interval, with its end and what control left.

    `ess`, the effective share of the weights before copies were made, and `distinct`, the share of the futures that
    have descendants, are means over islands; 1 of uncontrolled futures.
    """
    at = ends_ns(found, start_ns, minutes)
    parts = []
    for kind in found.kinds:
        returns = np.asarray(kind.run.features.return_bp)[:, ~kind.is_lost]
        table = control_fit.table(returns, wanted_bp(found))
        table.insert(0, "kind", kind.name)
        table.insert(2, "time_ns", at)
        table.insert(3, "clock", times.clock(at))
        table.insert(4, "phase", market_tables.phases(market.session, at))
        parts.append(table.assign(ess=kind.run.ess.mean(axis=1), distinct=distinct(kind)))
    return pd.concat(parts, ignore_index=True)


def wanted_bp(found: Comparison) -> np.ndarray:
    """The curve of the guide, float64 [I]; NaN where any price is fine."""
    nothing = np.full(len(found.controlled.run.ess), np.nan)
    return guides.wanted(found.guide).get("return_bp", nothing)


def distinct(kind: FuturesKind) -> np.ndarray:
    """Share of the futures that have descendants after each interval, float64 [I], mean over islands."""
    count, islands = kind.run.ancestors.shape[1], kind.run.distinct.shape[1]
    return kind.run.distinct.mean(axis=1) * islands / count


def minutes(found: Comparison, market: MarketSpec, start_ns: int, prices: str) -> pd.DataFrame:
    """`forecasts.minute_table` of all kinds, a column `kind` before it."""
    parts = [forecasts.minute_table(kind.run.rollout, market, start_ns, prices) for kind in found.kinds]
    for table, kind in zip(parts, found.kinds, strict=True):
        table.insert(0, "kind", kind.name)
    return pd.concat(parts, ignore_index=True)


def realism(found: Comparison, seed: int, resamples: int = control_realism.RESAMPLES) -> pd.DataFrame:
    """`control_realism.table` of each other kind against the uncontrolled futures."""
    own = found.free.values()
    parts = []
    for kind in found.kinds[1:]:
        table = control_realism.table(own, kind.values(), seed, resamples)
        table.insert(0, "kind", kind.name)
        parts.append(table)
    return pd.concat(parts, ignore_index=True)


def sweep_table(found: Comparison, points: Sequence[Point]) -> pd.DataFrame:
    """A row a run of a sweep: the fit, and what was left."""
    rows = []
    for point in points:
        kind = FuturesKind("", point.run, [])
        rows.append({"strength": point.strength, "trajectories": point.trajectories,
                     **_fit(point.run, found.guide), **_left(kind), **_speed(point.run), **_told(point.run)})
    return pd.DataFrame(rows)


def picture(found: Comparison, at: ForecastStart, minutes: int, title: str) -> Figure:
    """`control_plots.fans` of all kinds."""
    is_shown = at.past.time_ns > at.time_ns - minutes * MINUTE_NS
    mid = found.free.run.rollout.mid_twice_start[0]
    before = np.where(at.past.mid_twice[is_shown] > 0, _BP * (at.past.mid_twice[is_shown] / mid - 1), np.nan)
    wanted = guides.wanted(found.guide)
    others = tuple(Quantity(_QUANTITIES[name], tuple(_kept(kind, name) for kind in found.kinds), values)
                   for name, values in wanted.items() if name in _QUANTITIES)
    held = found.controlled
    return control_plots.fans(Control(
        (at.past.time_ns[is_shown] - at.time_ns) / MINUTE_NS, before,
        tuple(Fan(kind.name, _returns(kind)) for kind in found.kinds),
        (ends_ns(found, at.time_ns, minutes) - at.time_ns) / MINUTE_NS, wanted_bp(found), held.run.ess.mean(axis=1),
        distinct(held), others), title)


def _kept(kind: FuturesKind, name: str) -> np.ndarray:
    return np.asarray(getattr(kind.run.features, name), np.float64)[:, ~kind.is_lost]


def _returns(kind: FuturesKind) -> np.ndarray:
    """Basis points by minute, [B, M + 1]; NaN of lost futures."""
    run = kind.run.rollout
    mids = forecast.mids_of_bars(run.bars, run.mid_twice_start)
    return np.where(kind.is_lost[:, None], np.nan, _BP * (mids / mids[:, :1] - 1))


def record(found: Comparison) -> dict[str, Any]:
    """Plain numbers for a file: the guide, and by kind the fit, what control left, the speed, and what was told."""
    def of(kind: FuturesKind) -> dict[str, Any]:
        told = control.followed(kind.run)
        return {"fit": _fit(kind.run, found.guide), "left": _left(kind), "speed": _speed(kind.run),
                "told": told._asdict() if told else None}

    execution = {"target": found.shares, "done_mean": float(found.done.mean())} if found.executed else None
    return {"guide": {"kind": type(found.guide).__name__} | dataclasses.asdict(found.guide),  # type: ignore[call-overload]
            "kinds": {kind.name: of(kind) for kind in found.kinds}, "execution": execution}


def _fit(run: ControlledRollout, guide: guides.Guide) -> dict[str, Any]:
    found = dataclasses.asdict(control.fit(run, guide))
    return {name: found[name] for name in ("correlation", "rmse_bp", "terminal_error_bp", "share_near")} | {
        f"rmse_{name}": value for name, value in found["rmse"].items() if name != "return_bp"}


def _told(run: ControlledRollout) -> dict[str, float]:
    """`control.followed` as columns, none where nothing was told."""
    told = control.followed(run)
    return {f"told_{name}": value for name, value in told._asdict().items()} if told else {}


def _left(kind: FuturesKind) -> dict[str, Any]:
    """What control left of the futures."""
    run = kind.run
    return {"ancestors": int(run.distinct[-1].sum()), "least_ess": float(run.ess.mean(axis=1).min()),
            "resampled": int(run.resampled.any(axis=1).sum()), "log_evidence": evidence(run)}


def evidence(run: ControlledRollout) -> float:
    """Log of the mean weight of futures that are left alone, by all islands: the log of the mean of what each says.

    Of led futures it is not that, NaN among it (`ControlledRollout.log_evidence`).
    """
    if np.isnan(run.log_evidence).any():
        return float("nan")
    return float(np.logaddexp.reduce(run.log_evidence.astype(np.float64)) - np.log(len(run.log_evidence)))


def _speed(run: ControlledRollout) -> dict[str, Any]:
    seconds = run.rollout.run_s
    return {"decisions": run.decisions, "run_s": round(seconds, 3), "decisions_per_s": round(
        run.decisions / max(seconds, 1e-9))}


def problems(found: Comparison) -> list[str]:
    """Why futures were not controlled, a line a kind: islands in which no future has any weight."""
    said = []
    for kind in found.kinds:
        without = int(np.isneginf(kind.run.log_evidence).sum())
        if without:
            said.append(f"{kind.name}: in {without} of {len(kind.run.log_evidence)} islands no future has any weight, "
                        "so none was chosen: all are lost, or the guide scores none of them")
    return said


def fit_table(found: Comparison) -> pd.DataFrame:
    """The fit of each kind in words, a row a kind: of prices where the guide wants any, and of each other feature."""
    kinds = record(found)["kinds"]
    has_prices = np.isfinite(wanted_bp(found)).any()
    return pd.DataFrame([{"futures": name} | (_of_prices(kind["fit"]) if has_prices else {}) | {
        f"RMSE, {each.removeprefix('rmse_')}": _number(value, ".3g") for each, value in kind["fit"].items()
        if each.startswith("rmse_") and each != "rmse_bp"} | {
            "ancestors": f"{kind['left']['ancestors']}", "orders/s": f"{kind['speed']['decisions_per_s']:,.0f}"}
        for name, kind in kinds.items()])


def _of_prices(fit: dict[str, Any]) -> dict[str, str]:
    return {"correlation": _number(fit["correlation"], ".2f"), "RMSE, bp": _number(fit["rmse_bp"], ".1f"),
            "error at the end, bp": _number(fit["terminal_error_bp"], ".1f"),
            f"within {control.NEAR_BP:g} bp": _number(fit["share_near"], ".0%")}


def _number(value: float, form: str) -> str:
    """As text; "-" where there is none."""
    return format(value, form) if np.isfinite(value) else "-"


def lines(found: Comparison, realism: pd.DataFrame) -> list[str]:
    """What came of it, as text: a row a kind, what control left, what it cost."""
    table = fit_table(found)
    columns = [["" if name == "futures" else name, *table[name]] for name in table]
    widths = [max(map(len, column)) for column in columns]
    text = ["  ".join(cell.rjust(width) if number else cell.ljust(width)
                      for number, (cell, width) in enumerate(zip(row, widths, strict=True)))
            for row in zip(*columns, strict=True)]
    left = _left(found.controlled)
    told = control.followed(found.controlled.run)
    of = "what the model writes by itself" if told is None else "what the model writes as it is led"
    if np.isnan(left["log_evidence"]):
        text.append("no future was chosen or dropped: all are independent of one another")
    else:
        text.append(f"effective sample size {left['least_ess']:.0%} at least; of {of}, weighted by the guide, "
                    f"{_one_in(left['log_evidence'])}")
    if told:
        text.append(f"told moves of {told.told_bp:+.2f} bp an interval in the mean, came {told.came_bp:+.2f}; of one "
                    f"bp more that is told {told.slope:.2f} comes (correlation {told.correlation:.2f})")
    if found.executed:
        text.append(f"the execution traded {found.done.mean():.0f} of {found.shares} shares")
    return text + _cost(realism[realism["kind"] == found.controlled.name])


def _one_in(log_share: float) -> str:
    """How many futures fit, of the log of their share; a share may be too small for a number."""
    if log_share == -np.inf:
        return "no future fits"
    power = -log_share / np.log(10)
    count = f"{10**power:,.0f}" if power <= np.log10(_READABLE) else f"10^{power:,.4g}"
    return f"one future in {count} fits"


def _cost(table: pd.DataFrame) -> list[str]:
    """Realism in a line: the mean, and what falls most."""
    known = table.dropna(subset=["similarity"]).sort_values("less", ascending=False)
    if not len(known):
        return []
    of = known["quantity"].str.split(": ").str[0]
    shares = [f"{name}s {part['similarity'].mean():.2f} of {part['ceiling'].mean():.2f}"
              for name, part in known.groupby(of, sort=False)]
    worst = ", ".join(f"{row.quantity} {row.similarity:.2f} of {row.ceiling:.2f}" for row in
                      known.head(_SHOWN).itertuples())
    return [f"similarity to uncontrolled futures, of what these have among themselves: {', '.join(sorted(shares))}; "
            f"least: {worst}"]
