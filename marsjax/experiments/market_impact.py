"""What an execution does to the price, and what it costs. The config says which: configs/market_impact.py."""

import dataclasses
import itertools
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd
from ml_collections import ConfigDict

from marsjax.agents.twap import LOT
from marsjax.analysis import impact, impact_plots
from marsjax.analysis.impact import Mean, PowerLaw, Runs
from marsjax.experiments import executions, futures, launcher, markets
from marsjax.experiments.executions import Jobs, Made
from marsjax.experiments.output import output_folder, write_json
from marsjax.outcome import Rollout

_SIGNS = {"buy": 1, "sell": -1}


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


def main(config: ConfigDict) -> int:
    """Runs the study; returns 0, or NOT_WHOLE with the reasons on stderr."""
    began = time.perf_counter()
    market = executions.market_spec(config)
    start_ns = executions.check(config, market)
    with output_folder(config.output, config.overwrite) as folder:
        simulator = markets.load_simulator(config)
        print(markets.headline(simulator, config), flush=True)
        starts = executions.noise_starts(config, market, simulator, start_ns)
        metered = executions.strategy(config, start_ns)
        without = _baseline_jobs(config)
        groups = len(config.sides) * len(config.targets if any(config.targets) else config.ratios)
        rollouts = len(without.number) + groups * config.seeds * config.trajectories
        prepared_s = time.perf_counter() - began
        with futures.Progress(rollouts, metered.minutes) as progress:
            base = executions.simulate(config, market, simulator, metered, starts, without, None, progress)
            volume = base.runs.volume[~base.runs.lost, : config.minutes]
            jobs = _jobs(config, float(volume.sum(axis=1).mean()) if len(volume) else 0.0)
            profile = volume.mean(axis=0) if len(volume) else None
            made = executions.simulate(config, market, simulator, metered, starts, jobs, profile, progress,
                                       done=len(without.number))
        found = _analyse(config, base, made)
        told = futures.tally(base.rollouts + made.rollouts, base.begun + made.begun)
        agents = _agents(base.rollouts + made.rollouts)
        report = _report(config, found) | {
            "mean_volume_without": float(volume.sum(axis=1).mean()) if len(volume) else None, "rollouts": told,
            "agent": agents, "seconds": {"prepared": prepared_s, "total": time.perf_counter() - began}}
        _write(config, folder, found, base, report)
        write_json(folder / "metrics.json", report | {"model": markets.describe_model(simulator, config),
                                                      **markets.environment(), "config": config})
    _print(config, report)
    complaints = futures.complaints(told) + _complaints(config, agents)
    print("\n".join(complaints), file=sys.stderr, end="\n" if complaints else "")
    return futures.NOT_WHOLE if complaints else 0


