"""A trained order model taught a little more, by the orders of one market: its day so far, a stock it never saw.

A model of a few days knows their stocks and hours in the mean. Some steps on the orders before a start teach it the
scale and the pace of this one.
"""

import dataclasses
import math
from collections.abc import Sequence

import jax
import numpy as np

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.model.llama import OrderModel
from marsjax.training import loop, structured
from marsjax.training.loop import TrainSpec
from marsjax.training.loss import Factored

_CHUNK = 128
"""Positions of a window whose scores are made at a time, or the largest part of it that the window is made of."""


@dataclasses.dataclass(frozen=True)
class AdaptSpec:
    """How far a model goes to meet a market."""

    steps: int = 40
    batch: int = 4
    """Windows a step."""
    rate: float = 1e-3
    """Learning rate after `warmup`; falls to 0 along half a cosine."""
    warmup: int = 3
    dropout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        limits.check_whole("AdaptSpec.seed", self.seed, 0, limits.SEED)
        if not 1 <= self.steps <= 10**6:
            raise InputError(f"AdaptSpec.steps: expected 1 to 1000000, got {self.steps}")


def adapt(model: OrderModel, days: Sequence[np.ndarray], spec: AdaptSpec = AdaptSpec()) -> OrderModel:
    """The model after some steps on tokens of one market.

    Args:
      model: trained with a structured head.
      days: int32 [M, C] each, tokens in the model's bins (`training.days.day_tokens`). Days too short for half a
        window are left out.
      spec: steps and rates.

    Returns a model of the same sizes. Raises InputError where the head is not structured, or no day is long enough.
    """
    length = model.spec.context_length
    while length > model.spec.context_length // 2 and not any(len(day) > length for day in days):
        length //= 2
    long = [np.asarray(day) for day in days if len(day) > length]
    if not long:
        raise InputError(f"adapt: expected a day of more than {length} orders before the start, got "
                         f"{max(map(len, days), default=0)}; without them take the model as it is")
    own = structured.of_model(model)
    key = jax.random.key(spec.seed)
    train = TrainSpec(spec.steps, spec.batch, length, spec.rate, spec.warmup, decay=0.0)
    objective = Factored(chunk=math.gcd(_CHUNK, length), dropout=spec.dropout)
    *_, (progress, _) = loop.run(train, objective, loop.begin(train, own), long, key, every=spec.steps)
    adapted: OrderModel = jax.device_put(jax.device_get(structured.expand(progress.params)))
    return adapted.replace(compute=model.compute)
