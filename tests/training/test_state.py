"""A state of a training comes back as it was, arrays without an element among its weights."""

import dataclasses
import pathlib

import chex
import jax
import jax.numpy as jnp

from marsjax.training import loop
from marsjax.training.loop import TrainSpec
from marsjax.training.state import Saved, StateFolder


def test_arrays_without_an_element_are_kept(tmp_path: pathlib.Path) -> None:
    """The body of a structured model has such a head."""
    weights = {"a": jnp.arange(3.0), "head": jnp.zeros((2, 0))}
    progress = loop.begin(TrainSpec(steps=2, batch=1, length=8), weights)
    saved = Saved(progress, jax.tree.map(lambda x: x + 1, weights), [{"step": 0.0}])
    with StateFolder(tmp_path / "state", {"seed": 1}) as states:
        states.save(saved)
    fresh = Saved(jax.tree.map(jnp.zeros_like, progress), jax.tree.map(jnp.zeros_like, weights), [])
    with StateFolder(tmp_path / "state", {"seed": 1}) as states:
        found = states.restore(fresh)
    assert found is not None and found.curve == saved.curve
    assert jax.tree.structure(found) == jax.tree.structure(saved)
    chex.assert_trees_all_equal(found[:2], saved[:2])


def test_a_damaged_state_is_passed_over(tmp_path: pathlib.Path) -> None:
    weights = {"a": jnp.arange(3.0)}
    progress = loop.begin(TrainSpec(steps=2, batch=1, length=8), weights)
    with StateFolder(tmp_path / "state", {"seed": 1}) as states:
        for step in (1, 2):
            states.save(Saved(dataclasses.replace(progress, step=jnp.int32(step)), weights, []))
        written = (path for path in (tmp_path / "state" / "2" / "arrays").rglob("*") if path.is_file())
        path = max(written, key=lambda path: path.stat().st_size)
        content = bytearray(path.read_bytes())
        content[5] ^= 1
        path.write_bytes(content)
        found = states.restore(Saved(progress, weights, []))
    assert found is not None and int(found.progress.step) == 1
