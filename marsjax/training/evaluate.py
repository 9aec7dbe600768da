"""Losses of an order model on spans of days, for the whole order and for each of its fields."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import model, tokens
from marsjax.model import Params
from marsjax.specs import ComputeSpec, ModelSpec, TokenSpec
from marsjax.training.split import Span, Windows, windows

FIELDS = ("order", "type", "price", "volume", "interval")
"""The whole order (its joint class), and its parts."""
_TOGETHER = 8
"""Windows of one compiled call."""
_ROWS = 256
"""Predictions whose logits are made at a time."""


def losses(params: Params, spec: ModelSpec, compute: ComputeSpec, spans: Sequence[Span]) -> dict[str, np.ndarray]:
    """Nats of every order in the spans by `FIELDS`, float32 [N] each.

    A field's loss is that of its marginal law: the sum of the joint law over all classes with that type (or bin).
    Contexts are half a window of the model and more, up to a whole one.
    """
    chosen = windows(spans, spec.max_orders, max(spec.max_orders // 2, 1))
    states = _states(params, spec, compute, chosen)
    label = chosen.features[:, 1:, 0][chosen.scored]
    count = len(label)
    pad = -count % _ROWS
    parts = (jnp.pad(jnp.asarray(states), ((0, pad), (0, 0))).reshape(-1, _ROWS, spec.width),
             jnp.pad(jnp.asarray(label), (0, pad)).reshape(-1, _ROWS))
    found = _field_losses(params, spec, compute, parts)
    return {name: np.asarray(x).reshape(-1)[:count] for name, x in zip(FIELDS, found, strict=True)}


def _states(params: Params, spec: ModelSpec, compute: ComputeSpec, chosen: Windows) -> np.ndarray:
    """Hidden states of the scored predictions, [N, d]."""
    found = []
    for start in range(0, len(chosen.scored), _TOGETHER):
        part = chosen.features[start : start + _TOGETHER, :-1]
        full = np.pad(part, ((0, _TOGETHER - len(part)), (0, 0), (0, 0)))
        states = np.asarray(_hidden(params, spec, compute, full))[: len(part)]
        found.append(states[chosen.scored[start : start + _TOGETHER]])
    return np.concatenate(found)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _hidden(params: Params, spec: ModelSpec, compute: ComputeSpec, features: jax.Array) -> jax.Array:
    return model.hidden(params, spec, tokens.from_array(spec.tokens, features), compute)


@functools.partial(jax.jit, static_argnums=(1, 2))
def _field_losses(params: Params, spec: ModelSpec, compute: ComputeSpec, parts: tuple[jax.Array, jax.Array]
                  ) -> tuple[jax.Array, ...]:
    """Losses by field, of states [C, R, d] and labels [C, R]."""
    def part(x: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, ...]:
        law = jax.nn.softmax(model.head(params, x[0], compute), axis=-1)
        return tuple(-jnp.log(chance) for chance in chances(spec.tokens, law, x[1]))

    return jax.lax.map(part, parts)


def chances(spec: TokenSpec, law: jax.Array, label: jax.Array) -> tuple[jax.Array, ...]:
    """Probabilities by `FIELDS`, [N] each, of labels int32 [N] under laws [N, classes]."""
    grid = law.reshape(-1, 3, spec.price_levels, spec.volumes, spec.intervals)
    joint = jnp.take_along_axis(law, label[:, None], axis=-1)[:, 0]
    found = [joint]
    for axis, field in enumerate(tokens.unpack(spec, label), start=1):
        others = tuple(i for i in range(1, 5) if i != axis)
        found.append(jnp.take_along_axis(jnp.sum(grid, axis=others), field[:, None], axis=-1)[:, 0])
    return tuple(found)
