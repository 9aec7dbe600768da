"""One training from its split days to the weights that predict the validation part best, and on that part too."""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from marsjax.training import loop
from marsjax.training.days import Tokens
from marsjax.training.loop import Objective, TrainSpec
from marsjax.training.split import Split, Windows, windows
from marsjax.training.state import Saved, StateFolder
from marsjax.training.stored import StreamedDays

Weights = TypeVar("Weights")
OnRow = Callable[[dict[str, float]], None]
_TOGETHER = 8
"""Validation windows of one compiled part."""


class FitPlan(NamedTuple):
    """When a training looks up, and when it ends."""

    every: int
    """Steps between two looks at the validation part, each a row of the metrics and a state on disk."""
    patience: int
    """Looks without a new best after which the training ends; 0: none."""
    stop_at: int
    """Step to break off at, at the next look, to be taken up again later; 0: none."""


class Recipe(NamedTuple):
    """What a training's result depends on, besides the weights that it starts from and its days."""

    train: TrainSpec
    """Sizes and rates."""
    plan: FitPlan
    """Looks and ends."""
    objective: Objective
    """Nats of each prediction."""
    key: jax.Array
    """Of all draws."""


def fit(recipe: Recipe, weights: Weights, split: Split, states: StateFolder, mesh: Mesh | None = None,
        on_row: OnRow | None = None) -> tuple[Saved[Weights], bool]:
    """Trains, or goes on where `states` left off.

    Args:
      recipe: how.
      weights: to start from.
      split: days.
      states: where the state of the run is kept; what is there is taken up.
      mesh: of devices with an axis `data`, or None for one device.
      on_row: called with each new row: step, loss (what the steps made small, in the mean), validation_loss (nats an
        order, of the objective without a key), rate, seconds; of streamed days also steps_s and waited_s, as
        `stored.StreamedDays` has them, since the row before.

    Returns the state with the best weights, and whether the training is done (not broken off by `FitPlan.stop_at`).
    """
    length = recipe.train.length
    measure = _measure(recipe.objective, windows(split.validation, length, max(length // 2, 1)))
    return _go(recipe, weights, split.training, states, mesh, on_row, measure)


def refit(recipe: Recipe, steps: int, weights: Weights, split: Split, states: StateFolder, mesh: Mesh | None = None,
          on_row: OnRow | None = None) -> tuple[Saved[Weights], bool]:
    """Trains for so many steps of the same schedule on the validation part too, or goes on where `states` left off.

    For the arguments see `fit`, whose best step is `steps`. Rows have no validation_loss; the weights of the last step
    count as the best.
    """
    recipe = recipe._replace(plan=recipe.plan._replace(patience=0))
    return _go(recipe, weights, split.refit, states, mesh, on_row, None, steps)


def _go(recipe: Recipe, weights: Weights, days: Sequence[Tokens], states: StateFolder, mesh: Mesh | None,
        on_row: OnRow | None, measure: Callable[[Any], float] | None, steps: int | None = None
        ) -> tuple[Saved[Weights], bool]:
    train, plan = recipe.train, recipe.plan
    fresh, last = loop.begin(train, weights, mesh), steps or train.steps
    saved = states.restore(Saved(fresh, jax.tree.map(jnp.copy, fresh.average), []))
    saved = saved or Saved(fresh, jax.tree.map(jnp.copy, fresh.average), [])
    curve, best, rate = list(saved.curve), saved.best, loop.rate(train)
    if over(plan, curve) or int(saved.progress.step) >= last:
        return saved, True
    earlier, began, streamed = curve[-1]["seconds"] if curve else 0.0, time.perf_counter(), _Waits(days)
    for progress, trained in loop.run(train, recipe.objective, saved.progress, days, recipe.key, plan.every, mesh):
        step = int(progress.step)
        row = {"step": step, "loss": trained, "rate": float(rate(step - 1)),
               "seconds": earlier + time.perf_counter() - began, **streamed.since()}
        curve.append(row | ({"validation_loss": measure(progress.average)} if measure else {}))
        if measure is None or best_row(curve) is curve[-1]:
            best = jax.tree.map(jnp.copy, progress.average)  # the loop gives its own arrays away
        saved = Saved(progress, best, curve)
        states.save(saved)
        if on_row:
            on_row(curve[-1])
        if over(plan, curve) or step >= last:
            break
        if plan.stop_at and plan.stop_at <= step:
            return saved, False
    return saved, True


class _Waits:
    """Of streamed days the seconds of the steps since the last row, and those that the device waited; else nothing."""

    def __init__(self, days: Sequence[Tokens]) -> None:
        self._days = days if isinstance(days, StreamedDays) else None
        self._before = self._now()

    def _now(self) -> tuple[float, float]:
        return (self._days.steps_s, self._days.waited_s) if self._days else (0.0, 0.0)

    def since(self) -> dict[str, float]:
        """For a row of the metrics."""
        before, self._before = self._before, self._now()
        return {"steps_s": self._before[0] - before[0], "waited_s": self._before[1] - before[1]} if self._days else {}


def best_row(curve: list[dict[str, float]]) -> dict[str, float]:
    """The first row with the lowest validation loss."""
    return min(curve, key=lambda row: row["validation_loss"])


def over(plan: FitPlan, curve: list[dict[str, float]]) -> bool:
    """Whether the last looks brought nothing."""
    return bool(plan.patience and curve and len(curve) - 1 - curve.index(best_row(curve)) >= plan.patience)


def _measure(objective: Objective, chosen: Windows) -> Callable[[Any], float]:
    """Weights -> mean nats of the scored predictions; the same number on any mesh up to rounding."""
    pad = -len(chosen.scored) % _TOGETHER
    features = jnp.asarray(np.pad(chosen.features, ((0, pad), (0, 0), (0, 0))))
    scored = jnp.asarray(np.pad(chosen.scored, ((0, pad), (0, 0))))

    @jax.jit
    def total(weights: Any, features: jax.Array, scored: jax.Array) -> jax.Array:
        def part(x: tuple[jax.Array, jax.Array]) -> jax.Array:
            return jnp.sum(jnp.where(x[1], objective(weights, x[0], None), 0.0))

        parts = (features.reshape(-1, _TOGETHER, *features.shape[1:]), scored.reshape(-1, _TOGETHER, scored.shape[1]))
        return jnp.sum(jax.lax.map(part, parts))

    count = int(chosen.scored.sum())
    return lambda weights: float(total(weights, features, scored)) / count
