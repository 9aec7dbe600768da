"""Price responses by kind of event, real and generated (LOB-Bench, after Eisler, Bouchaud and Kockelkoren 2012).

The response of an event is the mean of its sign times the mid some messages after it less the mid just before it.
Events are orders that trade (MO), limit orders that do not (LO) and cancels (CA), that leave the mid (0) or move it
(1); the sign is 1 for buys and cancelled asks, -1 for sells and cancelled bids.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marsjax.analysis.intervals import Interval
from marsjax.analysis.lob_bench import distances, statistics
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.core.records import Kind, Side

EVENTS = ("MO_0", "MO_1", "LO_0", "LO_1", "CA_0", "CA_1")
LAGS = (1, 2, 5, 10, 20, 50, 100)
"""Messages from just before an event; 1 is just after it."""


class Responses(NamedTuple):
    """Sums of one source by stretch."""

    sums: np.ndarray
    """float64 [blocks, len(EVENTS), len(LAGS)], sign times change of the mid, 1e-4 of the currency."""
    counts: np.ndarray
    """float64 of the same shape."""


def of_parts(parts: Sequence[Sequence[OrderMessages]]) -> Responses:
    """Of the sequences of each stretch."""
    shape = (len(parts), len(EVENTS), len(LAGS))
    found = Responses(np.zeros(shape), np.zeros(shape))
    for block, sequences in enumerate(parts):
        for messages in sequences:
            sums, counts = _of(messages)
            found.sums[block] += sums
            found.counts[block] += counts
    return found


def _of(messages: OrderMessages) -> tuple[np.ndarray, np.ndarray]:
    """Sums and counts of one sequence, [len(EVENTS), len(LAGS)]; its first message is no event."""
    sums, counts = np.zeros((2, len(EVENTS), len(LAGS)))
    mids = statistics.mid(messages)
    is_cancel = messages.kind == Kind.CANCEL
    sign = np.where((messages.side == Side.BID) != is_cancel, 1, -1)
    kind = np.where(is_cancel, 2, np.where(messages.traded > 0, 0, 1))
    event = (2 * kind[1:] + (np.diff(mids) != 0)).astype(int)
    for number, lag in enumerate(lag for lag in LAGS if lag < len(mids)):
        change = sign[1 : len(mids) - lag + 1] * (mids[lag:] - mids[:-lag])
        some = event[: len(change)]
        # Where a side was empty just before or after there is no telling whether the mid moved.
        known = np.isfinite(change) & np.isfinite(mids[: len(change)]) & np.isfinite(mids[1 : len(change) + 1])
        sums[:, number] = np.bincount(some[known], change[known], minlength=len(EVENTS))
        counts[:, number] = np.bincount(some[known], minlength=len(EVENTS))
    return sums, counts


def curves(one: Responses, draws: np.ndarray | None = None) -> np.ndarray:
    """Responses [R, len(EVENTS), len(LAGS)] by how often each stretch counts [R, blocks]; NaN without an event."""
    draws = np.ones((1, len(one.sums))) if draws is None else draws
    with np.errstate(invalid="ignore"):
        found: np.ndarray = np.einsum("rb,bel->rel", draws, one.sums) / np.einsum("rb,bel->rel", draws, one.counts)
    return found


def deviations(real: Responses, other: Responses, unit: float, seed: int = 0, resamples: int = 0) -> list[Interval]:
    """Of each of EVENTS the mean absolute difference of the responses over LAGS, in `unit`, with its interval."""
    value = _apart(curves(real), curves(other), unit)[0]
    drawn = np.zeros((0, len(EVENTS)))
    if resamples:
        rng = np.random.default_rng(seed)
        a, b = (curves(one, distances.block_draws(len(one.sums), rng, resamples)) for one in (real, other))
        drawn = _apart(a, b, unit)
    return [distances.around(float(value[event]), drawn[:, event]) for event in range(len(EVENTS))]


def twin(history: Responses, blocks: tuple[int, int], unit: float, seed: int = 0, resamples: int = 100) -> np.ndarray:
    """Mean deviations [len(EVENTS)] of two samples of so many stretches drawn from history."""
    rng = np.random.default_rng(seed)
    a, b = (curves(history, distances.block_draws(len(history.sums), rng, resamples, count)) for count in blocks)
    drawn = _apart(a, b, unit)
    known = np.isfinite(drawn)
    return np.where(known.any(axis=0), np.where(known, drawn, 0).sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)


def refusal(name: str, one: Responses, event: int) -> str:
    """Why nothing can be said of the responses of an event, in words; empty where something can."""
    stretches, count = int((one.counts[:, event, -1] > 0).sum()), int(one.counts[:, event, -1].sum())
    kind = f"{EVENTS[event]} with {LAGS[-1]} messages after it"
    if stretches < distances.LEAST_BLOCKS:
        return f"too few: {name} has {kind} in {stretches} stretches, expected {distances.LEAST_BLOCKS} at least"
    if count < distances.LEAST_VALUES:
        return f"too few: {name} has {count} of {kind}, expected {distances.LEAST_VALUES} at least"
    return ""


def _apart(first: np.ndarray, second: np.ndarray, unit: float) -> np.ndarray:
    """Mean absolute differences [R, len(EVENTS)] of curves."""
    apart: np.ndarray = np.abs(first - second).mean(axis=-1) / unit
    return apart
