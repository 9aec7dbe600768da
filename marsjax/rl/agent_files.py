"""A trained policy as a folder: what it reads and chooses, what it was trained for, and its weights.

    agent.json          its sizes, and whatever the writer had to say: environment, training, results
    agent.safetensors   the weights and the scale of the observations, float32, by their names
    manifest.json       the hashes of both
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors
import safetensors.numpy
from flax import traverse_util

from marsjax.checkpoint import control_files, manifest
from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.rl.policy import Moments, NetworkSpec, Policy, PolicySpec

SPEC, WEIGHTS = "agent.json", "agent.safetensors"
FORMAT = "marsjax agent 1"
MOST_BYTES = 2**28
"""Of the weights' file."""
_NETWORK, _MOMENTS = "network", "moments"


class SavedAgent(NamedTuple):
    """What `load` found in a folder."""

    policy: Policy
    about: dict[str, Any]
    """What the writer had to say."""


def save(folder: str | os.PathLike[str], policy: Policy, about: Mapping[str, Any]) -> None:
    """Writes a policy into a new folder, or an empty one.

    Args:
      folder: of the agent.
      policy: of one seed.
      about: what JSON can hold, such as the environment and how it was trained.

    InputError where the folder holds something, or a weight is not finite.
    """
    place = pathlib.Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    if any(place.iterdir()):
        raise InputError(f"{place}: expected a new or an empty folder for an agent; name another")
    weights = _weights(policy)
    _check(place / WEIGHTS, weights, policy.spec)
    record = {"format": FORMAT, "policy": dataclasses.asdict(policy.spec), "about": dict(about)}
    (place / SPEC).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (place / WEIGHTS).write_bytes(safetensors.numpy.save(weights))
    manifest.write(place, (SPEC, WEIGHTS))


def load(folder: str | os.PathLike[str]) -> SavedAgent:
    """The policy in a folder, which draws its actions, and what its writer had to say.

    Raises FileNotFoundError where a file is missing; InputError, which names file and key or tensor, where one is
    damaged or does not fit the other.
    """
    place = pathlib.Path(folder)
    for name in (SPEC, WEIGHTS, manifest.NAME):
        if not (place / name).is_file():
            raise FileNotFoundError(f"{place / name} is missing: no folder of an agent; train one with `marsjax "
                                    "train_agent`")
    listed = manifest.check(place)
    for name in (SPEC, WEIGHTS):
        if name not in listed:
            raise InputError(f"{place / manifest.NAME}: expected the hash of {name} too")
    record = files.read_json(place / SPEC)
    if record.get("format") != FORMAT:
        raise InputError(f"{place / SPEC}: format: expected {FORMAT!r}, got {brief(record.get('format'))}")
    spec, about = _spec(place / SPEC, record.get("policy")), record.get("about")
    if not isinstance(about, dict):
        raise InputError(f"{place / SPEC}: about: expected an object, got {brief(about)}")
    try:
        weights = safetensors.numpy.load(files.read_bytes(place / WEIGHTS, MOST_BYTES))
    except safetensors.SafetensorError as error:
        raise InputError(f"{place / WEIGHTS}: not a whole safetensors file: {brief(error, 120)}") from None
    _check(place / WEIGHTS, weights, spec)
    found = traverse_util.unflatten_dict(weights, sep=".")
    return SavedAgent(Policy(found[_NETWORK], Moments(**found[_MOMENTS]), spec), about)


def _weights(policy: Policy) -> dict[str, np.ndarray]:
    tree = {_NETWORK: policy.weights, _MOMENTS: policy.moments._asdict()}
    return {name: np.array(x, np.float32) for name, x in traverse_util.flatten_dict(tree, sep=".").items()}


def _check(path: pathlib.Path, weights: Mapping[str, np.ndarray], spec: PolicySpec) -> None:
    shapes = jax.eval_shape(lambda key: Policy.fresh(spec, key), jax.random.key(0))
    tree = {_NETWORK: shapes.weights, _MOMENTS: shapes.moments._asdict()}
    expected = {name: x.shape for name, x in traverse_util.flatten_dict(tree, sep=".").items()}
    control_files.check(path, control_files.ControlFiles("agent", FORMAT, "agent", "`marsjax train_agent`"), weights,
                        expected)


def _spec(path: pathlib.Path, record: Any) -> PolicySpec:
    sizes = control_files.has_keys(path, "policy", record, {field.name for field in dataclasses.fields(PolicySpec)})
    network = control_files.has_keys(path, "policy.network", sizes["network"],
                                     {field.name for field in dataclasses.fields(NetworkSpec)})
    if not isinstance(sizes["choices"], list):
        raise InputError(f"{path}: policy.choices: expected a list of numbers, got {brief(sizes['choices'])}")
    try:
        return PolicySpec(sizes["observations"], tuple(sizes["choices"]), NetworkSpec(**network))
    except InputError as error:
        raise InputError(f"{path}: policy: {error}") from None
