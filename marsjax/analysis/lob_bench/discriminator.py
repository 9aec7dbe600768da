"""The discriminator score of LOB-Bench: how well a small network tells generated windows of orders from real ones.

Its score is the area under the ROC curve of windows that it was not trained on: .5 where it cannot tell them apart, 1
where it always can. The network is a convolution over the sequence; with CHANGES it sees what the paper's does, how
each order changed the mid, at which distance from it, and by how many shares.
"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from marsjax.analysis.intervals import UNKNOWN, Interval
from marsjax.analysis.lob_bench import distances, statistics
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Kind

CHANGES = ("mid_change", "distance", "volume_change")
"""Features of the paper's network."""
FEATURES = (*CHANGES, "log_interval", "spread", "log_ask_volume", "log_bid_volume")
LEAST_WINDOWS = 20
"""Of a source, in training and held out, below which there is no score."""
_FOLDS = 3
_LEAST_ROWS = 256


@dataclasses.dataclass(frozen=True)
class DiscriminatorSpec:
    """Sizes of the network and of its training."""

    features: tuple[str, ...] = CHANGES
    """Of FEATURES."""
    window: int = 64
    """Orders of a window."""
    channels: int = 32
    width: int = 5
    """Orders that a convolution spans."""
    steps: int = 200
    batch: int = 64
    """Windows of a step, half of them real."""
    rate: float = 3e-3
    """Of Adam, falling to 0 by a cosine."""
    most_windows: int = 4096
    """Of a source; of more, some are drawn."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.features) - set(FEATURES))
        if unknown or not self.features:
            raise InputError(f"DiscriminatorSpec.features: expected some of {', '.join(FEATURES)}, got "
                             f"{', '.join(unknown) or 'none'}")
        for name in ("window", "channels", "width", "steps", "batch", "most_windows"):
            if getattr(self, name) < (2 if name in ("window", "batch") else 1):
                raise InputError(f"DiscriminatorSpec.{name}: expected a larger number, got {getattr(self, name)}")
        if self.window < 2 * self.width - 1:
            raise InputError(f"DiscriminatorSpec.window: expected {2 * self.width - 1} at least, twice the width less "
                             f"1, got {self.window}")


class Discriminator(nnx.Module):
    """Windows [n, W, F] -> logits that they are generated, float32 [n]."""

    def __init__(self, spec: DiscriminatorSpec, rngs: nnx.Rngs) -> None:
        """Draws its weights."""
        self.width = spec.width
        self.first = nnx.Linear(spec.width * len(spec.features), spec.channels, rngs=rngs)
        self.second = nnx.Linear(spec.width * spec.channels, spec.channels, rngs=rngs)
        self.last = nnx.Linear(2 * spec.channels, 1, rngs=rngs)

    def __call__(self, windows: Array) -> jax.Array:
        """The logits."""
        hidden = jax.nn.relu(self.first(_neighbours(windows, self.width, 1)))
        hidden = jax.nn.relu(self.second(_neighbours(hidden, self.width, 2)))
        pooled = jnp.concatenate([hidden.mean(axis=-2), hidden.max(axis=-2)], axis=-1)
        return self.last(pooled)[..., 0]


def _neighbours(rows: Array, width: int, stride: int) -> jax.Array:
    """Each `width` rows side by side, [n, W, F] -> [n, (W - width) // stride + 1, width F].

    A convolution is one product with them, whose gradient XLA's CPU computes many times faster than a convolution's.
    """
    last = rows.shape[-2] - width + 1
    return jnp.concatenate([jnp.asarray(rows)[..., i : last + i : stride, :] for i in range(width)], axis=-1)


class OrderWindows(NamedTuple):
    """Windows of one source."""

    features: np.ndarray
    """float32 [n, W, F]."""
    block: np.ndarray
    """int64 [n], the stretch that each is of, from 0 to blocks - 1."""
    blocks: int


def windows(parts: Sequence[Sequence[OrderMessages]], spec: DiscriminatorSpec) -> OrderWindows:
    """Windows side by side of the sequences of each stretch; what is left at the end of one is none."""
    made, blocks = [np.zeros((0, spec.window, len(spec.features)), np.float32)], [np.zeros(0, np.int64)]
    for block, sequences in enumerate(parts):
        for messages in sequences:
            table = _features(messages)
            rows = np.stack([table[name] for name in spec.features], axis=-1).astype(np.float32)
            count = len(rows) // spec.window
            made.append(rows[: count * spec.window].reshape(count, spec.window, len(spec.features)))
            blocks.append(np.full(count, block))
    return OrderWindows(np.concatenate(made), np.concatenate(blocks), len(parts))


def _features(messages: OrderMessages) -> dict[str, np.ndarray]:
    """FEATURES of all messages but the first, float64 [N - 1]; where the book has no mid, that of before holds."""
    mids = statistics.mid(messages)
    known = np.where(np.isfinite(mids), np.arange(len(mids)), 0)
    known = np.maximum.accumulate(known)
    mids = np.nan_to_num(mids[known])
    is_cancel = messages.kind == Kind.CANCEL
    change = np.where(is_cancel, -messages.volume, messages.rest - messages.traded)
    columns = {
        "mid_change": np.diff(mids), "distance": (messages.price[1:] - mids[:-1]), "volume_change": change[1:],
        "log_interval": np.log(np.diff(messages.time_ns) + 1e3), "spread": statistics.spread(messages)[known][1:],
        "log_ask_volume": np.log1p(messages.ask_volume[1:]), "log_bid_volume": np.log1p(messages.bid_volume[1:])}
    for name in (*CHANGES, "spread"):
        columns[name] = np.arcsinh(np.nan_to_num(columns[name]) / 100)
    return columns


def score(real: OrderWindows, generated: OrderWindows, spec: DiscriminatorSpec, key: jax.Array, resamples: int = 200
          ) -> tuple[Interval, str]:
    """Area under the ROC curve of held-out windows, with its interval over resampled stretches; and why not, in words.

    The stretches of both are cut into folds in order; each is judged by a network trained on the others. A score is
    UNKNOWN where a source has too few stretches or windows, or windows that are all the same.

    Args:
      real: windows of real orders.
      generated: of the other source; stretch i of both is of one starting state, if they have as many.
      spec: network and training.
      key: of all draws.
      resamples: of the interval.
    """
    folds, places, why = _folds(real, generated)
    if why:
        return UNKNOWN, why
    keys = jax.random.split(key, 2 * folds + 1)
    pairs = []
    for fold in range(folds):
        train = [_drawn(one.features[place != fold], spec.most_windows, keys[fold], number)
                 for number, (one, place) in enumerate(zip((real, generated), places, strict=True))]
        mean, unit = _scale(train)
        model = fit(spec, keys[folds + fold], *((part - mean) / unit for part in train))
        logits = [judged(spec, model, (one.features[place == fold] - mean) / unit)
                  for one, place in zip((real, generated), places, strict=True)]
        held_out = [one.block[place == fold] for one, place in zip((real, generated), places, strict=True)]
        pairs.append(pairs_won(logits, held_out, (real.blocks, generated.blocks)))
    won, counts = (np.sum(part, axis=0) for part in zip(*pairs, strict=True))
    rng = np.random.default_rng(np.asarray(jax.random.key_data(keys[-1])))
    a, b = (rng.multinomial(n, np.full(n, 1 / n), resamples) for n in won.shape)
    with np.errstate(invalid="ignore"):
        drawn = np.einsum("ri,ij,rj->r", a, won, b) / np.einsum("ri,ij,rj->r", a, counts, b)
    found = distances.around(float(won.sum() / counts.sum()), drawn, 1.0)
    least = min(len(real.block), len(generated.block))
    if found.value in (0.0, 1.0):  # no pair is out of order, so resampling shows no spread: the rule of three
        found = Interval(found.value, max(found.value - 3 / least, 0.0), min(found.value + 3 / least, 1.0))
    return found, ""


def fit(spec: DiscriminatorSpec, key: jax.Array, real: np.ndarray, generated: np.ndarray) -> nnx.State:
    """Trains a network to tell windows [n, W, F] apart; its weights."""
    padded = [np.pad(part, [(0, _rows(len(part)) - len(part)), (0, 0), (0, 0)]) for part in (real, generated)]
    return _fitted(spec, key, *padded, np.array([len(real), len(generated)], np.int32))


def judged(spec: DiscriminatorSpec, model: nnx.State, part: np.ndarray) -> np.ndarray:
    """Logits of windows [n, W, F], float32 [n]."""
    padded = np.pad(part, [(0, _rows(len(part)) - len(part)), (0, 0), (0, 0)])
    return np.asarray(_judged(spec, model, padded))[: len(part)]


@functools.partial(jax.jit, static_argnums=0)
def _fitted(spec: DiscriminatorSpec, key: jax.Array, real: Array, generated: Array, counts: Array) -> nnx.State:
    """Trains on the first `counts` [2] windows of padded arrays."""
    first, draws = jax.random.split(key)
    graph, weights = nnx.split(Discriminator(spec, nnx.Rngs(first)))
    optimizer = optax.adam(optax.cosine_decay_schedule(spec.rate, spec.steps))
    half = spec.batch // 2
    labels = jnp.repeat(jnp.array([0.0, 1.0]), half)

    def loss(weights: nnx.State, batch: jax.Array) -> jax.Array:
        return optax.sigmoid_binary_cross_entropy(nnx.merge(graph, weights)(batch), labels).mean()

    def step(carry: tuple[nnx.State, optax.OptState], key: jax.Array) -> tuple[tuple[nnx.State, optax.OptState], None]:
        weights, state = carry
        which = jax.random.randint(key, (2, half), 0, jnp.asarray(counts)[:, None])
        batch = jnp.concatenate([jnp.asarray(real)[which[0]], jnp.asarray(generated)[which[1]]])
        updates, state = optimizer.update(jax.grad(loss)(weights, batch), state)
        return (optax.apply_updates(weights, updates), state), None

    (weights, _), _ = jax.lax.scan(step, (weights, optimizer.init(weights)), jax.random.split(draws, spec.steps))
    return weights


@functools.partial(jax.jit, static_argnums=0)
def _judged(spec: DiscriminatorSpec, weights: nnx.State, part: Array) -> jax.Array:
    graph, _ = nnx.split(nnx.eval_shape(lambda: Discriminator(spec, nnx.Rngs(0))))
    found: jax.Array = nnx.merge(graph, weights)(part)
    return found


def _rows(count: int) -> int:
    """Rows of padded arrays: powers of 2, few sizes, few compilations."""
    return max(_LEAST_ROWS, 1 << (count - 1).bit_length())


def _drawn(features: np.ndarray, most: int, key: jax.Array, number: int) -> np.ndarray:
    """At most so many of some windows, drawn without replacement."""
    if len(features) <= most:
        return features
    rng = np.random.default_rng([*np.asarray(jax.random.key_data(key)).tolist(), number])
    return features[np.sort(rng.choice(len(features), most, replace=False))]


def _scale(train: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each feature, both sources of equal weight, float32 [F]."""
    means = np.mean([part.mean(axis=(0, 1), dtype=np.float64) for part in train], axis=0)
    squares = np.mean([((part - means) ** 2).mean(axis=(0, 1), dtype=np.float64) for part in train], axis=0)
    unit = np.sqrt(squares)
    return means.astype(np.float32), np.where(unit > 0, unit, 1).astype(np.float32)


def pairs_won(logits: Sequence[np.ndarray], blocks: Sequence[np.ndarray], counts: tuple[int, int]
         ) -> tuple[np.ndarray, np.ndarray]:
    """By real and generated stretch [counts]: pairs in which the generated window has the higher logit, and pairs.

    A tie is half a pair.
    """
    real, generated = logits
    won = np.zeros(counts)
    for block in np.unique(blocks[0]):
        mine = np.sort(real[blocks[0] == block])
        above = (np.searchsorted(mine, generated, side="left") + np.searchsorted(mine, generated, side="right")) / 2
        won[block] = np.bincount(blocks[1], above, minlength=counts[1])
    sizes = [np.bincount(block, minlength=count) for block, count in zip(blocks, counts, strict=True)]
    return won, np.outer(*sizes).astype(np.float64)


def _folds(real: OrderWindows, generated: OrderWindows) -> tuple[int, list[np.ndarray], str]:
    """How many folds, the fold of each window, and why there can be none; two where three leave too few windows."""
    most = min(_FOLDS, real.blocks, generated.blocks)
    for folds in (most, min(most, 2)):
        places = [one.block * folds // max(one.blocks, 1) for one in (real, generated)]
        why = (_refusal("real", real, places[0], folds) or _refusal("generated", generated, places[1], folds))
        if not why:
            break
    return folds, places, why


def _refusal(name: str, one: OrderWindows, place: np.ndarray, folds: int) -> str:
    if folds < distances.LEAST_BLOCKS:
        return f"too few: {name} has windows in {one.blocks} stretches, expected {distances.LEAST_BLOCKS} at least"
    for fold in range(folds):
        for part, count in (("held out", int((place == fold).sum())), ("to train on", int((place != fold).sum()))):
            if count < LEAST_WINDOWS:
                return f"too few: {name} has {count} windows {part}, expected {LEAST_WINDOWS} at least"
    if (one.features == one.features[:1]).all():
        return f"constant: {name} has windows that are all the same"
    return ""
