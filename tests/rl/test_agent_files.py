"""A policy saved and loaded is the same, and a damaged folder is refused in one line."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.checkpoint import manifest
from marsjax.core.errors import InputError
from marsjax.rl import agent_files
from marsjax.rl.policy import NetworkSpec, Policy, PolicySpec, with_more


def a_policy(memory=3):
    policy = Policy.fresh(PolicySpec(4, (5, 2), NetworkSpec(width=6, layers=2, memory=memory)), jax.random.key(0))
    seen = jnp.asarray(np.random.default_rng(0).normal(2, 3, (9, 4)), jnp.float32)
    return Policy(policy.weights, with_more(policy.moments, seen), policy.spec)


@pytest.mark.parametrize("memory", [0, 3])
def test_what_is_loaded_acts_as_what_was_saved(tmp_path, memory) -> None:
    policy = a_policy(memory)
    agent_files.save(tmp_path / "agent", policy, {"environment": {"task": "execution"}})
    found, about = agent_files.load(tmp_path / "agent")
    assert about == {"environment": {"task": "execution"}} and found.spec == policy.spec
    seen, first = jnp.arange(12.0).reshape(3, 4), jnp.ones(3, bool)
    for one, other in zip(policy.act(policy.begin(3), seen, first, jax.random.key(1)),
                          found.act(found.begin(3), seen, first, jax.random.key(1)), strict=True):
        np.testing.assert_array_equal(one, other)


def edited(place, change):
    """The folder with another agent.json, and a manifest that fits it."""
    record = json.loads((place / "agent.json").read_text())
    change(record)
    (place / "agent.json").write_text(json.dumps(record))
    manifest.write(place, ("agent.json", "agent.safetensors"))


@pytest.mark.parametrize(("change", "said"), [
    (lambda r: r.update(format="other"), "format: expected 'marsjax agent 1', got 'other'"),
    (lambda r: r["policy"].pop("choices"), "policy: expected the keys choices, network, observations"),
    (lambda r: r["policy"].update(choices=5), "policy.choices: expected a list"),
    (lambda r: r["policy"].update(choices=[]), "PolicySpec.choices: expected how many"),
    (lambda r: r["policy"]["network"].update(width=7), "agent.json asks for"),
    (lambda r: r["policy"]["network"].update(width=0), "NetworkSpec.width: expected at least 1"),
    (lambda r: r["policy"]["network"].update(depth=7), "policy.network: expected the keys"),
    (lambda r: r.update(about=3), "about: expected an object")])
def test_a_file_that_does_not_fit_is_refused_in_a_line(tmp_path, change, said) -> None:
    agent_files.save(tmp_path, a_policy(), {})
    edited(tmp_path, change)
    with pytest.raises(InputError, match=said) as refused:
        agent_files.load(tmp_path)
    assert "agent.json" in str(refused.value) or "agent.safetensors" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_damaged_or_missing_file_is_named(tmp_path) -> None:
    agent_files.save(tmp_path, a_policy(), {})
    with pytest.raises(InputError, match="expected a new or an empty folder"):
        agent_files.save(tmp_path, a_policy(), {})
    data = bytearray((tmp_path / "agent.safetensors").read_bytes())
    data[-3] ^= 1
    (tmp_path / "agent.safetensors").write_bytes(data)
    with pytest.raises(InputError, match=r"agent.safetensors: cut off or changed"):
        agent_files.load(tmp_path)
    (tmp_path / "agent.safetensors").write_bytes(b"nothing")
    manifest.write(tmp_path, ("agent.json", "agent.safetensors"))
    with pytest.raises(InputError, match="not a whole safetensors file"):
        agent_files.load(tmp_path)
    manifest.write(tmp_path, ("agent.json",))
    with pytest.raises(InputError, match=r"expected the hash of agent\.safetensors too"):
        agent_files.load(tmp_path)
    (tmp_path / "agent.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"agent.safetensors is missing.*train_agent"):
        agent_files.load(tmp_path)


def test_weights_that_are_not_finite_are_not_saved(tmp_path) -> None:
    policy = a_policy()
    broken = Policy(policy.weights, policy.moments._replace(mean=jnp.full(4, jnp.nan)), policy.spec)
    with pytest.raises(InputError, match=r"moments.mean: expected finite numbers"):
        agent_files.save(tmp_path, broken, {})