def _baseline_jobs(config: ConfigDict) -> Jobs:
    """The markets without an execution, twice: with the draws that executions have, and with others."""
    count = config.seeds * config.trajectories
    number = np.arange(2 * count)
    none = np.zeros(2 * count, np.int64)
    return Jobs(number % count // config.trajectories, number, none + 1, none.astype(float), none)


def _jobs(config: ConfigDict, mean_volume: float) -> Jobs:
    """Every side and size in every market."""
    count = config.seeds * config.trajectories
    if any(config.targets):
        sizes = [(target / max(mean_volume, 1.0), int(target)) for target in config.targets]
    else:
        sizes = [(ratio, int(mean_volume * ratio) // LOT * LOT) for ratio in config.ratios]
    groups = [(_SIGNS[side], ratio, target) for side, (ratio, target) in itertools.product(config.sides, sizes)]
    if not all(target for _, _, target in groups):
        raise ValueError(f"config.ratios: expected targets of at least {LOT} shares, got ratios {config.ratios} of a "
                         f"mean volume of {mean_volume:g}")
    sign, ratio, target = (np.repeat(np.array(column), count) for column in zip(*groups, strict=True))
    number = np.tile(np.arange(count), len(groups))
    return Jobs(number // config.trajectories, number, sign, ratio.astype(float), target)


def _analyse(config: ConfigDict, base: Made, made: Made) -> list[Group]:
    count, runs = config.seeds * config.trajectories, made.runs
    common, other = (base.runs.where(part) for part in (slice(0, count), slice(count, None)))
    other = dataclasses.replace(other, number=other.number - count)
    found = []
    for sign, ratio in dict.fromkeys(zip(runs.sign.tolist(), runs.ratio.tolist(), strict=True)):
        part = runs.where((runs.sign == sign) & (runs.ratio == ratio))
        side = {sign: side for side, sign in _SIGNS.items()}[sign]
        found.append(Group(f"{side} {ratio:.3g}", side, ratio, part, impact.costs(part, config.minutes),
                           impact.impact(part, common), impact.impact(part, other)))
    return found


def _report(config: ConfigDict, groups: list[Group]) -> dict[str, Any]:
    """Means with intervals by group, and the laws by side."""
    def mean(values: np.ndarray) -> Mean:
        return impact.bootstrap(np.asarray(values, float), config.bootstrap, config.seed)

    rows, laws = [], {}
    for group in groups:
        at_end, independent = (moved[:, config.minutes] for moved in (group.moved, group.moved_independent))
        costs = {name: mean(group.costs[name].to_numpy())._asdict()
                 for name in ("fulfilled", "slippage_bp", "shortfall_bp", "participation")}
        rows.append({
            "group": group.name, "side": group.side, "ratio": group.ratio, "target": int(group.runs.target[0]),
            "rollouts": len(group.runs.lost), "lost": int(group.runs.lost.sum()), **costs,
            "impact_bp": mean(at_end)._asdict(), "impact_independent_bp": mean(independent)._asdict(),
            "variance_saved": impact.variance_saved(at_end, independent),
            "remaining_after": [one._asdict() for one in impact.decay(group.moved, config.minutes, config.bootstrap,
                                                                      config.seed)]})
    for side in config.sides:
        mine = [group for group in groups if group.side == side]
        laws[side] = _law(config, mine)._asdict()
    return {"groups": rows, "power_law": laws}


def _law(config: ConfigDict, groups: list[Group]) -> PowerLaw:
    return impact.power_law(np.array([_size(group) for group in groups]),
                            [group.moved[:, config.minutes] for group in groups], config.bootstrap, config.seed)


def _size(group: Group) -> float:
    """Shares traded over the mean volume without the execution."""
    done = group.costs["fulfilled"].to_numpy()
    known = done[~np.isnan(done)]
    return float(group.ratio * known.mean()) if len(known) else np.nan


def _agents(runs: list[Rollout]) -> dict[str, int]:
    found = [count for run in runs for count in run.agents.values()]
    return {name: sum(one[name] for one in found) for name in found[0]}


def _complaints(config: ConfigDict, counts: dict[str, int]) -> list[str]:
    lost = {name: counts[name] for name in ("unsent", "late_wakes") if counts[name]}
    return [f"{config.strategy}: orders or wake-ups that did not fit: {lost}"] if lost else []


def _write(config: ConfigDict, folder: Path, groups: list[Group], base: Made, report: dict[str, Any]) -> None:
    straight = np.minimum(np.arange(groups[0].runs.mids.shape[1]) / config.minutes, 1.0)
    if config.strategy not in ("twap", "vwap"):
        straight = np.full_like(straight, np.nan)
    common = base.runs.where(slice(0, config.seeds * config.trajectories))
    tables = {group.name: impact.minute_table(group.runs, common, straight, config.bootstrap, config.seed)
              for group in groups}
    pd.concat([table.assign(side=group.side, ratio=group.ratio) for group, table in
               zip(groups, tables.values(), strict=True)]).to_csv(folder / "minutes.csv", index=False)
    pd.concat([_rows(group, config.minutes) for group in groups]).to_csv(folder / "executions.csv", index=False)
    pd.json_normalize([{key: value for key, value in row.items() if key != "remaining_after"}
                       for row in report["groups"]], sep="_").to_csv(folder / "impact.csv", index=False)
    pd.DataFrame([{"group": row["group"], "minutes_after": minute, **part} for row in report["groups"]
                  for minute, part in enumerate(row["remaining_after"])]).to_csv(folder / "decay.csv", index=False)
    _baselines(base.runs, config).to_csv(folder / "baselines.csv", index=False)
    if not config.picture:
        return
    points = {side: [(_size(group), Mean(**row["impact_bp"])) for group, row in
                     zip(groups, report["groups"], strict=True) if group.side == side] for side in config.sides}
    laws = {side: PowerLaw(**law) for side, law in report["power_law"].items()}
    impact_plots.volumes(tables).savefig(folder / "volume.png", dpi=110)
    impact_plots.prices(tables, config.minutes).savefig(folder / "price.png", dpi=110)
    impact_plots.impacts(points, laws, tables, config.minutes).savefig(folder / "impact.png", dpi=110)


def _rows(group: Group, end: int) -> pd.DataFrame:
    """A row a rollout."""
    runs = group.runs
    return pd.DataFrame({
        "side": group.side, "ratio": group.ratio, "seed": runs.seed, "number": runs.number, "target": runs.target,
        "lost": runs.lost, "arrival": runs.mids[:, 0]}).join(group.costs).assign(
        impact_bp=group.moved[:, end], impact_independent_bp=group.moved_independent[:, end])


def _baselines(runs: Runs, config: ConfigDict) -> pd.DataFrame:
    return pd.DataFrame({
        "seed": runs.seed, "number": runs.number, "lost": runs.lost, "mid_start": runs.mids[:, 0],
        "mid_end": runs.mids[:, config.minutes], "volume": runs.volume[:, : config.minutes].sum(axis=1)})


def _print(config: ConfigDict, report: dict[str, Any]) -> None:
    told = report["rollouts"]
    shown = f"{report['mean_volume_without']:.0f}" if report["mean_volume_without"] is not None else "none"
    print(f"mean volume without the {config.strategy}: {shown} shares in {config.minutes} minutes; means with "
          f"{impact.LEVEL:.0%} intervals over rollouts")
    names = ("fulfilled", "slippage_bp", "shortfall_bp", "participation", "impact_bp", "impact_independent_bp")
    print(pd.DataFrame([{"group": row["group"], "target": row["target"], "lost": row["lost"],
                         **{name: "{value:.3g} [{low:.3g}, {high:.3g}]".format(**row[name]) for name in names},
                         "variance saved": f"{row['variance_saved']:.1f}"} for row in report["groups"]]
                       ).to_string(index=False))
    for side, law in report["power_law"].items():
        print(f"{side}: impact = {law['factor']:.3g} bp x size^{law['exponent']:.3g} [{law['low']:.3g}, "
              f"{law['high']:.3g}], square root: {law['root_factor']:.3g} bp x size^0.5")
    print(f"{told['trajectories']} trajectories: {told['orders']} orders, rejected {told['rejected'] or 0}, ended "
          f"{told['ended']}, lost {told['lost']}; {told['orders_per_s']} orders/s ({told['run_s']} s, compiled in "
          f"{told['compile_s']} s, {report['seconds']['total']:.1f} s in all, on {jax.devices()[0].platform}); results "
          f"in {config.output}")


if __name__ == "__main__":
    launcher.run("market_impact", main)
