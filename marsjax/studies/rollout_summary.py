"""What happened in rollouts together, and whether they are complete."""

import collections
from collections.abc import Sequence
from typing import Any

import numpy as np

from marsjax.analysis import forecast, market_summary
from marsjax.core import int64
from marsjax.core.records import Status
from marsjax.sim.initial import Start
from marsjax.sim.result import Rollout
from marsjax.sim.state import LOST


def is_lost(run: Rollout) -> np.ndarray:
    """bool [B], the trajectory broke off before its time was over."""
    return are_lost(np.asarray(run.state.end))


def are_lost(ends: np.ndarray) -> np.ndarray:
    """bool [B], of the `End` of each trajectory."""
    return np.isin(ends, [int(end) for end in LOST])


def labels(run: Rollout) -> np.ndarray:
    """Labels of the trajectories, float64 [B]; NaN where no order came or the trajectory is lost.

    Examples:
      >>> from marsjax import RolloutSpec, Simulator, rollout, testing
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> start = testing.random_start(market, model)
      >>> run = rollout(Simulator.of(model, market), start, RolloutSpec(trajectories=4, minutes=1, seed=1))
      >>> labels(run).shape, bool(np.isfinite(labels(run)).all())
      ((4,), True)
    """
    found = forecast.labels_of_bars(run.bars, run.mid_twice_start)
    return np.where(is_lost(run), np.nan, found)


def summarize(runs: Sequence[Rollout], starts: Sequence[Start]) -> dict[str, Any]:
    """All rollouts together, of these starts: orders, rejections, ends, overflows, conservation, speed."""
    def added(name: str) -> dict[str, int]:
        total: collections.Counter[str] = collections.Counter()
        for run in runs:
            total.update(getattr(run, name))
        return dict(total)

    def shares(name: str) -> int:
        return sum(int((int64.to_numpy(getattr(run.state.market.counters, name))
                        - int64.to_numpy(getattr(one.market.counters, name))).sum())
                   for run, one in zip(runs, starts, strict=True))

    run_s, orders = sum(run.run_s for run in runs), sum(run.order_count for run in runs)
    return {
        "trajectories": sum(len(run.mid_twice_start) for run in runs), "orders": orders,
        "rejected": added("rejected"), "ended": added("ended"), "lost": sum(int(is_lost(run).sum()) for run in runs),
        "shares_traded": shares("traded"), "shares_cancelled": shares("cancelled"), "exceeded": added("counters"),
        "most_resting": max(int(np.max(run.state.market.counters.most_resting)) for run in runs),
        "capacity": max(run.state.market.book.price.shape[-1] for run in runs),
        "conserved": all(market_summary.is_conserved(run.state.market) for run in runs),
        "steps": max(run.steps for run in runs), "compile_s": round(sum(run.compile_s for run in runs), 3),
        "run_s": round(run_s, 3), "orders_per_s": round(orders / max(run_s, 1e-9))}


def problems(summary: dict[str, Any]) -> list[str]:
    """Why rollouts of such a summary are not complete, one line each."""
    found = []
    lost = {name: summary["ended"][name] for name in (end.name for end in LOST) if name in summary["ended"]}
    if lost:
        found.append(f"{summary['lost']} of {summary['trajectories']} trajectories lost, not part of any number: "
                     f"{lost}")
    full = summary["rejected"].get(Status.SIDE_FULL.name, 0)
    if full:
        found.append(f"{full} orders refused, a side was full: set rollout_capacity above "
                     f"{summary['capacity']}")
    dropped = summary["exceeded"].get("trace_dropped", 0)
    if dropped:
        found.append(f"{dropped} events found no room in the trace")
    if not summary["conserved"]:
        found.append("shares or cash were not conserved")
    return found


def summary_line(summary: dict[str, Any], seconds: float) -> str:
    """One line on a summary and the seconds that all took."""
    return (f"{summary['trajectories']} trajectories: {summary['orders']} orders, rejected {summary['rejected'] or 0}, "
            f"ended {summary['ended']}, lost {summary['lost']}; {summary['orders_per_s']} orders/s ({summary['run_s']} "
            f"s, compiled in {summary['compile_s']} s, {seconds:.1f} s in all)")
