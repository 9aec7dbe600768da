"""Fits the map from an image to what its minute did: ridge regression."""

from collections.abc import Sequence

import jax
import numpy as np

from marsjax.core.errors import InputError
from marsjax.model.order_batch import readout
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.tokenizer import Tokenizer
from marsjax.training.order_batch.data import Minutes

RIDGES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1, 1.0)
"""Of the mean squared error, in units of one standard deviation of each input and output."""
_IMAGES = 512
"""Images of one compiled decoding."""


def decoded(tokenizer: Tokenizer, images: np.ndarray) -> np.ndarray:
    """Images uint8 [N, 3, 2 V, P] as their codes have them, float32."""
    parts = []
    for first in range(0, len(images), _IMAGES):
        some = images[first : first + _IMAGES]
        padded = np.pad(some, [(0, _IMAGES - len(some)), (0, 0), (0, 0), (0, 0)])
        parts.append(np.asarray(_decode(tokenizer, padded))[: len(some)])
    return np.concatenate(parts)


def fitted(tokenizer: Tokenizer, training: Sequence[Minutes], validation: Sequence[Minutes]) -> Readout:
    """The map of decoded images, each value with the ridge of `RIDGES` that predicts the validation part best.

    InputError where the training part has no minute that something can be said of.
    """
    x, y = _table(tokenizer, training)
    if not len(x):
        raise InputError("readout: expected minutes with orders and mids to fit, got none")
    mean, scale, centre, spread = x.mean(axis=0), x.std(axis=0) + 1e-3, y.mean(axis=0), y.std(axis=0) + 1e-9
    unit, target = (x - mean) / scale, (y - centre) / spread
    gram, product = unit.T @ unit / len(x), unit.T @ target / len(x)
    maps = np.stack([np.linalg.solve(gram + ridge * np.eye(len(gram)), product) for ridge in RIDGES])
    other_x, other_y = _table(tokenizer, validation)
    errors = (((other_x - mean) / scale) @ maps - (other_y - centre) / spread) ** 2
    chosen = errors.mean(axis=1).argmin(axis=0)
    weight = maps[chosen, :, np.arange(len(READ))].T / scale[:, None] * spread
    return Readout(weight.astype(np.float32), (centre - mean @ weight).astype(np.float32))


def explained(tokenizer: Tokenizer, found: Readout, held: Sequence[Minutes]) -> dict[str, dict[str, float]]:
    """Share of the variance of each value that the map explains, of decoded images.

    `all`: among all minutes; `within`: about the mean of their own day, which is the harder.
    """
    x, y = _table(tokenizer, held)
    known = np.isfinite(np.concatenate([run.read for run in held])).all(axis=1)
    sources = np.concatenate([[run.source] * len(run.images) for run in held])[known]
    error = (y - (x @ np.asarray(found.weight) + np.asarray(found.bias))) ** 2
    own = np.stack([y[sources == source].mean(axis=0) for source in sources]) if len(y) else y
    shares = {}
    for about, centre in (("all", y.mean(axis=0)), ("within", own)):
        share = 1 - error.sum(axis=0) / np.maximum(((y - centre) ** 2).sum(axis=0), 1e-12)
        shares[about] = dict(zip(READ, share.tolist(), strict=True))
    return shares


def _table(tokenizer: Tokenizer, runs: Sequence[Minutes]) -> tuple[np.ndarray, np.ndarray]:
    """Inputs and outputs of the map, float64, of minutes with orders and mids."""
    read = np.concatenate([run.read for run in runs])
    known = np.isfinite(read).all(axis=1)
    images = np.concatenate([run.images for run in runs])[known]
    seen = decoded(tokenizer, images) if len(images) else images
    return np.asarray(readout.inputs(seen), np.float64), np.asarray(readout.to_linear(read[known]), np.float64)


@jax.jit
def _decode(tokenizer: Tokenizer, images: jax.Array) -> jax.Array:
    return tokenizer.decode(tokenizer.encode(images))
