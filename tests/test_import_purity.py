"""Importing marsjax changes nothing global: no device is started, no JAX setting or log handler is touched."""

import json
import os
import pathlib
import subprocess
import sys

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

root = pathlib.Path(sys.argv[1])
names = [".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
         for path in sorted((root / "marsjax").rglob("*.py"))]
before = state()
for name in names:
    importlib.import_module(name)
exec(sys.argv[2])
after = state()
print(json.dumps({"modules": names, "changed": [key for key in before if before[key] != after[key]]}))
"""


def import_all(then: str = "", platforms: str = "no_such_platform") -> subprocess.CompletedProcess[str]:
    """Imports every module where JAX cannot start any device: one that is asked for ends the program."""
    environment = {**os.environ, "JAX_PLATFORMS": platforms, "PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", PROGRAM, str(ROOT), then], env=environment, capture_output=True,
                          text=True, timeout=120, check=False)


def test_importing_everything_changes_nothing() -> None:
    result = import_all()
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout.splitlines()[-1])
    assert report["changed"] == []
    assert {"marsjax", "marsjax.market.book", "marsjax.experiments.launcher"} <= set(report["modules"])


def test_a_started_device_would_be_seen() -> None:
    result = import_all("import jax.numpy as jnp; jnp.int32(0)")
    assert result.returncode != 0
    assert "no_such_platform" in result.stderr


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        ("jax.config.update('jax_enable_x64', True)", ["x64", "jax"]),
        ("logging.root.addHandler(logging.NullHandler())", ["handlers"]),
        ("np.seterr(all='raise')", ["numpy"]),
    ],
)
def test_a_change_would_be_seen(change: str, seen: list[str]) -> None:
    result = import_all(change)
    assert json.loads(result.stdout.splitlines()[-1])["changed"] == seen
