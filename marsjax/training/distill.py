"""A model taught by another: the law that a teacher has of the next order, in place of the one order that came.

With the share w of the teacher and the temperature T a step of training makes small

    (1 - w) x nats of the order that came + w T^2 x KL(teacher^(1/T) || student^(1/T)),

the mean over the orders of its windows; both laws are of the whole order, all classes. T^2 keeps the size of the
gradient. At a temperature above 1 rare orders count more. The teacher is any order model with the same bins, of
whatever size and mixer; it reads the same windows.
"""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.tree_util import Partial

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.core.specs import ModelSpec
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter
from marsjax.training import structured
from marsjax.training.loop import Objective
from marsjax.training.structured import Structured

_CHUNK = 16
"""Positions of each window whose laws are made at a time."""


@dataclasses.dataclass(frozen=True, eq=False)
class Teacher:
    """Who teaches, and how much."""

    model: OrderModel
    bins: Mapping[str, Converter]
    """Of its tokens, by the names of `bins.NAMES`: those to train on are made with the same."""
    weight: float = 0.5
    """Share of the teacher's law in what is made small, 0 to 1; the rest is the orders that came."""
    temperature: float = 1.0
    """Of both laws."""
    name: str = "a teacher"
    """As it was asked for."""
    about: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What its checkpoint says of it."""

    def __post_init__(self) -> None:
        for name, low, high in (("weight", 0.0, 1.0), ("temperature", 0.1, 100.0)):
            if not low <= getattr(self, name) <= high:
                raise InputError(f"Teacher.{name}: expected {low} to {high}, got {getattr(self, name)}")

    def check(self, student: ModelSpec, bins: Mapping[str, Converter]) -> None:
        """InputError unless the teacher can read a student's windows, of tokens that were made with `bins`.

        A class then means the same to both.
        """
        spec, tokens = self.model.spec, student.tokens
        for name in ("price_levels", "volumes", "intervals"):
            if getattr(spec.tokens, name) != getattr(tokens, name):
                raise InputError(f"Teacher: expected as many {name} as the student's {getattr(tokens, name)}, got "
                                 f"{getattr(spec.tokens, name)}: classes would mean other orders")
        if spec.tokens.signals and not tokens.signals:
            raise InputError("Teacher: it reads signals, and the student's tokens have none: train with signals")
        if spec.context_length < student.context_length:
            raise InputError(f"Teacher: expected a context_length of at least the student's {student.context_length}, "
                             f"got {spec.context_length}")
        if spec.whole_cancels != student.whole_cancels:
            raise InputError(f"Teacher: expected whole_cancels={student.whole_cancels} as the student's, got "
                             f"{spec.whole_cancels}: their cancels would mean other orders")
        for name, used in bins.items():
            if name not in self.bins or not np.array_equal(self.bins[name].edges, used.edges):
                raise InputError(f"Teacher: its bins of {name} are not those of the tokens to train on")


@dataclasses.dataclass(frozen=True)
class _Distilled:
    """(teacher, student, windows int32 [B, T + 1, C], key or None) -> nats [B, T]."""

    plain: Objective
    weight: float
    temperature: float

    def __call__(self, teacher: OrderModel, student: OrderModel | Structured, features: Array,
                 key: jax.Array | None = None) -> jax.Array:
        nats = self.plain(student, jnp.asarray(features), key)
        if key is None:
            return nats
        apart = divergence(teacher, student, features, self.temperature)
        return (1 - self.weight) * nats + self.weight * self.temperature**2 * apart


def objective(plain: Objective, teacher: Teacher) -> Objective:
    """An objective of a training (`loop.run`) that adds a teacher to a plain one (`training.loss`).

    Without a key it is the plain one: what is measured is the orders that came. The teacher's weights are arguments of
    the compiled step, not a part of it.
    """
    return Partial(_Distilled(plain, teacher.weight, teacher.temperature), teacher.model)


def divergence(teacher: OrderModel, student: OrderModel | Structured, features: Array, temperature: float = 1.0
               ) -> jax.Array:
    """KL of the student's law of each next order from the teacher's, nats, float32 [B, T], at a temperature.

    Of windows int32 [B, T + 1, C], without dropout; columns that a model does not read may follow its own. Laws of all
    classes are made for some positions at a time, forward and backward.
    """
    learner = structured.expand(student) if isinstance(student, Structured) else student
    rows = jnp.asarray(features)[:, :-1]
    states = [model.hidden(encoding.from_array(model.spec.tokens, rows[..., :encoding.columns(model.spec.tokens)]))
              for model in (teacher, learner)]
    batch, length, _ = states[0].shape
    chunk = math.gcd(length, _CHUNK)

    @jax.checkpoint
    def part(x: list[jax.Array]) -> jax.Array:
        known, learnt = (jax.nn.log_softmax(model.head(each) / temperature, axis=-1)
                         for model, each in zip((teacher, learner), x, strict=True))
        return jnp.sum(jnp.exp(known) * (known - learnt), axis=-1)

    pieces = [jnp.moveaxis(each.reshape(batch, -1, chunk, each.shape[-1]), 1, 0) for each in states]
    return jnp.moveaxis(jax.lax.map(part, pieces), 0, 1).reshape(batch, length)
