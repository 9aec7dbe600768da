"""A study of market impact in groups of one side and size: means with intervals, laws, tables and figures."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from marsjax.analysis import impact, impact_plots
from marsjax.analysis.impact import PowerLaw, Runs
from marsjax.analysis.intervals import Interval

_COSTS = ("fulfilled", "slippage_bp", "shortfall_bp", "participation")
_SHOWN = (*_COSTS, "impact_bp", "impact_independent_bp")
_SIDES = {1: "buy", -1: "sell"}


class Group(NamedTuple):
    """Rollouts of one side and ratio."""

    name: str
    side: str
    ratio: float
    runs: Runs
    costs: pd.DataFrame
    moved: np.ndarray
    """[B, M + 1], impact against the baselines of the same draws, basis points."""
    moved_independent: np.ndarray
    """Against baselines that draw independently."""

    @property
    def size(self) -> float:
        """Shares traded over the mean volume without the execution."""
        done = self.costs["fulfilled"].to_numpy()
        known = done[~np.isnan(done)]
        return float(self.ratio * known.mean()) if len(known) else np.nan


@dataclasses.dataclass(frozen=True, eq=False)
class ImpactReport:
    """The groups of a study, and how they are summed up."""

    groups: tuple[Group, ...]
    common: Runs
    """Markets without an execution, of the draws of the executions."""
    end: int
    """Minute at which an execution ends."""
    resamples: int
    """Of the bootstraps."""
    seed: int
    """Of the bootstraps."""

    @property
    def sides(self) -> tuple[str, ...]:
        """Those of the groups, each once."""
        return tuple(dict.fromkeys(group.side for group in self.groups))

    def rows(self) -> list[dict[str, Any]]:
        """A record a group: costs, impact against both kinds of baselines, and what is left of it after the end."""
        return [self._row(group) for group in self.groups]

    def _row(self, group: Group) -> dict[str, Any]:
        at_end, independent = (moved[:, self.end] for moved in (group.moved, group.moved_independent))
        values = {name: group.costs[name].to_numpy() for name in _COSTS}
        values |= {"impact_bp": at_end, "impact_independent_bp": independent}
        means = {name: impact.bootstrap(np.asarray(column, float), self.resamples, self.seed)._asdict()
                 for name, column in values.items()}
        left = impact.decay(group.moved, self.end, self.resamples, self.seed)
        return {
            "group": group.name, "side": group.side, "ratio": group.ratio, "target": int(group.runs.target[0]),
            "rollouts": len(group.runs.lost), "lost": int(group.runs.lost.sum()), **means,
            "variance_saved": impact.variance_saved(at_end, independent),
            "remaining_after": [one._asdict() for one in left]}

    def laws(self) -> dict[str, PowerLaw]:
        """By side, impact against size."""
        found = {}
        for side in self.sides:
            mine = [group for group in self.groups if group.side == side]
            found[side] = impact.power_law(np.array([group.size for group in mine]),
                                           [group.moved[:, self.end] for group in mine], self.resamples, self.seed)
        return found

    def minutes(self, is_even: bool, length: int = 0) -> dict[str, pd.DataFrame]:
        """By group, `impact.minute_table`; with `is_even` beside the schedule of a straight line.

        `length` is that of a whole execution in minutes, where these have been cut; 0: up to `end`.
        """
        straight = np.minimum(np.arange(self.common.mids.shape[1]) / (length or self.end), 1.0)
        planned = straight if is_even else np.full_like(straight, np.nan)
        return {group.name: impact.minute_table(group.runs, self.common, planned, self.resamples, self.seed)
                for group in self.groups}


def report(baselines: Runs, executed: Runs, end: int, resamples: int, seed: int) -> ImpactReport:
    """Groups executions by side and ratio.

    Args:
      baselines: [2 K] markets without an execution, those of the draws of the executions first, then others.
      executed: executions, numbered as the first K baselines.
      end: minute at which they end.
      resamples: of the bootstraps.
      seed: of the bootstraps.
    """
    count = len(baselines.number) // 2
    common, other = (baselines.where(part) for part in (slice(0, count), slice(count, None)))
    other = dataclasses.replace(other, number=other.number - count)
    groups = []
    for sign, ratio in dict.fromkeys(zip(executed.sign.tolist(), executed.ratio.tolist(), strict=True)):
        part = executed.where((executed.sign == sign) & (executed.ratio == ratio))
        groups.append(Group(f"{_SIDES[sign]} {ratio:.3g}", _SIDES[sign], ratio, part, impact.costs(part, end),
                            impact.impact(part, common), impact.impact(part, other)))
    return ImpactReport(tuple(groups), common, end, resamples, seed)


def tables(study: ImpactReport, rows: Sequence[Mapping[str, Any]], minutes: Mapping[str, pd.DataFrame],
           baselines: Runs) -> dict[str, pd.DataFrame]:
    """The tables of a study by name: minutes, executions, impact, decay and baselines."""
    return {
        "minutes": pd.concat([minutes[group.name].assign(side=group.side, ratio=group.ratio)
                              for group in study.groups]),
        "executions": pd.concat([_executions(group, study.end) for group in study.groups]),
        "impact": pd.json_normalize([{key: value for key, value in row.items() if key != "remaining_after"}
                                     for row in rows], sep="_"),
        "decay": pd.DataFrame([{"group": row["group"], "minutes_after": minute, **part} for row in rows
                               for minute, part in enumerate(row["remaining_after"])]),
        "baselines": pd.DataFrame({
            "seed": baselines.seed, "number": baselines.number, "lost": baselines.lost,
            "mid_start": baselines.mids[:, 0], "mid_end": baselines.mids[:, study.end],
            "volume": baselines.volume[:, : study.end].sum(axis=1)})}


def _executions(group: Group, end: int) -> pd.DataFrame:
    """A row a rollout."""
    runs = group.runs
    return pd.DataFrame({
        "side": group.side, "ratio": group.ratio, "seed": runs.seed, "number": runs.number, "target": runs.target,
        "lost": runs.lost, "arrival": runs.mids[:, 0]}).join(group.costs).assign(
        impact_bp=group.moved[:, end], impact_independent_bp=group.moved_independent[:, end])


def figures(study: ImpactReport, rows: Sequence[Mapping[str, Any]], laws: Mapping[str, PowerLaw],
            minutes: Mapping[str, pd.DataFrame]) -> dict[str, Figure]:
    """The figures of a study by name: volume, price and impact."""
    points = {side: [(group.size, Interval(**row["impact_bp"])) for group, row in zip(study.groups, rows, strict=True)
                     if group.side == side] for side in study.sides}
    return {"volume": impact_plots.volumes(minutes), "price": impact_plots.prices(minutes, study.end),
            "impact": impact_plots.impacts(points, laws, minutes, study.end)}


def lines(rows: Sequence[Mapping[str, Any]], laws: Mapping[str, PowerLaw]) -> list[str]:
    """The groups as a text table, and the laws."""
    table = pd.DataFrame([{"group": row["group"], "target": row["target"], "lost": row["lost"],
                           **{name: "{value:.3g} [{low:.3g}, {high:.3g}]".format(**row[name]) for name in _SHOWN},
                           "variance saved": f"{row['variance_saved']:.1f}"} for row in rows])
    return [table.to_string(index=False), *(f"{side}: {_law_line(law)}" for side, law in laws.items())]


def _law_line(law: PowerLaw) -> str:
    """A law in words, also where there is none."""
    root = (f"square root: {law.root_factor:.3g} bp x size^0.5" if np.isfinite(law.root_factor) else
            "a law needs two sizes, of two rollouts each that traded")
    if not np.isfinite(law.exponent):
        reason = "the mean impact of a size is not above 0: more rollouts or larger sizes are needed; " if (
            np.isfinite(law.root_factor)) else ""
        return f"no exponent fitted: {reason}{root}"
    interval = f"[{law.low:.3g}, {law.high:.3g}]" if np.isfinite(law.low) else "[unknown]"
    doubt = f", undefined in {law.undefined:.0%} of the resamples" if law.undefined > 0 else ""
    return f"impact = {law.factor:.3g} bp x size^{law.exponent:.3g} {interval}{doubt}; {root}"
