"""The largest numbers that specs take: beyond them a run would not end, or not fit any machine."""

import math
from typing import Any

from marsjax.core.errors import InputError

TRAJECTORIES = 2**20
"""Markets, trajectories or books at once or one after the other."""
MINUTES = 24 * 60
"""Of a run: a day."""
STEPS_OF_A_CALL = 2**16
"""Decisions, wake-ups or orders of a market in one compiled call."""
WAKE_UPS = 10_000_000
"""Of the noise agent in one market, one after the other."""
RESAMPLES = 100_000
"""Of a bootstrap."""
SEED = 2**31 - 1
LEAST_TEMPERATURE, MOST_TEMPERATURE = 1e-6, 1e6
"""Of a draw: logits over it stay float32 numbers."""


def check_whole(name: str, value: Any, low: int, high: int) -> None:
    """InputError by `name` unless a value is a whole number of low to high."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value != int(value):
        raise InputError(f"{name}: expected a whole number, got {value!r}")
    if value < low:
        raise InputError(f"{name}: expected at least {low}, got {value}")
    if value > high:
        raise InputError(f"{name}: expected at most {high}, got {value}")


def check_temperature(name: str, value: Any) -> None:
    """InputError by `name` unless a value is a temperature to draw at."""
    if isinstance(value, bool) or not 0 < value < math.inf:
        raise InputError(f"{name}: expected a number above 0, got {value!r}")
    if not LEAST_TEMPERATURE <= value <= MOST_TEMPERATURE:
        raise InputError(f"{name}: expected {LEAST_TEMPERATURE:g} to {MOST_TEMPERATURE:g}, got {value!r}")
