"""Guides by name: what markets are often asked to do.

  `drop`, `rise`: the mid moves evenly to `strength` basis points below, or above, the start.
  `reversal`: it falls so far until the middle, or the end of an interval nearest to it, and comes back.
  `calm`: the mid moves `strength` times as much as usual, which is to be below 1, and stays about where it started.
  `burst`: `strength` times as many orders, and as much volume, as usual.
  `illiquid`: `strength` times the shares in the book, which is to be below 1, and spreads as many times wider.

What is usual, `normal`, is what futures do that are left alone (`controlled` with a strength of 0).
"""

import math
from collections.abc import Callable

import numpy as np

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.observers.features import Features
from marsjax.sim.control.guides import CurveGuide, Guide, Target, TargetGuide

SCALE_BP = 2.5
"""Of curves, at least."""
MOST_BP = 5_000.0
"""How far from the start a price may be wanted, basis points."""
MOST_TIMES = 100.0
"""Largest multiple of what is usual."""
_SHARE = 0.1
"""Scale of a feature over what is wanted of it."""


def of(name: str, strength: float, intervals: int, normal: Features, ends: Array | None = None) -> Guide:
    """The guide of a scenario.

    Args:
      name: as above.
      strength: basis points of drop, rise and reversal, at most MOST_BP; of the others a multiple of what is usual, at
        most MOST_TIMES.
      intervals: how many; a reversal needs two.
      normal: what is usual: numbers, [I], or [I, B] of many futures (`ControlledRollout.kept_features`, without those
        that are lost), whose means are taken.
      ends: when each interval ends, [I], after the start, in any unit; None: all intervals are of one length.

    InputError for another name, or numbers out of range.

    Examples:
      >>> usual = Features(0.0, 0.0, 4.0, 1e4, 0.0, 2.0, 5e4, 120.0)
      >>> of("drop", 30, 3, usual).return_bp
      (-10.0, -20.0, -30.0)
      >>> [target.values for target in of("burst", 2, 2, usual).targets]
      [(20000.0, 20000.0), (240.0, 240.0)]
    """
    if name not in SCENARIOS:
        raise InputError(f"scenario: expected one of {', '.join(SCENARIOS)}, got {name!r}")
    limits.check_whole("scenario: intervals", intervals, 1, limits.STEPS_OF_A_CALL)
    if isinstance(strength, bool) or not 0 < strength < math.inf:
        raise InputError(f"scenario {name}: strength: expected a finite number above 0, got {strength!r}")
    most = MOST_BP if name in ("drop", "rise", "reversal") else MOST_TIMES
    if strength > most:
        raise InputError(f"scenario {name}: strength: expected at most {most:g}, got {strength!r}")
    if name in ("calm", "illiquid") and strength >= 1:
        raise InputError(f"scenario {name}: strength: expected a number below 1, a share of what is usual, got "
                         f"{strength!r}")
    if name == "reversal" and intervals < 2:
        raise InputError("scenario reversal: intervals: expected 2 at least, one to go down and one to come back, got "
                         f"{intervals}: take longer futures, or shorter intervals")
    return SCENARIOS[name](float(strength), _ends(intervals, ends), usual(normal, int(intervals)))


def _ends(intervals: int, ends: Array | None) -> np.ndarray:
    """float64 [I]."""
    found = np.arange(1.0, intervals + 1) if ends is None else np.asarray(ends, np.float64)
    if found.shape != (intervals,) or not np.isfinite(found).all() or not (np.diff(found, prepend=0.0) > 0).all():
        raise InputError(f"scenario: ends: expected {intervals} numbers above 0 that rise, got {found.tolist()}")
    return found


def usual(normal: Features, intervals: int) -> Features:
    """Means by interval, float64 [I], of numbers, [I], or [I, B]; InputError for other shapes or no numbers."""
    found = []
    for name, value in zip(Features._fields, normal, strict=True):
        value = np.asarray(value, np.float64)
        if value.ndim == 2 and not value.shape[1]:
            raise InputError(f"normal.{name}: expected numbers of one future at least, got none: all of them are lost")
        value = value.mean(axis=1) if value.ndim == 2 else value
        if value.shape not in ((), (intervals,)) or not np.isfinite(value).all():
            raise InputError(f"normal.{name}: expected finite numbers, one or one for each of {intervals} intervals, "
                             f"got shape {value.shape}")
        found.append(np.broadcast_to(value, intervals))
    return Features(*found)


def multiple(name: str, values: Array) -> Target:
    """A target of a feature that is above 0, float64 [I], NaN for none; its scale goes with what is wanted."""
    values = np.asarray(values)
    scale = _SHARE * float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
    if not scale > 0:
        raise InputError(f"target of {name}: expected numbers above 0, got {values.tolist()}: futures that are left "
                         "alone have none of it")
    return Target(name, tuple(values.tolist()), scale)


def curve(return_bp: np.ndarray) -> CurveGuide:
    """A guide along a curve, float64 [I]."""
    return CurveGuide(tuple(return_bp.tolist()), SCALE_BP)


def _line(ends: np.ndarray, end_bp: float) -> np.ndarray:
    return end_bp * ends / ends[-1]


def _drop(strength: float, ends: np.ndarray, normal: Features) -> Guide:
    del normal
    return curve(_line(ends, -strength))


def _rise(strength: float, ends: np.ndarray, normal: Features) -> Guide:
    del normal
    return curve(_line(ends, strength))


def _reversal(strength: float, ends: np.ndarray, normal: Features) -> Guide:
    del normal
    turn, last = ends[np.argmin(np.abs(ends[:-1] - ends[-1] / 2))], ends[-1]
    return curve(-strength * np.where(ends <= turn, ends / turn, (last - ends) / (last - turn)))


def _calm(strength: float, ends: np.ndarray, normal: Features) -> Guide:
    still = Target("return_bp", (0.0,) * len(ends), SCALE_BP)
    return TargetGuide((multiple("volatility_bp", strength * normal.volatility_bp), still))


def _burst(strength: float, ends: np.ndarray, normal: Features) -> Guide:
    del ends
    return TargetGuide((multiple("volume", strength * normal.volume), multiple("orders", strength * normal.orders)))


def _illiquid(strength: float, ends: np.ndarray, normal: Features) -> Guide:
    del ends
    return TargetGuide((multiple("depth", strength * normal.depth),
                        multiple("spread_ticks", normal.spread_ticks / strength)))


SCENARIOS: dict[str, Callable[[float, np.ndarray, Features], Guide]] = {
    "drop": _drop, "rise": _rise, "reversal": _reversal, "calm": _calm, "burst": _burst, "illiquid": _illiquid}
