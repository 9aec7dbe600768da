"""The structured model is the ordinary one that it expands to: same losses, same gradients, a law that adds up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.tokens import encoding
from marsjax.training import evaluate, loss, structured
from marsjax.training.structured import Structured

SPEC = ModelSpec(embed_dim=8, heads=2, context_length=16, tokens=TokenSpec(5, 4, 3))


@pytest.fixture(scope="module")
def features() -> np.ndarray:
    rng = np.random.default_rng(0)
    high = [SPEC.tokens.classes, 11, 11, 2001, 14000] + [9] * 10
    return rng.integers(0, high, size=(3, 13, 15)).astype(np.int32)


@pytest.fixture(scope="module")
def params() -> Structured:
    """As after some training: no row is zero, scores differ by tens."""
    fresh = structured.init(SPEC, jax.random.key(0), pair_width=3)
    leaves, tree = jax.tree.flatten(fresh)
    rng = np.random.default_rng(1)
    return jax.tree.unflatten(tree, [x + jnp.asarray(rng.normal(0, 0.7, x.shape), jnp.float32) for x in leaves])


def test_losses_are_those_of_the_expanded_model(params: Structured, features: np.ndarray) -> None:
    own = structured.next_token(params, features, chunk=4)
    joint = loss.next_token(structured.expand(params), features, chunk=6)
    assert float(jnp.ptp(joint)) > 3
    np.testing.assert_allclose(own, joint, rtol=2e-5)


def test_the_sum_over_classes_holds_where_scores_are_far_apart() -> None:
    p, v, i = 5, 4, 3
    rng = np.random.default_rng(2)
    shapes = [(3, p), (3, v), (3, i), (3, p, v), (3, p, i), (v, i)]
    scores = structured._Rows(*(jnp.asarray(rng.normal(0, 15, (2, *shape)), jnp.float32) for shape in shapes))
    s = jax.tree.map(lambda x: np.asarray(x, np.float64), scores)
    rows = (s.price[..., None, None] + s.volume[:, :, None, :, None] + s.interval[:, :, None, None]
            + s.price_volume[..., None] + s.price_interval[:, :, :, None]
            + s.volume_interval[:, None, None])
    flat = rows.reshape(2, -1)
    top = flat.max(axis=1)
    expected = top + np.log(np.exp(flat - top[:, None]).sum(axis=1))
    np.testing.assert_allclose(structured.log_partition(scores), expected, rtol=1e-5)


def test_a_fresh_model_predicts_the_frequencies_that_it_is_given() -> None:
    rng = np.random.default_rng(3)
    bins = SPEC.tokens
    kind = rng.dirichlet(np.ones(3))
    law = kind[:, None, None, None] * np.stack([np.einsum(
        "p,v,i->pvi", *(rng.dirichlet(np.ones(n)) for n in (bins.price_levels, bins.volumes, bins.intervals)))
        for _ in range(3)])
    fresh = structured.expand(structured.init(SPEC, jax.random.key(0), law.reshape(-1) * 1e5))
    label = rng.choice(bins.classes, size=(4, 16), p=law.reshape(-1))
    windows = np.zeros((4, 16, 15), np.int32)
    windows[..., 0] = label
    logits = fresh(encoding.from_array(bins, windows))
    distance = 0.5 * np.abs(np.asarray(jax.nn.softmax(logits)) - law.reshape(-1)).sum(axis=-1)
    assert distance.mean() < 0.1  # the anchor is nearly constant, not quite


def test_every_row_counts(params: Structured) -> None:
    whole = np.asarray(structured.expand(params).head.weight)
    for field in dataclasses.fields(params.head):
        without = dataclasses.replace(params.head, **{field.name: jnp.zeros_like(getattr(params.head, field.name))})
        changed = np.asarray(structured.expand(dataclasses.replace(params, head=without)).head.weight) != whole
        assert changed.any(axis=0).all(), field.name


def test_pairs_see_their_few_coordinates_and_biases_the_anchor_alone(params: Structured) -> None:
    def without(*words: str) -> np.ndarray:
        head = dataclasses.replace(params.head, **{
            field.name: jnp.zeros_like(getattr(params.head, field.name))
            for field in dataclasses.fields(params.head) if field.name not in words})
        return np.asarray(structured.expand(dataclasses.replace(params, head=head)).head.weight)

    for names, count in ((("bias_price", "bias_volume"), 1), (("price_volume", "volume_interval"), 3)):
        head = without(*names)
        assert (head[:count] != 0).all()
        assert (head[count:] == 0).all()


def test_chances_of_fields_are_sums_over_the_others() -> None:
    rng = np.random.default_rng(4)
    bins = SPEC.tokens
    law = rng.dirichlet(np.ones(bins.classes), size=7).astype(np.float32)
    label = rng.integers(0, bins.classes, 7)
    fields = np.array(encoding.unpack(bins, np.arange(bins.classes)))
    found = np.array(evaluate.chances(bins, jnp.asarray(law), jnp.asarray(label)))
    for n in range(7):
        expected = [law[n, label[n]], *(law[n, field == field[label[n]]].sum() for field in fields)]
        np.testing.assert_allclose(found[:, n], expected, rtol=1e-5)


def test_pair_width_is_checked() -> None:
    with pytest.raises(ValueError, match=r"pair_width of 1 to 8 \(embed_dim\), got 9"):
        structured.init(SPEC, jax.random.key(0), pair_width=9)
