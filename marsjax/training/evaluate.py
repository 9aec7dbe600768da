"""Losses of an order model on spans of days, for the whole order and for each of its fields."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.records import Array
from marsjax.core.specs import TokenSpec
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding
from marsjax.training.split import Span, windows

FIELDS = ("order", "type", "price", "volume", "interval")
"""The whole order (its joint class), and its parts."""
_TOGETHER = 8
"""Windows of one compiled call."""
_ROWS = 256
"""Predictions whose logits are made at a time."""


def losses(model: OrderModel, spans: Sequence[Span]) -> dict[str, np.ndarray]:
    """Nats of every order in the spans by `FIELDS`, float32 [N] each.

    A field's loss is that of its marginal law: the sum of the joint law over all classes with that type (or bin).
    Contexts are half a window of the model and more, up to a whole one.
    """
    return losses_at(model, *states(model, spans))


def losses_at(model: OrderModel, hidden: Array, label: Array) -> dict[str, np.ndarray]:
    """Nats of classes int32 [N] at hidden states [N, d] by `FIELDS`, float32 [N] each."""
    count = len(label)
    pad = -count % _ROWS
    parts = (jnp.pad(jnp.asarray(hidden), ((0, pad), (0, 0))).reshape(-1, _ROWS, model.spec.embed_dim),
             jnp.pad(jnp.asarray(label), (0, pad)).reshape(-1, _ROWS))
    found = _field_losses(model, parts)
    return {name: np.asarray(x).reshape(-1)[:count] for name, x in zip(FIELDS, found, strict=True)}


def states(model: OrderModel, spans: Sequence[Span]) -> tuple[np.ndarray, np.ndarray]:
    """Hidden states [N, d] before every order in the spans, and the orders' classes, int32 [N]; contexts as above."""
    length = model.spec.context_length
    chosen = windows(spans, length, max(length // 2, 1))
    found = []
    for start in range(0, len(chosen.scored), _TOGETHER):
        part = chosen.features[start : start + _TOGETHER, :-1]
        full = np.pad(part, ((0, _TOGETHER - len(part)), (0, 0), (0, 0)))
        hidden = np.asarray(_hidden(model, full))[: len(part)]
        found.append(hidden[chosen.scored[start : start + _TOGETHER]])
    return np.concatenate(found), np.asarray(chosen.features)[:, 1:, 0][chosen.scored]


@jax.jit
def _hidden(model: OrderModel, features: jax.Array) -> jax.Array:
    return model.hidden(encoding.from_array(model.spec.tokens, features))


@jax.jit
def _field_losses(model: OrderModel, parts: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
    """Losses by field, of states [C, R, d] and labels [C, R]."""
    def part(x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        law = jax.nn.softmax(model.head(x[0]), axis=-1)
        return tuple(-jnp.log(chance) for chance in chances(model.spec.tokens, law, x[1]))

    return jax.lax.map(part, parts)


def chances(spec: TokenSpec, law: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
    """Probabilities by `FIELDS`, [N] each, of labels int32 [N] under laws [N, classes]."""
    grid = law.reshape(-1, 3, spec.price_levels, spec.volumes, spec.intervals)
    joint = jnp.take_along_axis(law, label[:, None], axis=-1)[:, 0]
    found = [joint]
    for axis, field in enumerate(encoding.unpack(spec, label), start=1):
        others = tuple(i for i in range(1, 5) if i != axis)
        found.append(jnp.take_along_axis(jnp.sum(grid, axis=others), field[:, None], axis=-1)[:, 0])
    return tuple(found)
