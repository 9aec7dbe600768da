"""Guides: how well an interval of a trajectory fits what is wanted of it."""

import dataclasses
import math
from typing import Protocol

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.observers.features import BASIS_POINTS, Features

MOST = 1e25
"""Scores go so far from 0: sums of them, times any strength, are finite float32."""


class Guide(Protocol):
    """What is wanted of controlled futures. A frozen, hashable record with one pure function.

    One that is made for a number of intervals has it as `intervals`, too, and is refused for any other number.

    Examples:
      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> @dataclasses.dataclass(frozen=True)
      ... class NoSelling:
      ...     def score(self, interval, seen):
      ...         return jnp.minimum(seen.imbalance, 0.0) * 10
      >>> check(NoSelling(), intervals=3)
    """

    def score(self, interval: Array, seen: Features) -> Array:
        """Log-weights, float32 [B]: 0 fits, -d^2 / 2 is d scales off; -inf or NaN is out of the question.

        Others count as MOST off 0 at most.

        Args:
          interval: int32 [], its number, from 0 on.
          seen: of the interval, [B].
        """


@dataclasses.dataclass(frozen=True)
class CurveGuide:
    """A curve of prices: what `Features.return_bp` is to be at the end of each interval.

    Examples:
      >>> guide = CurveGuide(return_bp=(-10.0, -20.0, -30.0), scale_bp=2.5)
      >>> guide.intervals
      3
    """

    return_bp: tuple[float, ...]
    """Basis points against the mid at the start; NaN: anything is fine at that end."""
    scale_bp: float = 2.5
    """A future that is so far off has exp(-1/2) of the weight of one that is on the curve."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "return_bp", checked_values("CurveGuide.return_bp", self.return_bp))
        check_scale("CurveGuide.scale_bp", self.scale_bp)

    @property
    def intervals(self) -> int:
        """How many it is for."""
        return len(self.return_bp)

    def score(self, interval: Array, seen: Features) -> Array:
        """Of the distance from the curve."""
        return _off(self.return_bp, self.scale_bp, interval, seen.return_bp)


@dataclasses.dataclass(frozen=True)
class Target:
    """What one of the features is to be."""

    name: str
    """A field of `Features`."""
    values: tuple[float, ...]
    """Of each interval; NaN: anything is fine."""
    scale: float
    """As `CurveGuide.scale_bp`, in the unit of the feature."""

    def __post_init__(self) -> None:
        if self.name not in Features._fields:
            raise InputError(f"Target.name: expected one of {', '.join(Features._fields)}, got {self.name!r}")
        object.__setattr__(self, "values", checked_values(f"Target.values of {self.name}", self.values))
        check_scale(f"Target.scale of {self.name}", self.scale)


@dataclasses.dataclass(frozen=True)
class TargetGuide:
    """Several features at a time, each with a weight of its own by its scale.

    Examples:
      >>> calm = Target("volatility_bp", (5.0, 5.0), scale=1.0)
      >>> guide = TargetGuide((calm, Target("return_bp", (math.nan, 10.0), scale=2.5)))
      >>> guide.intervals
      2
    """

    targets: tuple[Target, ...]

    def __post_init__(self) -> None:
        names, lengths = [target.name for target in self.targets], {len(target.values) for target in self.targets}
        if not names or len(set(names)) < len(names):
            raise InputError(f"TargetGuide.targets: expected one target or more, each of another feature, got {names}")
        if len(lengths) > 1:
            raise InputError("TargetGuide.targets: expected values for one number of intervals, got "
                             f"{ {target.name: len(target.values) for target in self.targets} }")

    @property
    def intervals(self) -> int:
        """How many it is for."""
        return len(self.targets[0].values)

    def score(self, interval: Array, seen: Features) -> Array:
        """The sum over the targets."""
        total: Array = jnp.zeros_like(jnp.asarray(seen.return_bp))
        for target in self.targets:
            total = total + _off(target.values, target.scale, interval, getattr(seen, target.name))
        return total


def wanted(guide: Guide) -> dict[str, np.ndarray]:
    """What a guide wants of features by their names, float64 [I], NaN for nothing; {} where that is not known."""
    if isinstance(guide, CurveGuide):
        return {"return_bp": np.array(guide.return_bp, np.float64)}
    targets = guide.targets if isinstance(guide, TargetGuide) else ()
    return {target.name: np.array(target.values, np.float64) for target in targets}


def check(guide: Guide, intervals: int) -> None:
    """InputError unless a guide gives log-weights for so many intervals, and can be an argument of compiled calls."""
    if not callable(getattr(guide, "score", None)):
        raise InputError(f"guide: expected a record with a function score(interval, seen), got {guide!r}")
    try:
        hash(guide)
    except TypeError as error:
        raise InputError(f"guide: expected a frozen record of hashable fields, got {guide!r}: {error}") from error
    own = getattr(guide, "intervals", intervals)
    if own != intervals:
        raise InputError(f"guide: expected one of {intervals} intervals (the length of the futures by "
                         f"ControlSpec.every_s), got {own}")
    seen = Features(*np.zeros((len(Features._fields), 3), np.float32))
    found = jax.eval_shape(guide.score, np.int32(0), seen)
    if getattr(found, "shape", None) != (3,) or not jnp.issubdtype(found.dtype, jnp.floating):
        raise InputError(f"guide: expected score to return float32 [B], a number for each trajectory, got {found}")


def nearest(guide: Guide, interval: Array, seen: Features, predicted: Features) -> jax.Array:
    """Which of several candidates for an interval fits a guide best, int32 [B]; the first of those alike.

    Args:
      guide: what is wanted.
      interval: int32 [], the number of the interval that the candidates are for.
      seen: of the interval before, [B]: where the trajectories stand.
      predicted: of N candidates for each of them, [B, N]. `return_bp` is not read: it comes of `seen.return_bp` and
        the candidate's `move_bp`.
    """
    return jnp.argmax(_scores(guide, interval, seen, predicted), axis=1).astype(jnp.int32)


def prefers(guide: Guide, interval: Array, seen: Features, predicted: Features) -> jax.Array:
    """Whether anything of an interval matters to a guide, bool [B]; the arguments are those of `nearest`.

    False where the candidates, and the interval before if it came again, all have one score: nothing is wanted.
    """
    scores = _scores(guide, interval, seen, predicted)
    again = usable(guide.score(interval, seen))
    return (scores != again[:, None]).any(axis=1)


def _scores(guide: Guide, interval: Array, seen: Features, predicted: Features) -> jax.Array:
    """Of candidates, float32 [B, N]."""
    reached = reached_bp(jnp.asarray(seen.return_bp)[:, None], predicted.move_bp)
    flat = jax.tree.map(lambda x: jnp.reshape(jnp.asarray(x), -1), predicted._replace(return_bp=reached))
    return jnp.reshape(usable(guide.score(interval, flat)), jnp.shape(reached))


def reached_bp(return_bp: Array, move_bp: Array) -> jax.Array:
    """The return since the start after a further move, both in basis points, of the mid before each."""
    before = 1 + jnp.asarray(return_bp) / BASIS_POINTS
    return (before * (1 + jnp.asarray(move_bp) / BASIS_POINTS) - 1) * BASIS_POINTS


def usable(scores: Array) -> jax.Array:
    """Log-weights, float32, with -inf for those that are no number, and all others within MOST of 0."""
    scores = jnp.asarray(scores, jnp.float32)
    is_out = jnp.isnan(scores) | (scores == -jnp.inf)
    return jnp.where(is_out, -jnp.inf, jnp.clip(scores, -MOST, MOST))


def checked_values(name: str, values: tuple[float, ...]) -> tuple[float, ...]:
    """Values of intervals as floats, all of whose NaN are the same, so that equal guides are equal; else InputError."""
    if not isinstance(values, tuple) or not 1 <= len(values) <= limits.STEPS_OF_A_CALL:
        raise InputError(f"{name}: expected a tuple of a number for each interval, got {values!r}")
    for value in values:
        if isinstance(value, bool) or not isinstance(value, int | float) or math.isinf(value):
            raise InputError(f"{name}: expected finite numbers, or NaN for none, got {value!r}")
    return tuple(math.nan if math.isnan(value) else float(value) for value in values)


def check_scale(name: str, value: float) -> None:
    """InputError unless it is a finite number above 0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < math.inf:
        raise InputError(f"{name}: expected a finite number above 0, got {value!r}")


def _off(values: tuple[float, ...], scale: float, interval: Array, found: Array) -> jax.Array:
    """-d^2 / 2, d being how many scales a feature is off; 0 where nothing is wanted of the interval."""
    value = jnp.asarray(values, jnp.float32)[jnp.clip(interval, 0, len(values) - 1)]
    away = (jnp.asarray(found) - value) / jnp.float32(scale)
    return jnp.where(jnp.isnan(value), 0.0, -0.5 * away * away)
