"""The structured model is the ordinary one that it expands to: same losses, same gradients, a law that adds up."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model import llama, row_head
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


def joint(params: Structured) -> np.ndarray:
    """A row for each class, [d, classes]."""
    return np.asarray(row_head.joint(structured.expand(params).head.tables()))


def test_a_body_has_no_head_whatever_the_spec_says() -> None:
    fresh = structured.init(dataclasses.replace(SPEC, pair_width=2), jax.random.key(0), pair_width=3)
    assert fresh.body.weights()["head"].shape == (8, 0) and fresh.body.spec.pair_width == 0
    assert structured.expand(fresh).spec.pair_width == 3


def test_losses_are_those_of_the_expanded_model(params: Structured, features: np.ndarray) -> None:
    own = structured.next_token(params, features, chunk=4)
    joint = loss.next_token(structured.expand(params), features, chunk=6)
    assert float(jnp.ptp(joint)) > 3
    np.testing.assert_allclose(own, joint, rtol=2e-5)


def test_a_model_that_was_expanded_is_structured_again(params: Structured, features: np.ndarray) -> None:
    model = structured.expand(params)
    one_row = model.replace({f"embedding.{name}": jnp.broadcast_to(getattr(model.embedding, name)[...][:1],
                                                                   getattr(model.embedding, name)[...].shape)
                             for name in ("change", "time")})
    again = structured.of_model(one_row)
    assert again.head.kind_price_volume.shape[-1] == 3
    jax.tree.map(np.testing.assert_array_equal, structured.expand(again).head.tables(), model.head.tables())
    np.testing.assert_allclose(structured.next_token(again, features, chunk=4), loss.next_token(one_row, features, 4),
                               rtol=1e-4)
    with pytest.raises(ValueError, match=r"a head whose rows are summed .* got one with a row for each class"):
        structured.of_model(llama.init(SPEC, jax.random.key(0)))
    with pytest.raises(ValueError, match=r"expected one row for all in embedding\.change"):
        structured.of_model(one_row.replace({"embedding.change": jnp.arange(4001.0 * 8).reshape(4001, 8)}))


def test_dropout_leaves_the_mean_and_the_anchor_alone() -> None:
    x = jnp.asarray(np.random.default_rng(5).normal(size=(4000, 8)), jnp.float32)
    dropped = np.asarray(structured.Dropout(0.25, jax.random.key(1))(x, 0))
    assert (dropped[:, structured.ANCHOR] == x[:, structured.ANCHOR]).all()
    rest = np.delete(dropped, structured.ANCHOR, axis=1)
    assert abs((rest == 0).mean() - 0.25) < 0.01
    given = np.delete(np.asarray(x), structured.ANCHOR, axis=1)
    np.testing.assert_allclose(rest[rest != 0], given[rest != 0] / 0.75, rtol=1e-6)
    assert (structured.Dropout(0.25, jax.random.key(1))(x, 1) != dropped).any()


def test_a_step_draws_its_dropout_and_a_measurement_none(params: Structured, features: np.ndarray) -> None:
    objective = loss.Factored(4, dropout=0.5)
    plain = structured.next_token(params, features, chunk=4)
    np.testing.assert_array_equal(objective(params, features), plain)
    one, again, other = (objective(params, features, jax.random.key(seed)) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()
    assert (one != plain).any()


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
    whole = joint(params)
    for field in dataclasses.fields(params.head):
        without = dataclasses.replace(params.head, **{field.name: jnp.zeros_like(getattr(params.head, field.name))})
        changed = joint(dataclasses.replace(params, head=without)) != whole
        assert changed.any(axis=0).all(), field.name


def test_pairs_see_their_few_coordinates_and_biases_the_anchor_alone(params: Structured) -> None:
    def without(*words: str) -> np.ndarray:
        head = dataclasses.replace(params.head, **{
            field.name: jnp.zeros_like(getattr(params.head, field.name))
            for field in dataclasses.fields(params.head) if field.name not in words})
        return joint(dataclasses.replace(params, head=head))

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
