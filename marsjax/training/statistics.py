"""What can be counted in a stretch of orders, token by token: spread, shares at the touch, moves, kinds.

The same numbers of real orders and of those that a model wrote: `training.own_futures` makes their means equal. They
are made of tokens with signals alone (`marsjax.tokens.signals`).
"""

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Array, Kind
from marsjax.core.specs import TokenSpec
from marsjax.tokens import encoding

NAMES = ("one tick", "three ticks", "touch", "touch squared", "moves", "direction", "with fast trend",
         "with slow trend", "short return", "short return squared", "long return", "long return squared", "interval",
         "at once", "cancels", "aggressive", "touch apart", "volume", "large", "away from the larger touch")
"""One tick, three ticks: whether the spread is that, or so many and more. Touch: mean of both best prices' shares, half
steps of the logarithm (`signals`). Moves: whether the mid moved, by how much, and that times the trends before it and
the sign of what stood at the touch. Returns: the mid against that 64 and 512 orders ago, half ticks, without sign.
Interval, volume: bins, of volumes those of limit orders; at once, large: whether they are in the first or last quarter
of the bins."""
SIGNED = tuple(name == "direction" for name in NAMES)
"""Whose sign turns with that of the market; the mean of real ones is taken to be 0."""
SLOW = tuple(name.startswith("long") for name in NAMES)
"""Which take hundreds of orders to come about."""
_SHORT, _LONG = 64, 512
_LARGEST = 8, 30, 80
"""Half ticks of one move, a short and a long return that count; of more, so many."""


def check(spec: TokenSpec) -> None:
    """InputError where tokens have no signals."""
    if not spec.signals:
        raise InputError("statistics: expected tokens with signals (TokenSpec.signals), got tokens without")


def of_tokens(spec: TokenSpec, features: Array, given: int) -> jax.Array:
    """The statistics of orders, float32 [B, T - given, K].

    Args:
      spec: bins, with signals.
      features: int32 [B, T, C], tokens in sequence.
      given: the first so many only say what came before.
    """
    features = jnp.asarray(features)
    kind, _, volume, interval = encoding.unpack(spec, features[..., 0])
    move, fast, slow, spread, ask, bid, _ = jnp.moveaxis(features[..., encoding.COLUMNS:].astype(jnp.float32), -1, 0)
    is_limit, touch = kind != Kind.CANCEL, (ask + bid) / 2
    move = jnp.clip(move, -_LARGEST[0], _LARGEST[0])
    short, long = (jnp.abs(_over(move, count)) for count in (_SHORT, _LONG))
    columns = [
        spread < 1, spread >= 3, touch, touch**2 / 10, move != 0, move, move * _before(fast), move * _before(slow),
        short, jnp.minimum(short, _LARGEST[1])**2 / 10, long, jnp.minimum(long, _LARGEST[2])**2 / 10,
        interval, interval < spec.intervals / 4, ~is_limit, is_limit & (features[..., 2] > 0), jnp.abs(ask - bid),
        jnp.where(is_limit, volume, 0), is_limit & (volume >= spec.volumes * 3 / 4),
        move * jnp.sign(_before(bid - ask))]
    return jnp.stack([jnp.asarray(x, jnp.float32) for x in columns], axis=-1)[:, given:]


def means(values: Array, orders: np.ndarray) -> np.ndarray:
    """Of statistics [B, N, K] over the first `orders` [B] of N, float64 [B, K]; 0 where there is none."""
    used = jnp.arange(values.shape[1]) < jnp.asarray(orders)[:, None]
    total = np.asarray(jnp.sum(jnp.where(used[..., None], values, 0), axis=1), np.float64)
    return np.asarray(total / np.maximum(orders, 1)[:, None])


def of_history(spec: TokenSpec, features: np.ndarray) -> np.ndarray:
    """What stretches began with, float64 [B, J], of the tokens [B, T, C] before them: the columns `HISTORY`."""
    mean = np.asarray(of_tokens(spec, features, 0)).mean(axis=1)
    first = encoding.COLUMNS - encoding.LEVELS
    levels = np.asarray(features)[..., first : encoding.COLUMNS].astype(np.float64)
    half = encoding.LEVELS // 2
    tilt = (levels[..., half:].sum(axis=-1) - levels[..., :half].sum(axis=-1)).mean(axis=1)
    last = np.asarray(features)[:, -1]
    rows = [np.ones(len(mean)), *(mean[:, NAMES.index(name)] for name in HISTORY[1:-3]),
            last[:, encoding.COLUMNS + 2], last[:, 3], tilt]
    return np.stack(rows, axis=-1).astype(np.float64)


HISTORY = ("one", "short return", "touch", "one tick", "interval", "volume", "cancels", "aggressive", "moves",
           "slow trend", "change", "tilt")
"""1; means of statistics; and, of what turns with the market's sign, the slow trend and the change since the open at
the end, and the mean of what rests above less below the mid."""
HISTORY_SIGNED = tuple(name in ("slow trend", "change", "tilt") for name in HISTORY)
"""Which of them turn with the sign of the market."""
_SAME = {"three ticks": "one tick", "touch squared": "touch", "touch apart": "touch", "with fast trend": "moves",
         "with slow trend": "moves", "away from the larger touch": "moves", "at once": "interval", "large": "volume"}
"""Statistics of what another one is of too."""


def matters() -> np.ndarray:
    """bool [J, K], under which histories a statistic is compared: none, how far prices moved, and its own.

    A direction under those that have a sign.
    """
    def one(history: str, statistic: str) -> bool:
        if statistic == "direction":
            return history in ("one", "slow trend", "change", "tilt")
        return history in ("one", "short return", _SAME.get(statistic, statistic))

    return np.array([[one(history, name) for name in NAMES] for history in HISTORY])


def _over(x: jax.Array, count: int) -> jax.Array:
    """Sums of the last `count`, along the second axis."""
    total = jnp.cumsum(x, axis=1)
    return total - jnp.pad(total, ((0, 0), (count, 0)))[:, : x.shape[1]]


def _before(x: jax.Array) -> jax.Array:
    """Each order's value before it; 0 for the first."""
    return jnp.pad(x, ((0, 0), (1, 0)))[:, :-1]
