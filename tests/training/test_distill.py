"""Distillation: a divergence that is one, without a gradient at equality; a student that gains by its teacher."""

import dataclasses
import functools
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.tree_util import Partial

from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model import llama
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter
from marsjax.training import distill, loop, loss, structured
from marsjax.training.distill import Teacher
from marsjax.training.loop import TrainSpec
from tests.model.test_llama import random_params

BINS = TokenSpec(4, 2, 2)
SPEC = ModelSpec(embed_dim=8, heads=2, context_length=8, tokens=BINS)
LENGTH = 8


def random_windows(count: int, seed: int = 0) -> np.ndarray:
    """int32 [count, LENGTH + 1, 15]."""
    rng = np.random.default_rng(seed)
    return rng.integers(0, [BINS.classes, 11, 11, 9, 50] + [3] * 10, (count, LENGTH + 1, 15)).astype(np.int32)


def written(teacher: OrderModel, count: int, seed: int) -> np.ndarray:
    """Windows whose orders the teacher drew, one after the other; what else their tokens say is random."""
    features, rng = random_windows(count, seed), np.random.default_rng(seed + 1)
    law = jax.jit(lambda x: jax.nn.softmax(teacher(encoding.from_array(BINS, x)), axis=-1))
    for place in range(1, LENGTH + 1):
        chances = np.asarray(law(features[:, :LENGTH]))[:, place - 1]
        features[:, place, 0] = (np.cumsum(chances, axis=-1) < rng.random((count, 1))).sum(axis=-1).clip(
            max=BINS.classes - 1)
    return features


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_the_divergence_is_that_of_the_laws(temperature: float) -> None:
    teacher, student, windows = random_params(SPEC, 0), random_params(SPEC, 1), random_windows(5)
    got = np.asarray(distill.divergence(teacher, student, windows, temperature))
    logits = [np.asarray(model(encoding.from_array(BINS, windows[:, :-1])), np.float64) / temperature
              for model in (teacher, student)]
    p, q = (np.exp(x - x.max(axis=-1, keepdims=True)) for x in logits)
    p, q = p / p.sum(axis=-1, keepdims=True), q / q.sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(got, (p * np.log(p / q)).sum(axis=-1), rtol=1e-3, atol=1e-5)
    assert got.min() > 0


def test_at_equality_nothing_is_to_be_learnt_and_elsewhere_much() -> None:
    """Of a head with a row for each class, and of one whose rows are summed, which a teacher sees expanded."""
    rng = np.random.default_rng(0)
    fresh = structured.init(SPEC, jax.random.key(0), pair_width=3)
    learner = jax.tree.map(lambda x: x + jnp.asarray(rng.normal(0, 0.5, x.shape), jnp.float32), fresh)
    for student, same in ((random_params(SPEC), random_params(SPEC)), (learner, structured.expand(learner))):
        def slope(teacher: OrderModel, student: Any = student) -> float:
            found = jax.jit(jax.grad(lambda x: jnp.mean(distill.divergence(teacher, x, random_windows(6)))))(student)
            return float(jnp.sqrt(sum(jnp.sum(x**2) for x in jax.tree.leaves(found))))

        assert slope(same) < 1e-5 < 1e-2 < slope(random_params(SPEC, 5))


def test_a_part_of_nothing_is_the_plain_objective_and_so_is_what_is_measured() -> None:
    student, windows, key = random_params(SPEC, 1), random_windows(4), jax.random.key(0)
    plain, teacher = loss.Joint(4), random_params(SPEC)
    of = functools.partial(distill.objective, plain)
    np.testing.assert_array_equal(of(Teacher(teacher, {}, weight=0.0))(student, windows, key), plain(student, windows))
    np.testing.assert_array_equal(of(Teacher(teacher, {}, weight=1.0))(student, windows, None), plain(student, windows))
    apart = np.asarray(distill.divergence(teacher, student, windows, 2.0))
    np.testing.assert_allclose(of(Teacher(teacher, {}, 0.25, 2.0))(student, windows, key),
                               0.75 * np.asarray(plain(student, windows)) + 0.25 * 4 * apart, rtol=1e-5)


def trained(teacher: Teacher | None, windows: np.ndarray) -> OrderModel:
    train = TrainSpec(steps=200, batch=16, length=LENGTH, peak_rate=1e-2, warmup=20, decay=0.0)
    plain = loss.Joint(LENGTH)
    aim = plain if teacher is None else distill.objective(plain, teacher)
    begun = loop.begin(train, llama.init(SPEC, jax.random.key(3)))
    *_, (progress, _) = loop.run(train, aim, begun, list(windows), jax.random.key(4), every=200)
    return progress.params


def test_of_few_orders_a_student_learns_more_from_a_teacher_than_from_the_orders_alone() -> None:
    """The teacher wrote them: its own loss is the least that there is, and the student comes near it."""
    teacher = random_params(SPEC, scale=0.5)
    few, unseen = written(teacher, 48, 0), written(teacher, 400, 100)

    def loss_of(model: OrderModel) -> float:
        return float(jnp.mean(loss.next_token(model, unseen, LENGTH)))

    least, alone = loss_of(teacher), loss_of(trained(None, few))
    taught = loss_of(trained(Teacher(teacher, {}, weight=1.0), few))
    assert least < taught < alone
    assert taught - least < 0.5 * (alone - least)


def test_the_teacher_is_an_argument_of_the_compiled_step_not_a_part_of_it() -> None:
    """So another teacher of the same sizes needs no other program, and a large one no copy in it."""
    one, other = (distill.objective(loss.Joint(LENGTH), Teacher(random_params(SPEC, seed), {})) for seed in (0, 1))
    assert isinstance(one, Partial)
    assert jax.tree.structure(one) == jax.tree.structure(other)
    assert sum(x.size for x in jax.tree.leaves(one)) == sum(x.size for x in jax.tree.leaves(random_params(SPEC)))


def converter(edge: float) -> Converter:
    return Converter(np.array([0.0, edge]), (np.array([edge]),), (np.ones(1),))


@pytest.mark.parametrize(("changes", "expected"), [
    ({"tokens": TokenSpec(5, 2, 2)}, "expected as many price_levels as the student's 4, got 5"),
    ({"tokens": dataclasses.replace(BINS, signals=True)}, "reads signals, and the student's tokens have none"),
    ({"context_length": 7}, "a context_length of at least the student's 8, got 7"),
    ({"whole_cancels": True}, "expected whole_cancels=False as the student's, got True"),
    ({}, "its bins of price-level are not those of the tokens to train on")])
def test_a_teacher_that_means_other_orders_is_refused(changes: dict[str, Any], expected: str) -> None:
    teacher = Teacher(random_params(dataclasses.replace(SPEC, **changes)), {"price-level": converter(1.0)})
    with pytest.raises(ValueError, match=re.escape(expected)):
        teacher.check(SPEC, {"price-level": converter(2.0)})
    with pytest.raises(ValueError, match=re.escape("Teacher.weight: expected 0.0 to 1.0, got 1.5")):
        Teacher(random_params(SPEC), {}, weight=1.5)
    Teacher(random_params(SPEC), {"price-level": converter(1.0)}).check(SPEC, {"price-level": converter(1.0)})
