"""How well futures fit a curve of prices, interval by interval."""

import numpy as np
import pandas as pd

from marsjax.core.errors import InputError

NEAR_BP = 5.0
"""Futures that are so far from the target at most are near it."""
COLUMNS = ("interval", "wanted_bp", "mean_bp", "rmse_bp", "error_bp", "near", "correlation")


def table(return_bp: np.ndarray, wanted_bp: np.ndarray) -> pd.DataFrame:
    """A row an interval, from 1 on: where futures are at its end against where they are to be.

    Args:
      return_bp: float [I, B], the mid at the ends of intervals against the mid at the start, basis points; B futures,
        none of them lost.
      wanted_bp: float [I], NaN: anywhere.

    Columns: COLUMNS; `error_bp` is the mean distance, `near` the share of futures within NEAR_BP, `correlation` the
    mean over futures of that of their mids with the target, from the start up to there (NaN where nothing has moved).

    Examples:
      >>> found = table(np.array([[-10.0, -8.0], [-20.0, -28.0]]), np.array([-10.0, -20.0]))
      >>> found["error_bp"].tolist(), found["near"].tolist()
      ([1.0, 4.0], [1.0, 0.5])
    """
    found, wanted = np.asarray(return_bp, np.float64), np.asarray(wanted_bp, np.float64)
    if found.ndim != 2 or wanted.shape != found.shape[:1]:
        raise InputError(f"control_fit: expected returns [I, B] and a target [I], got {found.shape} and "
                         f"{wanted.shape}")
    off = found - wanted[:, None]
    some = found.shape[1] > 0
    nothing = np.full(len(wanted), np.nan)
    return pd.DataFrame({
        "interval": np.arange(len(wanted)) + 1, "wanted_bp": wanted,
        "mean_bp": found.mean(axis=1) if some else nothing,
        "rmse_bp": np.sqrt((off**2).mean(axis=1)) if some else nothing,
        "error_bp": np.abs(off).mean(axis=1) if some else nothing,
        "near": np.where(np.isnan(wanted), np.nan, (np.abs(off) <= NEAR_BP).mean(axis=1)) if some else nothing,
        "correlation": [_so_far(found[: last + 1], wanted[: last + 1]) for last in range(len(wanted))]})


def _so_far(found: np.ndarray, wanted: np.ndarray) -> float:
    """Mean correlation over futures that move, from the start on."""
    kept = np.isfinite(wanted)
    path = np.vstack([np.zeros((1, found.shape[1])), found[kept]])
    curve = np.concatenate([[0.0], wanted[kept]])
    path, curve = path - path.mean(axis=0), curve - curve.mean()
    size = np.sqrt((path**2).sum(axis=0) * (curve**2).sum())
    moves = size > 1e-9
    return float(((path * curve[:, None]).sum(axis=0)[moves] / size[moves]).mean()) if moves.any() else float("nan")
