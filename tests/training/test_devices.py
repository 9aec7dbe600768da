"""One training on two devices: the same steps, shared out."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
PROGRAM = """
import json, pathlib, sys
import jax, numpy as np
from jax.sharding import Mesh
from marsjax.training import fit, loop
from marsjax.training.state import StateFolder
from tests.training import test_loop as toy

days = [np.random.default_rng(0).integers(0, 5, (60, 15)).astype(np.int32)]
found = {}
for name, mesh, stops in (("one", None, (0,)), ("two", Mesh(np.array(jax.devices()), (loop.DATA,)), (0,)),
                          ("resumed", Mesh(np.array(jax.devices()), (loop.DATA,)), (4, 0))):
    for stop_at in stops:
        with StateFolder(pathlib.Path(sys.argv[1]) / name, {}) as states:
            recipe = fit.Recipe(toy.TRAIN, fit.FitPlan(4, 0, stop_at), toy.squared, toy.KEY)
            saved, _ = fit.fit(recipe, toy.START, toy.as_split(days), states, mesh)
    found[name] = {"weights": np.asarray(saved.best["scale"]).tolist(),
                   "losses": [row[key] for row in saved.curve for key in ("loss", "validation_loss")],
                   "devices": len(saved.progress.params["scale"].devices())}
try:
    odd = loop.TrainSpec(steps=1, batch=3, length=8)
    next(loop.run(odd, toy.squared, loop.begin(odd, toy.START), days, toy.KEY, mesh=mesh))
except ValueError as error:
    found["error"] = str(error)
print(json.dumps(found))
"""


def test_two_devices_learn_what_one_does(tmp_path: pathlib.Path) -> None:
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT),
                   "XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    result = subprocess.run([sys.executable, "-c", PROGRAM, str(tmp_path)], env=environment, cwd=ROOT,
                            capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert (found["one"]["devices"], found["two"]["devices"]) == (1, 2)
    assert found["two"] == found["resumed"]
    for key in ("weights", "losses"):
        assert found["two"][key] == pytest.approx(found["one"][key], rel=1e-4, abs=1e-6)
    assert "multiple of accumulate=1 times the 2 devices, got 3" in found["error"]
