"""A watched day as a record and as text."""

from typing import Any

import numpy as np
import pandas as pd

from marsjax.analysis.detection import DayTest
from marsjax.analysis.interval_features import FEATURES
from marsjax.core import times
from marsjax.core.times import SECOND_NS

_MOST_LINES, _MOST_NAMES = 20, 3


def record(rows: pd.DataFrame, tested: DayTest, rate: float, minutes: int, truth_ns: tuple[int, int] | None
           ) -> dict[str, Any]:
    """What came of a day, for a file.

    Args:
      rows: of `studies.detection.table`.
      tested: its intervals that are not clean, together.
      rate: of false alarms an interval.
      minutes: of an interval.
      truth_ns: from when until when the day was manipulated, the last included, if it was.
    """
    watched = rows[~rows["is_clean"]]
    alarms = watched[watched["alarm"]]
    found = {
        "minutes": minutes, "rate": rate, "attained_rate": tested.attained,
        "calibrated": bool(rows["is_clean"].any()), "clean_intervals": int(rows["is_clean"].sum()),
        "intervals": len(watched), "alarms": len(alarms),
        "day": {"rate_of_some_alarm": tested.some_p, "count_p": tested.count_p, "least_p": tested.least_p},
        "spread_overlap": float(watched["spread_overlap"].mean()),
        "alarm_list": [_alarm(row) for _, row in alarms.iterrows()]}
    if truth_ns is not None:
        at = watched["time_ns"].to_numpy()
        length = minutes * 60 * SECOND_NS
        is_before, is_after = at + length < truth_ns[0], at >= truth_ns[1]  # an interval holds its end
        parts = {"before": is_before, "during": ~is_before & ~is_after, "after": is_after}
        alarm, overlap = watched["alarm"].to_numpy(), watched["spread_overlap"].to_numpy()
        found["manipulation"] = {
            "from": _clock(truth_ns[0]), "until": _clock(truth_ns[1]),
            **{name: {"intervals": int(keep.sum()), "alarms": int(alarm[keep].sum()),
                      "spread_overlap": float(overlap[keep].mean()) if keep.any() else float("nan")}
               for name, keep in parts.items()}}
    return found


def lines(found: dict[str, Any]) -> list[str]:
    """What `record` made, in words."""
    day = found["day"]
    among = f"{found['clean_intervals']} clean intervals" if found["calibrated"] else "the futures alone"
    said = [f"{found['alarms']} alarms in {found['intervals']} intervals of {found['minutes']} minutes, at a rate of "
            f"{found['attained_rate']:.3g} false ones an interval by ranks among {among} (asked: {found['rate']:g})"]
    if not found["attained_rate"]:
        said.append("the pool is too small for that rate: no interval can raise an alarm; more futures or clean "
                    "intervals are needed")
    said.append(f"the day: {day['rate_of_some_alarm']:.0%} of such days have an alarm by chance; so many or more: "
                f"p {day['count_p']:.3g}; smallest p times intervals: {day['least_p']:.3g}")
    said += [f"  {each['clock']}  p {each['p']:.3g}  {', '.join(each['features'])}" for each in
             found["alarm_list"][:_MOST_LINES]]
    if len(found["alarm_list"]) > _MOST_LINES:
        said.append(f"  and {len(found['alarm_list']) - _MOST_LINES} more in intervals.csv")
    if "manipulation" in found:
        case = found["manipulation"]
        during = case["during"]
        said.append(f"{case['kind']} from {case['from']} to {case['until']}: {case['orders']} orders, moved the mid by "
                    f"{case['move_bp']:.1f} bp; alarms in {during['alarms']} of its {during['intervals']} intervals, "
                    f"in {case['before']['alarms']} of {case['before']['intervals']} before and "
                    f"{case['after']['alarms']} of {case['after']['intervals']} after it")
    return said


def _alarm(row: pd.Series) -> dict[str, Any]:
    """An alarm, with the features that lie farthest out among its futures."""
    by_feature = np.array([row[f"{name}_p"] for name in FEATURES], np.float64)
    order = np.argsort(np.where(np.isnan(by_feature), 2, by_feature), kind="stable")
    p = row["p_futures"] if np.isnan(row["p_clean"]) else row["p_clean"]
    return {"time_ns": int(row["time_ns"]), "clock": str(row["clock"]), "p": float(p),
            "features": [FEATURES[each] for each in order[:_MOST_NAMES]]}


def _clock(time_ns: int) -> str:
    return str(times.clock(np.array([time_ns]), 0)[0])
