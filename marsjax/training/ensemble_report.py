"""What telling an order model its batches gains, in nats an order, with standard errors that know of time.

Orders of one interval, and of intervals one after the other, gain together. So the standard error of a mean gain is
that of moving blocks of intervals, not that of orders.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.model.ensemble import Ensemble
from marsjax.model.llama import OrderModel
from marsjax.training import ensemble as training
from marsjax.training import evaluate
from marsjax.training.ensemble import ToldOrders

BLOCK = 5
"""Intervals of a moving block."""


class Gain(NamedTuple):
    """Nats an order by which orders are likelier, in the mean."""

    mean: float
    error: float
    """Its standard error."""


def measured(model: OrderModel, ensemble: Ensemble, of: ToldOrders, codes: Mapping[str, Array], strength: float = 1.0
             ) -> dict[str, dict[str, Gain]]:
    """The gains over the order model alone, by the name of the codes and by `evaluate.FIELDS`.

    Args:
      model: the order model.
      ensemble: its ensemble.
      of: orders, which nothing was trained on.
      codes: int32 [M, C] by name, what the ensemble is told in place of `of.codes`.
      strength: of the change (`Ensemble.prepared`).
    """
    alone = evaluate.losses_at(model, of.hidden, of.label)
    found = {}
    for name, told in codes.items():
        both = evaluate.losses_at(model, training.changed(ensemble, of, told, strength), of.label)
        found[name] = {field: gain(alone[field] - both[field], of.batch) for field in evaluate.FIELDS}
    return found


def shuffled(codes: Array, seed: int) -> np.ndarray:
    """Codes [M, C], each interval's those of another one: what is told so must gain nothing."""
    given = np.asarray(codes)
    if len(given) < 2:
        raise InputError(f"ensemble: expected the codes of at least 2 intervals to exchange, got {len(given)}")
    order = np.random.default_rng(seed).permutation(len(given))
    # Along one circle through all of them, so that none keeps its own.
    return given[order][np.argsort(np.roll(order, 1))]


def gain(gained: np.ndarray, batch: Array, block: int = BLOCK) -> Gain:
    """The mean of what orders gain, [N], whose intervals `batch`, int32 [N], come one after the other.

    InputError where there are fewer intervals than in a block.
    """
    _, which = np.unique(np.asarray(batch), return_inverse=True)
    sums, counts = np.bincount(which, gained), np.bincount(which)
    if len(sums) < block:
        raise InputError(f"ensemble: expected orders of at least {block} intervals for a standard error, got "
                         f"{len(sums)}")
    mean = sums.sum() / counts.sum()
    blocks = np.convolve(sums - mean * counts, np.ones(block), "valid")
    return Gain(float(mean), float(np.sqrt(len(sums) / block * np.mean(blocks**2)) / counts.sum()))


def table(gains: Mapping[str, Mapping[str, Gain]]) -> str:
    """The gains as text: a line for each of the codes, a column for each field."""
    lines = [f"{'told':>12} " + " ".join(f"{field:>19}" for field in evaluate.FIELDS)]
    lines += [f"{name:>12} " + " ".join(f"{of[field].mean:+9.4f} +- {of[field].error:.4f}" for field in evaluate.FIELDS)
              for name, of in gains.items()]
    return "\n".join(lines)
