"""Importing marsjax changes nothing global: no device is started, no JAX setting or log handler is touched."""

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

ROOT = pathlib.Path(__file__).parent.parent

# The third-party packages come first: what they do to JAX and to logging is not ours.
PROGRAM = """
import importlib, json, logging, pathlib, sys
import jax, jax.numpy, numpy as np
for name in "flax.linen optax chex orbax.checkpoint pandas matplotlib absl.logging ml_collections".split():
    importlib.import_module(name)

def state():
    return {
        "x64": jax.config.jax_enable_x64,
        "jax": {key: repr(value) for key, value in jax.config.values.items()},
        "handlers": [repr(handler) for handler in logging.root.handlers],
        "level": logging.root.level,
        "numpy": np.geterr(),
    }

def changed(before):
    after = state()
    return [key for key in before if before[key] != after[key]]

root = pathlib.Path(sys.argv[1])
names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
         for path in sorted((root / "marsjax").rglob("*.py"))]
before = state()
for name in names:
    importlib.import_module(name)
report = {"modules": names, "changed": changed(before), "seen": []}
for change in sys.argv[2:]:
    before = state()
    try:
        exec(change)
        report["seen"].append(changed(before))
    except Exception as error:
        report["seen"].append(str(error))
print(json.dumps(report))
"""
CHANGES = ["jax.config.update('jax_enable_x64', True)", "logging.root.addHandler(logging.NullHandler())",
           "jax.numpy.int32(0)", "np.seterr(all='raise')"]
"""What a module might do as it is imported; each is seen, one after the other, once nothing else has been."""


@pytest.fixture(scope="module")
def report() -> dict[str, Any]:
    """Every module imported where JAX cannot start any device: one that is asked for is an error."""
    environment = {**os.environ, "JAX_PLATFORMS": "no_such_platform", "PYTHONPATH": str(ROOT)}
    result = subprocess.run([sys.executable, "-c", PROGRAM, str(ROOT), *CHANGES], env=environment, capture_output=True,
                            text=True, timeout=120, check=False)
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[-1])


def test_importing_everything_changes_nothing(report: dict[str, Any]) -> None:
    assert report["changed"] == []
    assert {"marsjax", "marsjax.market.book", "marsjax.experiments.launcher"} <= set(report["modules"])


def test_a_change_or_a_started_device_would_be_seen(report: dict[str, Any]) -> None:
    switch, handler, device, numpy = report["seen"]
    assert (switch, handler, numpy) == (["x64", "jax"], ["handlers"], ["numpy"])
    assert "no_such_platform" in device


def test_importing_takes_less_than_a_second_after_jax() -> None:
    """In processor time, so that other work on the machine does not count; and with every public name, twice that."""
    program = ("import time, jax, jax.numpy; began = time.process_time(); import marsjax; "
               "print(time.process_time() - began); [getattr(marsjax, name) for name in marsjax.__all__]; "
               "print(time.process_time() - began)")
    result = subprocess.run([sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": str(ROOT)},
                            capture_output=True, text=True, timeout=120, check=True)
    alone, with_names = map(float, result.stdout.split())
    assert alone < 1.0 and with_names < 2.0
